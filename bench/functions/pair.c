/*
 * Two functions that hand one object to each other. `make` creates and writes it; from then on it
 * is forwarded, so that every handover is of the same touched pages and nothing is written again.
 * Its first word says which run it belongs to, its key which handover comes next.
 */
#include <stdio.h>
#include <stdlib.h>

#include "stamps.h"

/* How long the last function holds the object after it has answered, so that the harness can look
 * at everybody's memory while the object lives. */
#define HOLD_NS 100000000

/* What the harness sends. */
typedef struct order {
    uint32_t run;
    uint32_t length;
    uint64_t size; /* payload bytes, at least 8 */
} order;

static uint64_t pattern(uint64_t word)
{
    return word * 0x9e3779b97f4a7c15u;
}

PHR_FUNCTION(make)
{
    const phr_object *in = phr_input(ctx, 0);
    order wanted;
    if (phr_size(in) != sizeof wanted)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof wanted,
                        phr_size(in));
    memcpy(&wanted, phr_data(in), sizeof wanted);
    if (wanted.size < 8 || wanted.length == 0 || wanted.length > STEPS_MAX)
        return phr_fail(ctx, 1, "%u handovers of %llu bytes are out of range", wanted.length,
                        (unsigned long long)wanted.size);
    phr_object *object = phr_create(ctx, NULL, "1", (size_t)wanted.size);
    if (object == NULL)
        return phr_last_status(ctx);
    uint64_t *words = (uint64_t *)phr_buffer(object);
    uint64_t count = wanted.size / 8;
    words[0] = (uint64_t)wanted.run << 32 | wanted.length;
    for (uint64_t i = 1; i < count; i++)
        words[i] = pattern(i);
    memset((char *)words + count * 8, '.', (size_t)(wanted.size % 8));
    steps[0].run = wanted.run;
    steps[0].start_ticks = steps[0].send_ticks = ticks();
    return phr_send(ctx, object);
}

/* Looks at the ends and the middle: what was written is what is read. */
static int check(phr_ctx *ctx, const uint64_t *words, uint64_t count)
{
    uint64_t looked_at[3] = {1, count / 2, count - 1};
    for (int i = 0; i < 3; i++) {
        uint64_t at = looked_at[i];
        if (at > 0 && at < count && words[at] != pattern(at))
            return phr_fail(ctx, 2, "word %llu of %llu is not what was written",
                            (unsigned long long)at, (unsigned long long)count);
    }
    return PHR_OK;
}

static int hand_over(phr_ctx *ctx, uint64_t start)
{
    const phr_object *in = phr_input(ctx, 0);
    const uint64_t *words = (const uint64_t *)phr_data(in);
    uint32_t index = (uint32_t)strtoul(phr_key(in), NULL, 16);
    uint32_t run = (uint32_t)(words[0] >> 32), length = (uint32_t)words[0];
    if (length > STEPS_MAX || index > length)
        return phr_fail(ctx, 1, "an object came under the key %s in a run of %u", phr_key(in),
                        length);
    int status = check(ctx, words, phr_size(in) / 8);
    if (status != PHR_OK)
        return status;
    steps[index].run = run;
    steps[index].start_ticks = start;
    if (index == length) {
        status = respond_with_steps(ctx, length);
        struct timespec hold = {0, HOLD_NS};
        nanosleep(&hold, NULL);
        return status;
    }
    char key[16];
    snprintf(key, sizeof key, "%x", index + 1);
    steps[index].send_ticks = ticks();
    return phr_forward(ctx, in, NULL, key);
}

PHR_FUNCTION(ping)
{
    return hand_over(ctx, ticks());
}

PHR_FUNCTION(pong)
{
    return hand_over(ctx, ticks());
}
