/*
 * continuation.c - chains whose functions may go on in place, and leave a mark of each hop in their
 * working directory: its session and how many are left.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* What never ends counts down from here, and leaves no marks. */
#define ENDLESS 1000000000l

#define TEN_SECONDS_NS 10000000000ull

/* Adds a line to a file; O_APPEND makes it one piece. */
static int mark(phr_ctx *ctx, const char *file, long number)
{
    char line[64];
    const int length = snprintf(line, sizeof line, "%llu %ld\n",
                                (unsigned long long)phr_session(ctx), number);
    const int fd = open(file, O_WRONLY | O_CREAT | O_APPEND, 0666);

    CHECK(fd >= 0);
    CHECK(write(fd, line, (size_t)length) == length);
    close(fd);
    return PHR_OK;
}

static int count_down(phr_ctx *ctx, phr_object *out, long left)
{
    if (out == NULL)
        return phr_last_status(ctx);
    snprintf((char *)phr_buffer(out), 32, "%ld", left - 1);
    OK(phr_truncate(out, strlen((char *)phr_buffer(out))));
    return phr_send(ctx, out);
}

/* Marks a hop. Its chain is over where `left` has become 0. */
static int hop(phr_ctx *ctx, long *left)
{
    *left = number_in(phr_input(ctx, 0));
    if (*left <= ENDLESS / 2)
        OK(mark(ctx, "hops", *left));
    return PHR_OK;
}

/* A round of three: a direct object to the only next, one of a bucket, one for a named function. */
PHR_FUNCTION(one)
{
    long left;

    OK(hop(ctx, &left));
    if (left == 0)
        return phr_respond_data(ctx, "arrived", 7);
    return count_down(ctx, phr_create(ctx, NULL, NULL, 32), left);
}

PHR_FUNCTION(two)
{
    long left;

    OK(hop(ctx, &left));
    if (left == 0)
        return phr_respond_data(ctx, "arrived", 7);
    return count_down(ctx, phr_create(ctx, "threes", NULL, 32), left);
}

PHR_FUNCTION(three)
{
    long left;

    OK(hop(ctx, &left));
    if (left == 0)
        return phr_respond_data(ctx, "arrived", 7);
    return count_down(ctx, phr_create_for(ctx, "one", 32), left);
}

/* A hop that takes its time. */
PHR_FUNCTION(slow)
{
    long left;

    usleep(5000);
    OK(hop(ctx, &left));
    if (left == 0)
        return phr_respond_data(ctx, "arrived", 7);
    return count_down(ctx, phr_create(ctx, NULL, NULL, 32), left);
}

/* Goes on with itself, and every hop leaves a crumb for another and an object that is not sent. */
PHR_FUNCTION(crumbling)
{
    long left;

    OK(hop(ctx, &left));
    if (left == 0)
        return PHR_OK;
    OK(count_down(ctx, phr_create(ctx, NULL, NULL, 32), left));
    CHECK(phr_create(ctx, "crumbs", NULL, 1000) != NULL);
    return phr_put(ctx, "crumbs", NULL, "x", 1);
}

/* One crumb; never beside another. */
PHR_FUNCTION(alone)
{
    const int fd = open("somebody-is-here", O_WRONLY | O_CREAT | O_EXCL, 0666);

    CHECK(fd >= 0);
    close(fd);
    OK(mark(ctx, "alone", 0));
    CHECK(unlink("somebody-is-here") == 0);
    return PHR_OK;
}

/* Sends every object of this name, of which there is one already, and goes on. */
PHR_FUNCTION(repeats)
{
    long left;

    OK(hop(ctx, &left));
    phr_put(ctx, "named", "same", "x", 1);
    if (left == 0)
        return phr_respond_data(ctx, "arrived", 7);
    return count_down(ctx, phr_create(ctx, NULL, NULL, 32), left);
}

PHR_FUNCTION(counts)
{
    return mark(ctx, "named", (long)phr_input_count(ctx));
}

/* Goes on with what fails in the end, or fails after it has sent. */
PHR_FUNCTION(fails_at_five)
{
    long left;

    OK(hop(ctx, &left));
    if (left != 0)
        OK(count_down(ctx, phr_create(ctx, NULL, NULL, 32), left));
    return left == 5 ? phr_fail(ctx, 7, "five") : PHR_OK;
}

PHR_FUNCTION(hears)
{
    return mark(ctx, "heard", (long)phr_input_count(ctx));
}

/* Waits for what the function after it makes. */
PHR_FUNCTION(asks)
{
    const phr_object *made;

    OK(phr_put(ctx, "work", NULL, "x", 1));
    made = phr_get(ctx, "made", "it", TEN_SECONDS_NS);
    if (made == NULL)
        return phr_last_status(ctx);
    return phr_respond_data(ctx, phr_data(made), phr_size(made));
}

PHR_FUNCTION(makes)
{
    int fd = open("made", O_WRONLY | O_CREAT, 0666);

    CHECK(fd >= 0);
    close(fd);
    return phr_put(ctx, "made", "it", "made for you", 12);
}

/* The same, without a word to anybody. */
PHR_FUNCTION(watches)
{
    struct stat status;

    OK(phr_put(ctx, "work", NULL, "x", 1));
    while (stat("made", &status) != 0) {
        if (phr_cancelled(ctx))
            return PHR_ECANCELED;
        usleep(100);
    }
    return phr_respond_data(ctx, "seen", 4);
}

PHR_FUNCTION(echo)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_data(ctx, phr_data(in), phr_size(in));
}

/* Tells the second its own number. */
PHR_FUNCTION(first)
{
    char text[32];

    snprintf(text, sizeof text, "%llu", (unsigned long long)phr_invocation(ctx));
    return phr_put(ctx, "seconds", NULL, text, strlen(text));
}

/* Answers with both. */
PHR_FUNCTION(second)
{
    char text[64];

    snprintf(text, sizeof text, "%s %llu", (const char *)phr_data(phr_input(ctx, 0)),
             (unsigned long long)phr_invocation(ctx));
    return phr_respond_data(ctx, text, strlen(text));
}
