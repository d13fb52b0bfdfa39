/* Many chains of functions that do nothing, all under way at the same time. */
#include "stamps.h"

/* What the harness sends. */
typedef struct order {
    uint32_t run;
    uint32_t chains;
    uint32_t length; /* hops of each */
    uint32_t reserved;
} order;

/* What one hop tells the next. */
typedef struct link {
    uint32_t run;
    uint32_t at;   /* entry of the log */
    uint32_t left; /* hops after this one */
    uint32_t reserved;
} link;

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
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof wanted)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof wanted,
                        phr_size(in));
    memcpy(&wanted, phr_data(in), sizeof wanted);
    uint64_t entries = (uint64_t)wanted.chains * (wanted.length + 1);
    if (entries > STEPS_MAX + 1)
        return phr_fail(ctx, 1, "%llu entries are beyond the log", (unsigned long long)entries);
    for (uint32_t i = 0; i < wanted.chains; i++) {
        link first = {wanted.run, i * (wanted.length + 1), wanted.length, 0};
        int status = send_link(ctx, &first);
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
    if (here.left == 0)
        return PHR_OK;
    here.at++;
    here.left--;
    return send_link(ctx, &here);
}
