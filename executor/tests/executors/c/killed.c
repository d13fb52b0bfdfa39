/* A chain of one function, each invocation of which makes itself known before it does anything. */
#include <pheromone.h>

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

typedef struct step {
    /* Where the last invocation to begin is told. */
    _Atomic uint64_t *begun;
    uint64_t hops_left;
    /* Stops itself before it sends: from there on it is watched. */
    uint64_t stops;
} step;

PHR_FUNCTION(hop)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *next;
    step here;

    if (phr_size(in) != sizeof here)
        return 1;
    memcpy(&here, phr_data(in), sizeof here);
    atomic_store(here.begun, phr_invocation(ctx));
    if (here.hops_left == 0)
        return PHR_OK;
    next = phr_create(ctx, NULL, NULL, sizeof here);
    if (next == NULL)
        return phr_last_status(ctx);
    if (here.stops)
        raise(SIGSTOP);
    here.hops_left--;
    here.stops = 0;
    memcpy(phr_buffer(next), &here, sizeof here);
    return phr_send(ctx, next);
}
