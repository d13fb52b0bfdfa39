/*
 * fanout.c - a thousand branches and the set that gathers them, with what comes late or twice.
 */
#include "check.h"

#define WIDTH 1000

/* One piece of work for each branch, in an order that is not the set's. */
PHR_FUNCTION(split)
{
    char text[16];

    for (int i = 0; i < WIDTH; i++) {
        snprintf(text, sizeof text, "%d", i * 619 % WIDTH);
        OK(phr_put(ctx, "work", NULL, text, strlen(text)));
    }
    return PHR_OK;
}

PHR_FUNCTION(branch)
{
    const long number = number_in(phr_input(ctx, 0));
    char key[32], text[32];

    snprintf(key, sizeof key, "part-%ld", number);
    snprintf(text, sizeof text, "%ld", number * number);
    return phr_put(ctx, "parts", key, text, strlen(text));
}

/* The inputs are in the listed order, whatever order they came in. */
PHR_FUNCTION(merge)
{
    long sum = 0;
    char text[32];

    CHECK(phr_input_count(ctx) == WIDTH);
    for (long i = 0; i < WIDTH; i++) {
        const phr_object *in = phr_input(ctx, (size_t)i);
        char key[32];

        snprintf(key, sizeof key, "part-%ld", i);
        CHECK(strcmp(phr_key(in), key) == 0);
        CHECK(number_in(in) == i * i);
        CHECK(phr_input_named(ctx, key) == in);
        sum += number_in(in);
    }
    CHECK(phr_input(ctx, WIDTH) == NULL);
    snprintf(text, sizeof text, "%ld", sum);
    return phr_respond_data(ctx, text, strlen(text));
}

/* ------------------------------------------------------------------------ twice and late ----- */

static phr_status put_text(phr_ctx *ctx, const char *key, const char *text)
{
    return phr_put(ctx, "pieces", key, text, strlen(text));
}

PHR_FUNCTION(twice)
{
    OK(put_text(ctx, "b", "second;"));
    OK(put_text(ctx, "a", "first;"));
    OK(put_text(ctx, "a", "an intruder;"));
    OK(put_text(ctx, "stranger", "not of the set;"));
    return put_text(ctx, "c", "third;");
}

PHR_FUNCTION(gather)
{
    const phr_object *parts[3];

    phr_log(ctx, PHR_INFO, "gathered");
    CHECK(phr_input_count(ctx) == 3);
    for (size_t i = 0; i < 3; i++)
        parts[i] = phr_input(ctx, i);
    OK(phr_respond_parts(ctx, parts, 3));
    /* What comes after the set has fired changes nothing. */
    return put_text(ctx, "b", "too late;");
}

/* Two pieces of three. */
PHR_FUNCTION(incomplete)
{
    OK(put_text(ctx, "c", "third;"));
    return put_text(ctx, "a", "first;");
}

PHR_FUNCTION(what_came)
{
    const phr_object *parts[3];
    const size_t count = phr_input_count(ctx);

    CHECK(count <= 3);
    for (size_t i = 0; i < count; i++)
        parts[i] = phr_input(ctx, i);
    return phr_respond_parts(ctx, parts, count);
}
