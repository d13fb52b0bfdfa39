/*
 * One function starts many, and many start one. `spreads` sends as many direct objects as it is
 * told, to `branch` or to `part`; the parts' objects are gathered by a by_set trigger. Whoever
 * comes last answers.
 *
 * The log of a run of N branches: entry 0 is `spreads`, entry i is branch or part i, from 1, and
 * entry N + 1 is `gathers`.
 */
#include <stdio.h>

#include "stamps.h"

#define KEY_MAX_BYTES 32

static void note(const step *here, uint32_t at, uint64_t start, uint64_t send)
{
    entry mine = {here->run, start, send};
    steps[at] = mine;
}

PHR_FUNCTION(spreads)
{
    uint64_t now = ticks();
    step here;
    int status = read_step(ctx, &here);
    if (status != PHR_OK)
        return status;
    if (here.length >= STEPS_MAX)
        return phr_fail(ctx, 1, "%u branches are beyond the log", here.length);
    note(&here, 0, now, ticks());
    for (uint32_t i = 1; i <= here.length; i++) {
        phr_object *object = phr_create(ctx, NULL, NULL, sizeof here);
        if (object == NULL)
            return phr_last_status(ctx);
        step branch = {here.run, i, here.length, 0};
        memcpy(phr_buffer(object), &branch, sizeof branch);
        status = phr_send(ctx, object);
        if (status != PHR_OK)
            return status;
    }
    return PHR_OK;
}

/* Does nothing but notice the time. The last one answers: an answer wakes threads of the node's,
 * which may share a core with those that are measured. */
PHR_FUNCTION(branch)
{
    uint64_t now = ticks();
    step here;
    int status = read_step(ctx, &here);
    if (status == PHR_OK)
        note(&here, here.index, now, 0);
    if (status == PHR_OK && here.index == here.length)
        status = phr_respond_data(ctx, NULL, 0);
    return status;
}

/* Sends its part of the set. */
PHR_FUNCTION(part)
{
    uint64_t now = ticks();
    step here;
    char key[KEY_MAX_BYTES];
    int status = read_step(ctx, &here);
    if (status != PHR_OK)
        return status;
    snprintf(key, sizeof key, "part-%u", here.index);
    phr_object *object = phr_create(ctx, "parts", key, sizeof here);
    if (object == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(object), &here, sizeof here);
    note(&here, here.index, now, ticks());
    return phr_send(ctx, object);
}

/* All parts are there. */
PHR_FUNCTION(gathers)
{
    uint64_t now = ticks();
    step here;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_input_count(ctx) == 0 || phr_size(in) != sizeof here)
        return phr_fail(ctx, 1, "no part is among %zu inputs", phr_input_count(ctx));
    memcpy(&here, phr_data(in), sizeof here);
    if (here.length != phr_input_count(ctx) || here.length >= STEPS_MAX)
        return phr_fail(ctx, 1, "%zu parts of %u came", phr_input_count(ctx), here.length);
    note(&here, here.length + 1, now, 0);
    return phr_respond_data(ctx, NULL, 0);
}
