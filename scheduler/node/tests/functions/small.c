/* small.c - what the node's own tests need of functions. */
#include <pheromone.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Answers with its input, untouched. */
PHR_FUNCTION(echo)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_parts(ctx, &in, 1);
}

/* Answers with its process id as everybody else knows it: that in its own namespace may be another
 * process's outside. */
PHR_FUNCTION(whoami)
{
    char text[32];
    const ssize_t length = readlink("/proc/self", text, sizeof text);

    if (length <= 0)
        return phr_fail(ctx, 1, "no /proc");
    return phr_respond_data(ctx, text, (size_t)length);
}

/* Passes its input on. */
PHR_FUNCTION(pass)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out = phr_create(ctx, NULL, NULL, phr_size(in));

    if (out == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(out), phr_data(in), phr_size(in));
    return phr_send(ctx, out);
}

/* Answers with a header of the call. */
PHR_FUNCTION(header)
{
    const char *value = phr_request_header(ctx, "Pheromone-Test");

    if (value == NULL)
        return phr_fail(ctx, 9, "no such header");
    return phr_respond_data(ctx, value, strlen(value));
}

/* Says nothing. */
PHR_FUNCTION(silent)
{
    (void)ctx;
    return PHR_OK;
}

/* Fails, having said why. */
PHR_FUNCTION(fails)
{
    printf("about to fail\n");
    fprintf(stderr, "really\n");
    return phr_fail(ctx, 7, "not my day");
}

/* Dies. */
PHR_FUNCTION(dies)
{
    printf("last words\n");
    (void)ctx;
    abort();
}

/* Sleeps until it is cancelled. */
PHR_FUNCTION(waits)
{
    phr_log(ctx, PHR_INFO, "waiting");
    while (!phr_cancelled(ctx))
        usleep(1000);
    return PHR_OK;
}

/* Writes past every stream of ours. */
PHR_FUNCTION(raw)
{
    ssize_t written = write(1, "straight out\n", 13);

    return phr_respond_data(ctx, "x", written == 13);
}
