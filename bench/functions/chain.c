/* A chain of functions that do nothing but notice the time and start the next one. */
#include "stamps.h"

PHR_FUNCTION(hop)
{
    uint64_t now = ticks();
    step here;
    int status = read_step(ctx, &here);
    if (status != PHR_OK)
        return status;
    steps[here.index].run = here.run;
    steps[here.index].start_ticks = now;
    if (here.index == here.length)
        return respond_with_steps(ctx, here.length);
    here.index++;
    phr_object *next = phr_create(ctx, NULL, NULL, sizeof here);
    if (next == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(next), &here, sizeof here);
    return phr_send(ctx, next);
}
