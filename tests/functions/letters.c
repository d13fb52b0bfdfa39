/* letters.c - functions that fail for good, until a version of the app comes that is mended. */
#include "check.h"

#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

static int is_mended(phr_ctx *ctx)
{
    const char *mended = phr_config(ctx, "mended");

    return mended != NULL && strcmp(mended, "yes") == 0;
}

/* Does to its caller what its input says. */
static int fare(phr_ctx *ctx, const char *how)
{
    if (strncmp(how, "returns", 7) == 0)
        return phr_fail(ctx, 7, "no %s today", "bread");
    if (strcmp(how, "dies") == 0)
        raise(SIGSEGV);
    if (strcmp(how, "hangs") == 0)
        for (;;)
            pause();
    return PHR_OK;
}

/* What it is about: its input, and the session that it comes from. */
static phr_status describe(phr_ctx *ctx)
{
    const phr_object *job = phr_input(ctx, 0);
    char text[256];

    CHECK(phr_input_count(ctx) == 1);
    snprintf(text, sizeof text, "%s %s %s, parent %" PRIu64, phr_bucket(job), phr_key(job),
             (const char *)phr_data(job), phr_parent(ctx, 0));
    /* Where nobody waits for it, that it cannot be told is no failure. */
    (void)phr_respond_data(ctx, text, strlen(text));
    return PHR_OK;
}

PHR_FUNCTION(work)
{
    if (!is_mended(ctx)) {
        const int returned = fare(ctx, phr_data(phr_input(ctx, 0)));

        if (returned != PHR_OK)
            return returned;
    }
    return describe(ctx);
}

/* The same, in a version of which nothing will be left but its letters. */
PHR_FUNCTION(gone)
{
    return fare(ctx, phr_data(phr_input(ctx, 0)));
}

/* Handles what has failed, and fails; once mended it gives back what it was about. */
PHR_FUNCTION(handle)
{
    const phr_object *job = phr_failed_input(phr_input(ctx, 0), 0);

    CHECK(is_mended(ctx));
    CHECK(job != NULL);
    return phr_respond_data(ctx, phr_data(job), phr_size(job));
}

/* Until its session ends. */
PHR_FUNCTION(waits)
{
    while (!phr_cancelled(ctx))
        usleep(1000);
    return PHR_OK;
}
