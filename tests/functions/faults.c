/*
 * faults.c - functions that die, hoard and read where they should not, while the test looks whether
 * everything else is as it was.
 */
#include "check.h"

#include <stdio.h>
#include <unistd.h>

/* A number of the manifest's `config`; 0 where it says nothing. */
static long config_number(const phr_ctx *ctx, const char *name)
{
    const char *text = phr_config(ctx, name);

    return text == NULL ? 0 : strtol(text, NULL, 10);
}

/* Answers with a number. */
static phr_status answer(phr_ctx *ctx, long number)
{
    char text[32];
    const int length = snprintf(text, sizeof text, "%ld", number);

    return phr_respond_data(ctx, text, (size_t)length);
}

/* ------------------------------------------------------------------------------ crash loop ---- */

PHR_FUNCTION(sows)
{
    const long count = config_number(ctx, "crashes");

    for (long i = 0; i < count; i++)
        OK(phr_put(ctx, "seeds", NULL, &i, sizeof i));
    return PHR_OK;
}

/* What it has sent stays, and its process does not. */
PHR_FUNCTION(crashes)
{
    const phr_object *in = phr_input(ctx, 0);

    OK(phr_put(ctx, "kept", NULL, phr_data(in), phr_size(in)));
    abort();
}

/* Every crash has left its object, and none of them twice. */
PHR_FUNCTION(counts)
{
    const size_t count = phr_input_count(ctx);
    long sum = 0;

    for (size_t i = 0; i < count; i++) {
        long number;
        CHECK(phr_size(phr_input(ctx, i)) == sizeof number);
        memcpy(&number, phr_data(phr_input(ctx, i)), sizeof number);
        sum += number;
    }
    CHECK(sum == (long)(count * (count - 1) / 2));
    return answer(ctx, (long)count);
}

/* ----------------------------------------------------------------------------------- loads ---- */

PHR_INIT(never_loads)
{
    (void)ctx;
    abort();
}

PHR_FUNCTION(never_loads)
{
    (void)ctx;
    return PHR_OK;
}

PHR_FUNCTION(echo)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_parts(ctx, &in, 1);
}

/* ----------------------------------------------------------------------------------- storm ---- */

#define PARTS 4
#define HOPS 3

/* A part of a workflow, or a sum of some. */
typedef struct part {
    long number;
    long value;
} part;

static part part_in(const phr_object *object)
{
    part found = { 0, 0 };

    if (phr_size(object) == sizeof found)
        memcpy(&found, phr_data(object), sizeof found);
    return found;
}

/* Fan-out: its parts come in batches of two. */
PHR_FUNCTION(begins)
{
    const long number = number_in(phr_input(ctx, 0));

    for (long i = 0; i < PARTS; i++) {
        const part sent = { i, number * 10 + i };
        OK(phr_put(ctx, "parts", NULL, &sent, sizeof sent));
    }
    return PHR_OK;
}

PHR_FUNCTION(pairs)
{
    CHECK(phr_input_count(ctx) == 2);
    const part first = part_in(phr_input(ctx, 0));
    const part second = part_in(phr_input(ctx, 1));
    const part sum = { first.number, first.value + second.value };
    char key[32];

    snprintf(key, sizeof key, "pair-%ld", first.number);
    return phr_put(ctx, "pairs", key, &sum, sizeof sum);
}

/* Join: both batches are there. Then a chain. */
PHR_FUNCTION(joins)
{
    CHECK(phr_input_count(ctx) == 2);
    const part sum = { HOPS, part_in(phr_input(ctx, 0)).value + part_in(phr_input(ctx, 1)).value };

    return phr_put(ctx, "hops", NULL, &sum, sizeof sum);
}

PHR_FUNCTION(hops)
{
    part sum = part_in(phr_input(ctx, 0));

    if (sum.number == 0)
        return answer(ctx, sum.value);
    sum.number--;
    return phr_put(ctx, "hops", NULL, &sum, sizeof sum);
}

/* ---------------------------------------------------------------------------------- memory ---- */

#define MIB ((size_t)1 << 20)

/* Sends objects of a mebibyte, then computes without another call until the test says so. */
PHR_FUNCTION(hoards)
{
    const long count = config_number(ctx, "mib");

    for (long i = 0; i < count; i++) {
        phr_object *out = phr_create(ctx, "heap", NULL, MIB);
        if (out == NULL)
            return phr_last_status(ctx);
        memset(phr_buffer(out), (int)i, MIB);
        OK(phr_send(ctx, out));
    }
    while (access("go", F_OK) != 0)
        usleep(1000);
    return answer(ctx, count);
}

/* Has seen it, so that nothing holds it any more: but only when the test lets it. */
PHR_FUNCTION(eats)
{
    CHECK(phr_size(phr_input(ctx, 0)) == MIB);
    while (access("eat", F_OK) != 0)
        usleep(1000);
    return PHR_OK;
}

/* Reads everything before its input, again and again: all regions of the app, and all holes. */
PHR_FUNCTION(strays)
{
    const volatile char *from = phr_data(phr_input(ctx, 0));
    const size_t bytes = (size_t)config_number(ctx, "stray_mib") * MIB;

    for (;;)
        for (size_t at = 0; at < bytes; at += 4096)
            (void)from[-(ptrdiff_t)at];
}

/* Fills the app's memory until it is told that there is no more. */
PHR_FUNCTION(fills)
{
    long count = 0;

    for (;;) {
        phr_object *out = phr_create(ctx, "pile", NULL, MIB / 4);
        if (out == NULL)
            break;
        OK(phr_send(ctx, out));
        count++;
    }
    CHECK(phr_last_status(ctx) == PHR_ENOMEM);
    return answer(ctx, count);
}

PHR_FUNCTION(ignores)
{
    (void)ctx;
    return PHR_OK;
}
