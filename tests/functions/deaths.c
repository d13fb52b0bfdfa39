/*
 * deaths.c - functions that hold on to something while the test kills the processes around them.
 */
#include "check.h"

#include <unistd.h>

/* Touches 64 MiB of shared memory, says so, and waits for what comes. */
PHR_FUNCTION(holds_memory)
{
    const size_t size = (size_t)64 << 20;
    phr_object *out = phr_create(ctx, NULL, NULL, size);

    if (out == NULL)
        return phr_last_status(ctx);
    memset(phr_buffer(out), 1, size);
    phr_log(ctx, PHR_INFO, "holding 64 MiB");
    for (;;)
        pause();
}

/* Ignores whatever asks it politely. */
PHR_FUNCTION(is_stubborn)
{
    phr_log(ctx, PHR_INFO, "being stubborn");
    for (;;)
        sleep(1);
}

/* Returns as soon as it is told that nobody waits any more. */
PHR_FUNCTION(is_considerate)
{
    phr_log(ctx, PHR_INFO, "being considerate");
    while (!phr_cancelled(ctx))
        usleep(1000);
    REFUSED(phr_put(ctx, "results", "k", "x", 1), PHR_ECANCELED);
    phr_log(ctx, PHR_INFO, "told to stop");
    return PHR_OK;
}

/* Answers with what it was given. */
PHR_FUNCTION(echo)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_parts(ctx, &in, 1);
}

PHR_FUNCTION(ignores)
{
    (void)ctx;
    return PHR_OK;
}
