/* Functions that tell when they started, after nobody has had anything to do for a while. */
#include "stamps.h"

/* Started by a request. */
PHR_FUNCTION(wakes)
{
    uint64_t now = clock_ns();
    return phr_respond_data(ctx, &now, sizeof now);
}

/* Sends an object that is published when the time in the request, nanoseconds, has passed. */
PHR_FUNCTION(waits)
{
    uint64_t gap_ns;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof gap_ns)
        return phr_fail(ctx, 1, "a gap has %zu bytes, and %zu came", sizeof gap_ns, phr_size(in));
    memcpy(&gap_ns, phr_data(in), sizeof gap_ns);
    phr_object *object = phr_create(ctx, NULL, NULL, sizeof gap_ns);
    if (object == NULL)
        return phr_last_status(ctx);
    phr_send_options options = PHR_SEND_OPTIONS;
    options.delay_ns = gap_ns;
    uint64_t due_ns = clock_ns() + gap_ns;
    memcpy(phr_buffer(object), &due_ns, sizeof due_ns);
    return phr_send_with(ctx, object, &options);
}

/* Started by that object: tells how late. */
PHR_FUNCTION(is_due)
{
    uint64_t now = clock_ns(), due_ns;
    memcpy(&due_ns, phr_data(phr_input(ctx, 0)), sizeof due_ns);
    uint64_t late_ns = now > due_ns ? now - due_ns : 0;
    return phr_respond_data(ctx, &late_ns, sizeof late_ns);
}
