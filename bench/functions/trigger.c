/*
 * One object through one trigger: `sends` publishes what the trigger gathers, and `starts`, which
 * it fires, answers with the time of the last object's publication and its own start. Before that
 * `sends` hands over to itself a few times, so that everybody's caches are those of a busy node.
 */
#include <stdio.h>

#include "stamps.h"

/* Between the object that fires and those before it, so that the scheduler has dealt with them. */
#define SETTLE_NS 20000
#define KEY_MAX_BYTES 32
#define OBJECTS_MAX 64

/* What the harness sends, and `sends` hands over to itself. */
typedef struct order {
    uint32_t leads;   /* hops before the measured one */
    uint32_t objects; /* that the trigger gathers: the last of them fires */
    uint32_t joins;   /* the keys are told to the trigger `measured` at run time */
    uint32_t reserved;
} order;

/* What an object carries, of use in the last one alone. */
typedef struct parcel {
    uint64_t send_ticks; /* just before it was published */
} parcel;

/* An answer: two moments, and what the harness needs to make a time of them. */
typedef struct interval {
    moment begin; /* when the library was loaded */
    moment end;   /* when the answer was made */
    uint64_t from;
    uint64_t from_is_ns; /* of the monotonic clock; else ticks */
    uint64_t to_ticks;
} interval;

static void wait_until(uint64_t then_ns)
{
    while (clock_ns() < then_ns)
        ;
}

static int publish(phr_ctx *ctx, uint32_t number)
{
    char key[KEY_MAX_BYTES];
    snprintf(key, sizeof key, "key-%u", number);
    phr_object *object = phr_create(ctx, "objects", key, sizeof(parcel));
    if (object == NULL)
        return phr_last_status(ctx);
    ((parcel *)phr_buffer(object))->send_ticks = ticks();
    return phr_send(ctx, object);
}

static int join(phr_ctx *ctx, uint32_t objects)
{
    char names[OBJECTS_MAX][KEY_MAX_BYTES];
    const char *keys[OBJECTS_MAX];
    if (objects > OBJECTS_MAX)
        return phr_fail(ctx, 1, "%u keys are more than %d", objects, OBJECTS_MAX);
    for (uint32_t i = 0; i < objects; i++) {
        snprintf(names[i], sizeof names[i], "key-%u", i);
        keys[i] = names[i];
    }
    return phr_join(ctx, "objects", "measured", keys, objects);
}

PHR_FUNCTION(sends)
{
    order here;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof here)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof here, phr_size(in));
    memcpy(&here, phr_data(in), sizeof here);
    if (here.leads > 0) {
        here.leads--;
        phr_object *next = phr_create(ctx, NULL, NULL, sizeof here);
        if (next == NULL)
            return phr_last_status(ctx);
        memcpy(phr_buffer(next), &here, sizeof here);
        return phr_send(ctx, next);
    }
    int status = here.joins ? join(ctx, here.objects) : PHR_OK;
    for (uint32_t i = 0; status == PHR_OK && i + 1 < here.objects; i++)
        status = publish(ctx, i);
    if (status != PHR_OK)
        return status;
    wait_until(clock_ns() + SETTLE_NS);
    return publish(ctx, here.objects - 1);
}

static int respond_with(phr_ctx *ctx, interval answer)
{
    answer.begin = loaded;
    answer.end = both_clocks();
    return phr_respond_data(ctx, &answer, sizeof answer);
}

PHR_FUNCTION(starts)
{
    uint64_t now = ticks();
    parcel last;
    memcpy(&last, phr_data(phr_input(ctx, phr_input_count(ctx) - 1)), sizeof last);
    interval answer = {.from = last.send_ticks, .to_ticks = now};
    return respond_with(ctx, answer);
}

/* A window's end is a time of the monotonic clock. */
PHR_FUNCTION(starts_after_window)
{
    uint64_t now = ticks(), end_ns;
    phr_status status = phr_window(ctx, NULL, &end_ns);
    if (status != PHR_OK)
        return status;
    interval answer = {.from = end_ns, .from_is_ns = 1, .to_ticks = now};
    return respond_with(ctx, answer);
}
