/*
 * weights.c - work without end, in units that cost the same wherever they run.
 */
#include "check.h"

/* So many objects as its input says. */
PHR_FUNCTION(makes_work)
{
    const long count = number_in(phr_input(ctx, 0));

    for (long i = 0; i < count; i++)
        OK(phr_put(ctx, "work", NULL, NULL, 0));
    return PHR_OK;
}

/* One unit: about a millisecond of a core. */
PHR_FUNCTION(works)
{
    (void)ctx;
    volatile unsigned hash = 2166136261u;

    for (unsigned i = 0; i < 500000; i++)
        hash = (hash ^ i) * 16777619u;
    return PHR_OK;
}
