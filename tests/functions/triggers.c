/*
 * triggers.c - functions before and behind the triggers that gather, each of which checks what it
 * was given and leaves a mark: batches and windows, rounds, joins, groups, and further attempts.
 */
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MILLISECOND_NS 1000000u

/* Adds a line to a file; O_APPEND makes it one piece. */
static int note(phr_ctx *ctx, const char *file, const char *line)
{
    char text[512];
    const int length = snprintf(text, sizeof text, "%s\n", line);
    const int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0666);

    CHECK(fd >= 0);
    CHECK(write(fd, text, (size_t)length) == length);
    close(fd);
    return PHR_OK;
}

/* Waits until so many notes of one byte and a line end are in a file, or nobody wants them. */
static void await_notes(phr_ctx *ctx, const char *file, long count)
{
    struct stat status = { 0 };

    while (!phr_cancelled(ctx) && status.st_size < 2 * count) {
        usleep(1000);
        (void)stat(file, &status);
    }
}

static phr_status put_text(phr_ctx *ctx, const char *bucket, const char *key, const char *text)
{
    return phr_put(ctx, bucket, key, text, strlen(text));
}

static phr_status put_grouped(phr_ctx *ctx, const char *bucket, const char *key, const char *group,
                              const char *text)
{
    phr_send_options options = PHR_SEND_OPTIONS;

    options.group = group;
    return phr_put_with(ctx, bucket, key, text, strlen(text), &options);
}

static phr_status put_number(phr_ctx *ctx, const char *bucket, const char *key, long number)
{
    char text[32];

    snprintf(text, sizeof text, "%ld", number);
    return put_text(ctx, bucket, key, text);
}

static phr_status respond_number(phr_ctx *ctx, long number)
{
    char text[32];

    snprintf(text, sizeof text, "%ld", number);
    return phr_respond_data(ctx, text, strlen(text));
}

/* A number of the manifest's `config`; 0 where it says nothing. */
static long config_number(const phr_ctx *ctx, const char *name)
{
    const char *text = phr_config(ctx, name);

    return text == NULL ? 0 : strtol(text, NULL, 10);
}

/* The keys of all inputs, with a space after each. */
static int note_keys(phr_ctx *ctx, const char *file)
{
    char line[256] = "";
    size_t length = 0;

    for (size_t i = 0; i < phr_input_count(ctx); i++)
        length += (size_t)snprintf(line + length, sizeof line - length, "%s%s", i ? " " : "",
                                   phr_key(phr_input(ctx, i)));
    return note(ctx, file, line);
}

/* -------------------------------------------------------------------- batches and windows ---- */

/* Three objects, and nothing after them. */
PHR_FUNCTION(drips)
{
    uint64_t start_ns, end_ns;

    REFUSED(phr_window(ctx, &start_ns, &end_ns), PHR_ENOENT);
    OK(put_text(ctx, "drops", "a", "1"));
    OK(put_text(ctx, "drops", "b", "2"));
    return put_text(ctx, "drops", "c", "3");
}

/* Two objects of one group around one of another. */
PHR_FUNCTION(drips_in_groups)
{
    OK(put_grouped(ctx, "drops", "a", "odd", "1"));
    OK(put_grouped(ctx, "drops", "b", "even", "2"));
    return put_grouped(ctx, "drops", "c", "odd", "3");
}

/* A batch is bounded by the arrivals of its first and its last object; one that is not full has
 * waited for its oldest. */
PHR_FUNCTION(takes_a_batch)
{
    const size_t count = phr_input_count(ctx);
    const phr_object *first = phr_input(ctx, 0);
    uint64_t start_ns, end_ns;

    OK(phr_window(ctx, &start_ns, &end_ns));
    CHECK(start_ns == phr_arrival_ns(first));
    CHECK(end_ns == phr_arrival_ns(phr_input(ctx, count - 1)));
    if (count < 2)
        CHECK(phr_now_ns(ctx) - start_ns >= 300 * MILLISECOND_NS);
    return note_keys(ctx, "taken");
}

PHR_FUNCTION(takes_what_comes)
{
    return note_keys(ctx, "taken");
}

/* A window is as long as the manifest says, is over, and has what came in it. */
PHR_FUNCTION(takes_a_window)
{
    uint64_t start_ns, end_ns;

    OK(phr_window(ctx, &start_ns, &end_ns));
    OK(phr_window(ctx, NULL, NULL));
    CHECK(end_ns - start_ns == 200 * MILLISECOND_NS);
    CHECK(phr_now_ns(ctx) >= end_ns);
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const uint64_t arrival_ns = phr_arrival_ns(phr_input(ctx, i));
        CHECK(start_ns <= arrival_ns && arrival_ns < end_ns);
    }
    return note_keys(ctx, "taken");
}

/* --------------------------------------------------------------------------------- rounds ---- */

#define REPLICAS 5
#define ENOUGH 2

PHR_FUNCTION(asks_replicas)
{
    for (long i = 0; i < REPLICAS; i++)
        OK(put_number(ctx, "asked", NULL, i));
    return PHR_OK;
}

/* The first two answer, once the others are under way; these never would. */
PHR_FUNCTION(replica)
{
    const long number = number_in(phr_input(ctx, 0));

    if (number < ENOUGH) {
        await_notes(ctx, "stragglers", REPLICAS - ENOUGH);
        return put_number(ctx, "answers", NULL, 21);
    }
    OK(note(ctx, "stragglers", "x"));
    while (!phr_cancelled(ctx))
        usleep(1000);
    REFUSED(put_number(ctx, "answers", NULL, 0), PHR_ECANCELED);
    return note(ctx, "cancelled", "x");
}

/* The first answers once the others are under way, and these look at nothing. */
PHR_FUNCTION(stubborn_replica)
{
    if (number_in(phr_input(ctx, 0)) > 0) {
        OK(note(ctx, "stragglers", "x"));
        for (;;)
            pause();
    }
    await_notes(ctx, "stragglers", REPLICAS - 1);
    /* The next session has stragglers of its own. */
    CHECK(unlink("stragglers") == 0);
    return put_number(ctx, "answers", NULL, 42);
}

/* The session ends only after the stragglers have seen that they are. */
PHR_FUNCTION(adds_answers)
{
    long sum = 0;

    for (size_t i = 0; i < phr_input_count(ctx); i++)
        sum += number_in(phr_input(ctx, i));
    await_notes(ctx, "cancelled", config_number(ctx, "stragglers"));
    return respond_number(ctx, sum);
}

PHR_FUNCTION(answers_four_times)
{
    for (long i = 1; i <= 4; i++)
        OK(put_number(ctx, "answers", NULL, i));
    return PHR_OK;
}

/* What waits until k and n are known fires when they are. */
PHR_FUNCTION(says_how_many_afterwards)
{
    for (long i = 1; i <= 3; i++)
        OK(put_number(ctx, "answers", NULL, i));
    REFUSED(phr_redundant(ctx, "answers", "enough", 3, 2), PHR_EINVAL);
    REFUSED(phr_redundant(ctx, "answers", "no such trigger", 1, 2), PHR_ENOENT);
    return phr_redundant(ctx, "answers", "enough", 2, 3);
}

/* ---------------------------------------------------------------------------------- joins ---- */

#define BRANCHES_MAX 500

/* As many branches as the input says, listed backwards. */
PHR_FUNCTION(branches)
{
    static char names[BRANCHES_MAX][16];
    const char *keys[BRANCHES_MAX];
    const long count = number_in(phr_input(ctx, 0));
    const char *twice[] = { "a", "a" };

    CHECK(count >= 0 && count <= BRANCHES_MAX);
    for (long i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "branch-%ld", count - 1 - i);
        keys[i] = names[i];
        /* Some have been sent before the list, and may even have come back. */
        if (i % 2 == 0)
            OK(put_number(ctx, "work", NULL, count - 1 - i));
    }
    REFUSED(phr_join(ctx, "squares", "all", twice, 2), PHR_EINVAL);
    OK(phr_join(ctx, "squares", "all", keys, (size_t)count));
    for (long i = 1; i < count; i += 2)
        OK(put_number(ctx, "work", NULL, count - 1 - i));
    return PHR_OK;
}

PHR_FUNCTION(squares)
{
    const long number = number_in(phr_input(ctx, 0));
    char key[32];

    if (phr_config(ctx, "loses") != NULL && number == config_number(ctx, "loses"))
        return PHR_OK;
    snprintf(key, sizeof key, "branch-%ld", number);
    return put_number(ctx, "squares", key, number * number);
}

PHR_FUNCTION(joined)
{
    const long count = (long)phr_input_count(ctx);
    long sum = 0;

    for (long i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "branch-%ld", count - 1 - i);
        CHECK(strcmp(phr_key(phr_input(ctx, (size_t)i)), key) == 0);
        sum += number_in(phr_input(ctx, (size_t)i));
    }
    return respond_number(ctx, sum);
}

/* --------------------------------------------------------------------------------- groups ---- */

/* 0 to `items` - 1, each for a `map`. */
PHR_FUNCTION(deals)
{
    const long items = config_number(ctx, "items");

    if (config_number(ctx, "tells"))
        OK(phr_expect_sources(ctx, "mapped", "by-remainder", (uint32_t)items));
    for (long i = 0; i < items; i++)
        OK(put_number(ctx, "items", NULL, i));
    return PHR_OK;
}

/* Each number twice, into the group of its remainder. */
PHR_FUNCTION(map)
{
    const long number = number_in(phr_input(ctx, 0));
    char group[32], key[32];

    if (number % 4 == 3 && config_number(ctx, "fails"))
        return phr_fail(ctx, 3, "%ld is not to my taste", number);
    for (int i = 0; i < 2; i++) {
        snprintf(key, sizeof key, "%03ld-%d", number, i);
        snprintf(group, sizeof group, "%ld", number % 3);
        OK(put_grouped(ctx, "mapped", key, group, phr_data(phr_input(ctx, 0))));
    }
    if (config_number(ctx, "closes"))
        OK(phr_close_source(ctx, "mapped", "by-remainder"));
    return PHR_OK;
}

/* "GROUP: COUNT SUM", after seeing that all are of one group, and in the order of their keys where
 * the manifest wants that. */
PHR_FUNCTION(reduce)
{
    const phr_object *first = phr_input(ctx, 0);
    const size_t count = phr_input_count(ctx);
    char line[128];
    long sum = 0;

    for (size_t i = 0; i < count; i++) {
        const phr_object *in = phr_input(ctx, i);
        CHECK(strcmp(phr_group(in), phr_group(first)) == 0);
        if (i > 0 && config_number(ctx, "ordered"))
            CHECK(strcmp(phr_key(phr_input(ctx, i - 1)), phr_key(in)) < 0);
        sum += number_in(in);
    }
    snprintf(line, sizeof line, "%s: %zu %ld", count ? phr_group(first) : "none", count, sum);
    return note(ctx, "reduced", line);
}

/* The loop: sixteen numbers are added in pairs, turn by turn, until one is left. */
PHR_FUNCTION(begins_a_loop)
{
    for (long i = 0; i < 16; i++)
        OK(put_number(ctx, "sums", NULL, i));
    return PHR_OK;
}

PHR_FUNCTION(turn)
{
    const size_t count = phr_input_count(ctx);
    char line[64];

    snprintf(line, sizeof line, "%zu", count);
    OK(note(ctx, "turns", line));
    if (count == 1)
        return respond_number(ctx, number_in(phr_input(ctx, 0)));
    for (size_t i = 0; i + 1 < count; i += 2) {
        snprintf(line, sizeof line, "%ld %ld", number_in(phr_input(ctx, i)),
                 number_in(phr_input(ctx, i + 1)));
        OK(put_text(ctx, "pairs", NULL, line));
    }
    return PHR_OK;
}

PHR_FUNCTION(add)
{
    char *rest;
    const char *text = phr_data(phr_input(ctx, 0));
    const long left = strtol(text, &rest, 10);

    return put_number(ctx, "sums", NULL, left + strtol(rest, NULL, 10));
}

/* ------------------------------------------------------------------------------- attempts ---- */

/* Attempt 1 sends and crashes; attempt 2 sends the same again, and more. */
PHR_FUNCTION(crashes_once)
{
    OK(put_text(ctx, "sent", "named", "named"));
    OK(put_text(ctx, "sent", NULL, "automatic"));
    OK(phr_close_source(ctx, "sent", "closed"));
    if (phr_attempt(ctx) == 1) {
        char text[32];
        snprintf(text, sizeof text, "%llu", (unsigned long long)phr_now_ns(ctx));
        OK(note(ctx, "crashed-at", text));
        abort();
    }
    CHECK(phr_attempt(ctx) == 2);

    char text[32] = "";
    const int fd = open("crashed-at", O_RDONLY);
    CHECK(fd >= 0);
    CHECK(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    CHECK(phr_now_ns(ctx) - strtoull(text, NULL, 10) >= 50 * MILLISECOND_NS);
    return put_text(ctx, "sent", NULL, "more");
}

/* Attempt 1 hangs after it has sent; attempt 2 has more to say. */
PHR_FUNCTION(hangs_once)
{
    OK(put_text(ctx, "sent", "a", "1"));
    while (phr_attempt(ctx) == 1)
        pause();
    return put_text(ctx, "sent", "b", "2");
}

/* Says three things about a join: the same list in each attempt, and another one in the third. */
PHR_FUNCTION(steers_and_fails)
{
    const char *keys[] = { "a", "b" };

    OK(put_text(ctx, "sent", "a", "1"));
    OK(put_text(ctx, "sent", "b", "2"));
    OK(phr_join(ctx, "sent", "listed", keys, 2));
    if (phr_attempt(ctx) < 3)
        return phr_fail(ctx, 4, "attempt %u is not good enough", phr_attempt(ctx));
    return phr_join(ctx, "sent", "listed", keys, 1);
}

PHR_FUNCTION(fails_for_good)
{
    OK(note(ctx, "attempts", "x"));
    return phr_fail(ctx, PHR_PERMANENT(5), "never");
}

PHR_FUNCTION(notes_keys)
{
    return note_keys(ctx, "came");
}

PHR_FUNCTION(notes_what_came)
{
    return note(ctx, "came", (const char *)phr_data(phr_input(ctx, 0)));
}

PHR_FUNCTION(counts_what_came)
{
    return respond_number(ctx, (long)phr_input_count(ctx));
}
