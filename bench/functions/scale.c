/*
 * Interactions in sessions that have been open and idle: what somebody puts into one of them starts
 * `works`, which starts `works_on` there.
 */
#include "stamps.h"

/* Between the start of `works` and what it sends: the answer to the put is on its way out, which
 * may take the executor's core for a moment, and is not what is measured. */
#define SETTLE_NS 100000

/* Entry 2i of the log is `works` of interaction i, entry 2i + 1 `works_on`. */
static int note(phr_ctx *ctx, uint64_t now, step *here)
{
    int status = read_step(ctx, here);
    if (status != PHR_OK)
        return status;
    entry mine = {here->run, now, 0};
    steps[here->index] = mine;
    return PHR_OK;
}

PHR_FUNCTION(works)
{
    uint64_t now = ticks();
    step here;
    int status = note(ctx, now, &here);
    if (status != PHR_OK)
        return status;
    here.index++;
    phr_object *next = phr_create(ctx, NULL, NULL, sizeof here);
    if (next == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(next), &here, sizeof here);
    for (uint64_t end = clock_ns() + SETTLE_NS; clock_ns() < end;)
        ;
    steps[here.index - 1].send_ticks = ticks();
    return phr_send(ctx, next);
}

/* Keeps the one executor, asleep, until all that is to come after it has been put; longer than that
 * takes. */
#define HOLD_NS 50000000

PHR_FUNCTION(holds)
{
    const struct timespec hold = {0, HOLD_NS};
    step here;
    int status = read_step(ctx, &here);
    if (status != PHR_OK)
        return status;
    nanosleep(&hold, NULL);
    return note(ctx, ticks(), &here);
}

/* One of many that wait behind it; starts `works_on`, whose entry lies so many entries behind as
 * `reserved` says. */
PHR_FUNCTION(joins)
{
    uint64_t now = ticks();
    step here;
    int status = note(ctx, now, &here);
    if (status != PHR_OK)
        return status;
    phr_object *next = phr_create(ctx, NULL, NULL, sizeof here);
    if (next == NULL)
        return phr_last_status(ctx);
    here.index += here.reserved;
    memcpy(phr_buffer(next), &here, sizeof here);
    return phr_send(ctx, next);
}

PHR_FUNCTION(works_on)
{
    uint64_t now = ticks();
    step here;
    return note(ctx, now, &here);
}

/* Of what keeps a session open; nobody waits for so long. */
PHR_FUNCTION(lingers)
{
    return phr_fail(ctx, 1, "a session has lingered to its end");
}
