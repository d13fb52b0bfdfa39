/*
 * disk.c - durable objects on a disk that fails, and a function that needs no disk.
 */
#include "check.h"

#include <stdio.h>

/* "KEY TEXT": sends the text durable under the key, and answers what came of it: "kept", or the
 * sentence of PHR_EIO. The object is still the function's then, and is sent without a disk. */
PHR_FUNCTION(keeps)
{
    const char *text = phr_data(phr_input(ctx, 0));
    const char *space = strchr(text, ' ');
    char key[64];

    CHECK(space != NULL && space - text < 64);
    snprintf(key, sizeof key, "%.*s", (int)(space - text), text);
    phr_object *object = phr_create(ctx, "kept", key, strlen(space + 1));
    CHECK(object != NULL);
    memcpy(phr_buffer(object), space + 1, strlen(space + 1));
    const phr_status status = phr_send_durable(ctx, object);
    if (status == PHR_OK)
        return phr_respond_data(ctx, "kept", strlen("kept"));
    CHECK(status == PHR_EIO && phr_last_status(ctx) == PHR_EIO);
    char said[1024];
    snprintf(said, sizeof said, "PHR_EIO %s", phr_last_error(ctx));
    OK(phr_send(ctx, object));
    return phr_respond_data(ctx, said, strlen(said));
}

PHR_FUNCTION(loads)
{
    const phr_object *found = phr_load(ctx, "kept", phr_data(phr_input(ctx, 0)));

    if (found == NULL && phr_last_status(ctx) == PHR_ENOENT)
        return phr_respond_data(ctx, "none", strlen("none"));
    CHECK(found != NULL);
    return phr_respond_data(ctx, phr_data(found), phr_size(found));
}

/* Through a bucket in memory and back. */
PHR_FUNCTION(passes)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_put(ctx, "passing", NULL, phr_data(in), phr_size(in));
}

PHR_FUNCTION(answers)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_respond_data(ctx, phr_data(in), phr_size(in));
}

/* Into a durable bucket, without waiting: whoever it fires answers. */
PHR_FUNCTION(logs)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_put(ctx, "log", "line", phr_data(in), phr_size(in));
}
