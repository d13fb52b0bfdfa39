/*
 * scheduling.c - functions that leave marks in their working directory: who ran when, and who
 * ran together.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Adds a line to a file; O_APPEND makes it one piece. */
static int note(phr_ctx *ctx, const char *file, const char *line)
{
    const int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0666);

    CHECK(fd >= 0);
    CHECK(write(fd, line, strlen(line)) == (ssize_t)strlen(line));
    close(fd);
    return PHR_OK;
}

/* So many objects as its input says, for `alone`. */
PHR_FUNCTION(makes_work)
{
    const long count = number_in(phr_input(ctx, 0));

    for (long i = 0; i < count; i++)
        OK(phr_put(ctx, "work", NULL, NULL, 0));
    return PHR_OK;
}

/* Fails where another one runs at the same time. */
PHR_FUNCTION(alone)
{
    const int fd = open("somebody-is-here", O_WRONLY | O_CREAT | O_EXCL, 0666);

    CHECK(fd >= 0);
    close(fd);
    usleep(2000);
    CHECK(unlink("somebody-is-here") == 0);
    return note(ctx, "done", "x\n");
}

/* Waits until another one runs at the same time. */
PHR_FUNCTION(together)
{
    struct stat status;

    OK(note(ctx, "arrived", "x"));
    while (!phr_cancelled(ctx)) {
        if (stat("arrived", &status) == 0 && status.st_size >= 2)
            return note(ctx, "done", "x\n");
        usleep(1000);
    }
    return PHR_OK;
}

#define LINES 64
#define TURNS 6

/* TURNS objects for each of LINES groups, taking turns, numbered in their keys. */
PHR_FUNCTION(makes_lines)
{
    for (int turn = 0; turn < TURNS; turn++) {
        for (int line = 0; line < LINES; line++) {
            phr_send_options options = PHR_SEND_OPTIONS;
            char key[32], group[16];

            snprintf(group, sizeof group, "g%02d", line);
            snprintf(key, sizeof key, "%s.%d", group, turn);
            options.group = group;
            OK(phr_put_with(ctx, "work", key, NULL, 0, &options));
        }
    }
    return PHR_OK;
}

/* Notes when it begins and ends, and takes a while that differs. The first two lines wait for each
 * other in their first turns. */
PHR_FUNCTION(takes_a_turn)
{
    const char *key = phr_key(phr_input(ctx, 0));
    unsigned while_us = 2166136261u;
    char line[64];

    snprintf(line, sizeof line, "begins %s\n", key);
    OK(note(ctx, "turns", line));
    if (strcmp(key, "g00.0") == 0 || strcmp(key, "g01.0") == 0) {
        struct stat status;

        OK(note(ctx, "arrived", "x"));
        while (stat("arrived", &status) != 0 || status.st_size < 2) {
            CHECK(!phr_cancelled(ctx));
            usleep(1000);
        }
    }
    for (const char *at = key; *at != '\0'; at++)
        while_us = (while_us ^ (unsigned char)*at) * 16777619u;
    usleep(while_us % 2000);
    snprintf(line, sizeof line, "ends %s\n", key);
    return note(ctx, "turns", line);
}

PHR_FUNCTION(queues_both)
{
    for (int i = 0; i < 5; i++)
        OK(phr_put(ctx, "unimportant", NULL, NULL, 0));
    for (int i = 0; i < 5; i++)
        OK(phr_put(ctx, "important", NULL, NULL, 0));
    return PHR_OK;
}

PHR_FUNCTION(low)
{
    return note(ctx, "order", "low\n");
}

PHR_FUNCTION(high)
{
    return note(ctx, "order", "high\n");
}

/* In the order of sending. */
PHR_FUNCTION(numbers)
{
    char text[16];

    for (int i = 0; i < 200; i++) {
        snprintf(text, sizeof text, "%d\n", i);
        OK(phr_put(ctx, "numbered", NULL, text, strlen(text)));
    }
    return PHR_OK;
}

PHR_FUNCTION(notes_its_number)
{
    return note(ctx, "order", (const char *)phr_data(phr_input(ctx, 0)));
}

/* Several triggers and several functions on one bucket: each gets every object. */
PHR_FUNCTION(offers)
{
    OK(phr_put(ctx, "offered", "one.txt", "1", 1));
    OK(phr_put(ctx, "offered", "two.txt", "2", 1));
    return phr_put(ctx, "offered", "three.bin", "3", 1);
}

PHR_FUNCTION(takes)
{
    char line[128];

    snprintf(line, sizeof line, "%s %s\n", phr_trigger(ctx), phr_key(phr_input(ctx, 0)));
    return note(ctx, "taken", line);
}

PHR_FUNCTION(takes_too)
{
    char line[128];

    snprintf(line, sizeof line, "too %s %s\n", phr_trigger(ctx), phr_key(phr_input(ctx, 0)));
    return note(ctx, "taken", line);
}

/* Waits until the file `gate` is there. */
PHR_FUNCTION(waits_at_the_gate)
{
    while (access("gate", F_OK) != 0 && !phr_cancelled(ctx))
        usleep(1000);
    return phr_respond_data(ctx, "through", 7);
}

/* Has its question answered by somebody else, waits for that, and finds nothing but that. */
PHR_FUNCTION(asks)
{
    const phr_object *in = phr_input(ctx, 0);
    const phr_object *found;

    REFUSED_NULL(phr_get(ctx, "answers", "answer", 60000000000u), PHR_ENOENT);
    OK(phr_forward(ctx, in, "asked", NULL));
    REFUSED_NULL(phr_get(ctx, "answers", "answer", 1), PHR_ETIMEDOUT);
    found = phr_get(ctx, "answers", "answer", UINT64_MAX);
    CHECK(found != NULL);
    REFUSED_NULL(phr_get(ctx, "answers", "another", UINT64_MAX), PHR_ENOENT);
    return phr_respond_parts(ctx, &found, 1);
}

PHR_FUNCTION(gives_answers)
{
    const phr_object *in = phr_input(ctx, 0);

    usleep(2000);
    return phr_put(ctx, "answers", "answer", phr_data(in), phr_size(in));
}

/* Short: an object, a hop, a response. */
PHR_FUNCTION(begins)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out = phr_create(ctx, "hops", "k", phr_size(in));

    if (out == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(out), phr_data(in), phr_size(in));
    return phr_send(ctx, out);
}

PHR_FUNCTION(ends)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_parts(ctx, &in, 1);
}
