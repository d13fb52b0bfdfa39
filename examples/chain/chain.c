/*
 * A chain: `start` reads from the request how many hops there shall be, and `hop` passes a direct
 * object to its `next`, which is itself, until that many have been made. The last one responds.
 */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* What is passed from hop to hop. */
struct progress {
    uint64_t hops;  /* asked for */
    uint64_t made;  /* so far */
};

/* Passes the progress on, or answers when there is nothing left to do. */
static phr_status go_on(phr_ctx *ctx, const struct progress *progress)
{
    if (progress->made < progress->hops)
        return phr_put(ctx, NULL, NULL, progress, sizeof *progress);

    char answer[32];
    int length = snprintf(answer, sizeof answer, "%llu\n", (unsigned long long)progress->made);
    return phr_respond_data(ctx, answer, (size_t)length);
}

PHR_FUNCTION(start)
{
    /* A payload is followed by a zero byte, so a text is a C string. */
    const char *text = phr_data(phr_input(ctx, 0));
    char *end;
    struct progress progress = { strtoull(text, &end, 10), 0 };

    if (end == text || end[strspn(end, " \t\r\n")] != '\0' || text[0] == '-')
        return phr_fail(ctx, PHR_PERMANENT(1), "a number of hops was expected, not \"%.40s\"",
                        text);
    return go_on(ctx, &progress);
}

PHR_FUNCTION(hop)
{
    struct progress progress;

    memcpy(&progress, phr_data(phr_input(ctx, 0)), sizeof progress);
    progress.made++;
    return go_on(ctx, &progress);
}
