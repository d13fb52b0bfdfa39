/* One sender of durable objects: it waits for each to be on disk before it sends the next. */
#include "stamps.h"

/* What the harness sends. */
typedef struct order {
    uint32_t run;
    uint32_t sends;   /* that are counted */
    uint32_t warm_up; /* before them */
    uint32_t reserved;
    uint64_t size; /* payload bytes */
} order;

PHR_FUNCTION(sends)
{
    order wanted;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof wanted)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof wanted,
                        phr_size(in));
    memcpy(&wanted, phr_data(in), sizeof wanted);
    if (wanted.sends == 0 || wanted.sends > STEPS_MAX)
        return phr_fail(ctx, 1, "%u sends are beyond the log", wanted.sends);
    uint64_t all = (uint64_t)wanted.warm_up + wanted.sends;
    for (uint64_t i = 0; i < all; i++) {
        phr_object *object = phr_create(ctx, "kept", NULL, (size_t)wanted.size);
        if (object == NULL)
            return phr_last_status(ctx);
        memset(phr_buffer(object), (int)i, (size_t)wanted.size);
        uint64_t begin = ticks();
        int status = phr_send_durable(ctx, object);
        uint64_t end = ticks();
        if (status != PHR_OK)
            return status;
        if (i >= wanted.warm_up) {
            entry here = {wanted.run, begin, end};
            steps[i - wanted.warm_up] = here;
        }
    }
    return respond_with_steps(ctx, wanted.sends - 1);
}
