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
