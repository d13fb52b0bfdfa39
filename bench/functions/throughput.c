/* Many chains of functions that do nothing, or work for a while, all under way at the same time. */
#include "stamps.h"

/* What the harness sends. */
typedef struct order {
    uint32_t run;
    uint32_t chains;
    uint32_t length; /* hops of each */
    uint32_t loops;  /* that each function works */
} order;

/* What one hop tells the next. */
typedef struct link {
    uint32_t run;
    uint32_t at;   /* entry of the log */
    uint32_t left; /* hops after this one */
    uint32_t loops;
} link;

/* Work that takes as long wherever it is done, and that no compiler leaves out: each turn waits for
 * the one before it. It takes processor time: whoever loses its core works on when it is back. */
static void work(uint32_t loops)
{
    uint32_t state = loops;
    for (uint32_t i = 0; i < loops; i++) {
        state = state * 1664525u + 1013904223u;
        __asm__ volatile("" : "+r"(state));
    }
}

static int read_order(phr_ctx *ctx, order *into)
{
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof *into)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof *into,
                        phr_size(in));
    memcpy(into, phr_data(in), sizeof *into);
    return PHR_OK;
}

/* How often the loop is timed: the fastest is the one in which nobody else had the core. */
#define TRIES 20

/* Answers with the nanoseconds that so many loops take. */
PHR_FUNCTION(time_loops)
{
    order timed;
    int status = read_order(ctx, &timed);
    if (status != PHR_OK)
        return status;
    uint64_t fastest_ns = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        uint64_t began_ns = clock_ns();
        work(timed.loops);
        uint64_t took_ns = clock_ns() - began_ns;
        if (took_ns < fastest_ns)
            fastest_ns = took_ns;
    }
    return phr_respond_data(ctx, &fastest_ns, sizeof fastest_ns);
}

static int send_link(phr_ctx *ctx, const link *next)
{
    phr_object *object = phr_create(ctx, NULL, NULL, sizeof *next);
    if (object == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(object), next, sizeof *next);
    return phr_send(ctx, object);
}

/* Begins all chains. Chain i has the entries from i * (length + 1). */
PHR_FUNCTION(begins)
{
    order wanted;
    int status = read_order(ctx, &wanted);
    if (status != PHR_OK)
        return status;
    uint64_t entries = (uint64_t)wanted.chains * (wanted.length + 1);
    if (entries > STEPS_MAX + 1)
        return phr_fail(ctx, 1, "%llu entries are beyond the log", (unsigned long long)entries);
    for (uint32_t i = 0; i < wanted.chains; i++) {
        link first = {wanted.run, i * (wanted.length + 1), wanted.length, wanted.loops};
        status = send_link(ctx, &first);
        if (status != PHR_OK)
            return status;
    }
    return phr_respond_data(ctx, NULL, 0);
}

PHR_FUNCTION(hop)
{
    uint64_t now = ticks();
    link here;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof here)
        return phr_fail(ctx, 1, "a link has %zu bytes, and %zu came", sizeof here, phr_size(in));
    memcpy(&here, phr_data(in), sizeof here);
    if ((uint64_t)here.at + here.left > STEPS_MAX)
        return phr_fail(ctx, 1, "entry %u is beyond the log", here.at);
    entry mine = {here.run, now, 0};
    steps[here.at] = mine;
    work(here.loops);
    if (here.left == 0)
        return PHR_OK;
    here.at++;
    here.left--;
    return send_link(ctx, &here);
}
