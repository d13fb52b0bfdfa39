/*
 * orders.c - a durable function and what it causes: orders of eight parts, each worked on by
 * itself, put together and entered into a ledger once.
 */
#include "check.h"

#include <stdio.h>
#include <time.h>

enum { PARTS = 8 };

/* "NUMBER" or "NUMBER MILLISECONDS": sends the parts, each with the number and the time that
 * working on it takes. */
PHR_FUNCTION(order)
{
    const char *text = phr_data(phr_input(ctx, 0));
    char *rest;
    const long number = strtol(text, &rest, 10);
    const long milliseconds = strtol(rest, NULL, 10);

    for (int part = 0; part < PARTS; part++) {
        char key[8], value[64];
        snprintf(key, sizeof key, "p%d", part);
        snprintf(value, sizeof value, "%ld %ld %d", number, milliseconds, part);
        OK(phr_put(ctx, "parts", key, value, strlen(value)));
    }
    return PHR_OK;
}

static phr_status put_result(phr_ctx *ctx, const char *text)
{
    long number, milliseconds;
    int part;
    char key[8], value[64];

    CHECK(sscanf(text, "%ld %ld %d", &number, &milliseconds, &part) == 3);
    snprintf(key, sizeof key, "r%d", part);
    snprintf(value, sizeof value, "%ld %ld", number, number * (part + 1));
    return phr_put(ctx, "results", key, value, strlen(value));
}

/* A third of the parts goes to the results at once, a third by a direct object, a third through a
 * bucket that is in memory alone. */
PHR_FUNCTION(work)
{
    const char *text = phr_data(phr_input(ctx, 0));
    long number, milliseconds;
    int part;

    CHECK(sscanf(text, "%ld %ld %d", &number, &milliseconds, &part) == 3);
    const struct timespec pause = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
    nanosleep(&pause, NULL);
    if (part % 3 == 0)
        return put_result(ctx, text);
    if (part % 3 == 2)
        return phr_put(ctx, "passing", phr_key(phr_input(ctx, 0)), text, strlen(text));
    phr_object *object = phr_create(ctx, NULL, NULL, strlen(text));
    CHECK(object != NULL);
    memcpy(phr_buffer(object), text, strlen(text));
    return phr_send(ctx, object);
}

PHR_FUNCTION(relay)
{
    return put_result(ctx, phr_data(phr_input(ctx, 0)));
}

/* Enters the order into the ledger, where it must be the first of its number, and answers. */
PHR_FUNCTION(merge)
{
    long number = 0, sum = 0;
    char key[32], value[64];
    phr_send_options durable = PHR_SEND_OPTIONS;

    for (size_t i = 0; i < PARTS; i++) {
        long amount;
        CHECK(sscanf(phr_data(phr_input(ctx, i)), "%ld %ld", &number, &amount) == 2);
        sum += amount;
    }
    snprintf(key, sizeof key, "order-%ld", number);
    snprintf(value, sizeof value, "%ld", sum);
    durable.flags = PHR_DURABLE;
    OK(phr_put_with(ctx, "ledger", key, value, strlen(value), &durable));
    return phr_respond_data(ctx, value, strlen(value));
}

/* Whatever three results come together. */
PHR_FUNCTION(tally)
{
    return phr_put(ctx, "tallies", NULL, "tally", strlen("tally"));
}

/* Answers with the session's id, after so many milliseconds. */
PHR_FUNCTION(slow)
{
    const long milliseconds = number_in(phr_input(ctx, 0));
    const struct timespec pause = { milliseconds / 1000, milliseconds % 1000 * 1000000 };

    nanosleep(&pause, NULL);
    char text[32];
    snprintf(text, sizeof text, "attempt %u", phr_attempt(ctx));
    return phr_respond_data(ctx, text, strlen(text));
}
