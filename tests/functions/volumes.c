/*
 * volumes.c - triggers under load: a thousand windows in a row, and map and reduce over as many
 * objects as the manifest's `config` says, turn after turn, with mappers that die half-way.
 */
#include "check.h"

#include <signal.h>
#include <time.h>

/* A number of the manifest's `config`; 0 where it says nothing. */
static uint32_t config_number(const phr_ctx *ctx, const char *name)
{
    const char *text = phr_config(ctx, name);

    return text == NULL ? 0 : (uint32_t)strtoul(text, NULL, 10);
}

/* Reads a struct out of an input. */
#define TAKE(into, object)                                                                         \
    do {                                                                                           \
        const phr_object *object_ = (object);                                                      \
        CHECK(phr_size(object_) == sizeof(into));                                                  \
        memcpy(&(into), phr_data(object_), sizeof(into));                                          \
    } while (0)

/* --------------------------------------------------------------------------------- windows ---- */

#define MILLISECOND_NS 1000000u
#define WINDOW_NS (10 * MILLISECOND_NS)
#define WINDOWS 1000u

/* What was published, or what a window found. */
typedef struct tally {
    uint64_t start_ns; /* of the window; 0: what was published */
    uint64_t count;
    uint64_t sum;
} tally;

/* Numbers at every millisecond or so, over the time of a thousand windows. */
PHR_FUNCTION(pours)
{
    const uint64_t end_ns = phr_now_ns(ctx) + (uint64_t)WINDOWS * WINDOW_NS;
    const struct timespec pause = { 0, MILLISECOND_NS };
    tally poured = { 0, 0, 0 };

    while (phr_now_ns(ctx) < end_ns) {
        const uint64_t number = poured.count * poured.count + 1;
        OK(phr_put(ctx, "drops", NULL, &number, sizeof number));
        poured.count++;
        poured.sum += number;
        nanosleep(&pause, NULL);
    }
    return phr_put(ctx, "tallies", "poured", &poured, sizeof poured);
}

PHR_FUNCTION(adds_up)
{
    tally found = { 0, phr_input_count(ctx), 0 };
    uint64_t end_ns;

    OK(phr_window(ctx, &found.start_ns, &end_ns));
    CHECK(end_ns - found.start_ns == WINDOW_NS);
    CHECK(phr_now_ns(ctx) >= end_ns);
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *in = phr_input(ctx, i);
        uint64_t number;
        TAKE(number, in);
        CHECK(found.start_ns <= phr_arrival_ns(in) && phr_arrival_ns(in) < end_ns);
        found.sum += number;
    }
    return phr_put(ctx, "tallies", NULL, &found, sizeof found);
}

static int by_start(const void *a, const void *b)
{
    const tally *left = a, *right = b;

    return left->start_ns < right->start_ns ? -1 : left->start_ns > right->start_ns;
}

/* Every window once, and in all of them together what was poured. */
PHR_FUNCTION(compares)
{
    static tally all[2 * WINDOWS];
    const size_t count = phr_input_count(ctx);
    tally found = { 0, 0, 0 };

    CHECK(count > 2 && count <= 2 * WINDOWS);
    for (size_t i = 0; i < count; i++)
        TAKE(all[i], phr_input(ctx, i));
    qsort(all, count, sizeof all[0], by_start);
    CHECK(all[0].start_ns == 0);
    for (size_t i = 1; i < count; i++) {
        CHECK(all[i].start_ns > all[i - 1].start_ns);
        CHECK((all[i].start_ns - all[1].start_ns) % WINDOW_NS == 0);
        found.count += all[i].count;
        found.sum += all[i].sum;
    }
    CHECK(found.count == all[0].count);
    CHECK(found.sum == all[0].sum);
    return phr_respond_data(ctx, "the same", strlen("the same"));
}

/* -------------------------------------------------------------------------- map and reduce ---- */

#define GROUPS 256u

/* What a mapper is told: its number, and in which turn. */
typedef struct item {
    uint32_t turn; /* from 1 */
    uint32_t number;
} item;

/* What it makes: `number` is different for all of a turn, and its remainder names the group. */
typedef struct mapped {
    uint32_t turn;
    uint32_t number;
} mapped;

typedef struct reduced {
    uint32_t group;
    uint32_t count;
} reduced;

/* Gives work to those mappers whose number has this remainder by `step`. */
static int deal(phr_ctx *ctx, uint32_t turn, uint32_t first, uint32_t step)
{
    for (uint32_t i = first; i < config_number(ctx, "maps"); i += step) {
        const item work = { turn, i };
        OK(phr_put(ctx, "items", NULL, &work, sizeof work));
    }
    return PHR_OK;
}

PHR_FUNCTION(deals)
{
    return deal(ctx, 1, 0, 1);
}

/* Two of them die in their first attempt of every turn, when half is done. */
static int dies(const phr_ctx *ctx, const item *work)
{
    const uint32_t maps = config_number(ctx, "maps");

    return phr_attempt(ctx) == 1 && (work->number == maps / 3 || work->number == 2 * maps / 3);
}

PHR_FUNCTION(maps)
{
    const uint32_t objects = config_number(ctx, "objects");
    const int names = config_number(ctx, "names") != 0;
    phr_send_options options = PHR_SEND_OPTIONS;
    char group[16], key[32];
    item work;

    TAKE(work, phr_input(ctx, 0));
    options.group = group;
    for (uint32_t i = 0; i < objects; i++) {
        const mapped made = { work.turn, work.number * objects + i };
        if (i == objects / 2 && dies(ctx, &work))
            raise(SIGKILL);
        snprintf(group, sizeof group, "%u", made.number % GROUPS);
        snprintf(key, sizeof key, "%u/%u", made.turn, made.number);
        OK(phr_put_with(ctx, "mapped", names ? key : NULL, &made, sizeof made, &options));
    }
    return PHR_OK;
}

/* All of its group are there, each once; the group then deals its share of the next turn. */
PHR_FUNCTION(reduces)
{
    const uint32_t total = config_number(ctx, "maps") * config_number(ctx, "objects");
    const uint32_t group = (uint32_t)strtoul(phr_group(phr_input(ctx, 0)), NULL, 10);
    const uint32_t count = (total - group + GROUPS - 1) / GROUPS;
    unsigned char *seen;
    mapped first;

    CHECK(phr_input_count(ctx) == count);
    seen = calloc(count, 1);
    CHECK(seen != NULL);
    TAKE(first, phr_input(ctx, 0));
    for (uint32_t i = 0; i < count; i++) {
        mapped one;
        TAKE(one, phr_input(ctx, i));
        CHECK(one.turn == first.turn);
        CHECK(one.number < total && one.number % GROUPS == group);
        CHECK(!seen[one.number / GROUPS]);
        seen[one.number / GROUPS] = 1;
    }
    free(seen);
    if (first.turn < config_number(ctx, "turns"))
        return deal(ctx, first.turn + 1, group, GROUPS);
    const reduced result = { group, count };
    return phr_put(ctx, "reduced", NULL, &result, sizeof result);
}

/* Each group once; answers with the objects in all of them. */
PHR_FUNCTION(totals)
{
    unsigned char seen[GROUPS] = { 0 };
    char text[32];
    uint64_t sum = 0;

    CHECK(phr_input_count(ctx) == GROUPS);
    for (uint32_t i = 0; i < GROUPS; i++) {
        reduced one;
        TAKE(one, phr_input(ctx, i));
        CHECK(one.group < GROUPS && !seen[one.group]);
        seen[one.group] = 1;
        sum += one.count;
    }
    snprintf(text, sizeof text, "%llu", (unsigned long long)sum);
    return phr_respond_data(ctx, text, strlen(text));
}
