/*
 * chains.c - long chains in one session, each hop of which looks whether memory grows.
 */
#include "check.h"

/* Payload of a hop: all hops of the longest chain together are far more than the app's quota. */
#define HOP_BYTES 65536
#define FEED_BYTES 4096

/* Hops of a process until its memory counts as settled, and what it may then still grow by. */
#define SETTLED_AFTER 1000
#define GROWTH_MAX_KB 2048

static long resident_kb(void)
{
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    long kb = -1;

    if (status == NULL)
        return -1;
    while (fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmRSS: %ld kB", &kb) == 1)
            break;
    fclose(status);
    return kb;
}

/* Fails once the process has grown since its thousandth hop. */
static int check_flat(phr_ctx *ctx)
{
    static long hops, settled_kb;

    hops++;
    if (hops < SETTLED_AFTER || hops % 500 != 0)
        return PHR_OK;
    if (settled_kb == 0)
        settled_kb = resident_kb();
    CHECK(resident_kb() - settled_kb <= GROWTH_MAX_KB);
    return PHR_OK;
}

/* Counts down to 0 over its own `next`, then answers. */
PHR_FUNCTION(hop)
{
    const long left = number_in(phr_input(ctx, 0));
    phr_object *out;

    OK(check_flat(ctx));
    if (left == 0)
        return phr_respond_data(ctx, "arrived", 7);
    out = phr_create(ctx, NULL, NULL, HOP_BYTES);
    if (out == NULL)
        return phr_last_status(ctx);
    snprintf((char *)phr_buffer(out), HOP_BYTES, "%ld", left - 1);
    return phr_send(ctx, out);
}

/* The same, and each hop also feeds the bucket `crumbs`. */
PHR_FUNCTION(feed)
{
    const long left = number_in(phr_input(ctx, 0));
    phr_object *crumb, *out;

    OK(check_flat(ctx));
    if (left == 0)
        return PHR_OK;
    crumb = phr_create(ctx, "crumbs", NULL, FEED_BYTES);
    if (crumb == NULL)
        return phr_last_status(ctx);
    snprintf((char *)phr_buffer(crumb), FEED_BYTES, "%ld", left);
    OK(phr_send(ctx, crumb));
    out = phr_create(ctx, NULL, NULL, FEED_BYTES);
    if (out == NULL)
        return phr_last_status(ctx);
    snprintf((char *)phr_buffer(out), FEED_BYTES, "%ld", left - 1);
    return phr_send(ctx, out);
}

/* Notes each crumb under its number. */
PHR_FUNCTION(tally)
{
    char key[32];

    CHECK(phr_size(phr_input(ctx, 0)) == FEED_BYTES);
    snprintf(key, sizeof key, "t-%ld", number_in(phr_input(ctx, 0)));
    return phr_put(ctx, "tallies", key, NULL, 0);
}

/* All crumbs have been noted. */
PHR_FUNCTION(total)
{
    char text[32];

    snprintf(text, sizeof text, "%zu", phr_input_count(ctx));
    return phr_respond_data(ctx, text, strlen(text));
}
