/*
 * durable.c - objects that outlive their session, their node and its crashes.
 */
#include "check.h"

#include <stdio.h>

/* "KEY TEXT": sends the text durable under the key, and answers once it is on disk. */
PHR_FUNCTION(keeps)
{
    const phr_object *in = phr_input(ctx, 0);
    const char *text = phr_data(in);
    const char *space = strchr(text, ' ');

    CHECK(space != NULL && space - text < 64);
    char key[64];
    memcpy(key, text, (size_t)(space - text));
    key[space - text] = '\0';
    phr_object *object = phr_create(ctx, "kept", key, strlen(space + 1));
    CHECK(object != NULL);
    memcpy(phr_buffer(object), space + 1, strlen(space + 1));
    const phr_status status = phr_send_durable(ctx, object);
    if (status == PHR_EEXIST)
        return phr_respond_data(ctx, "there is one", strlen("there is one"));
    OK(status);
    return phr_respond_data(ctx, "kept", strlen("kept"));
}

/* Sends two objects under one key, one after the other, and answers with what is there then. */
PHR_FUNCTION(keeps_twice)
{
    const char *key = phr_data(phr_input(ctx, 0));
    phr_send_options durable = PHR_SEND_OPTIONS;

    durable.flags = PHR_DURABLE;
    OK(phr_put_with(ctx, "kept", key, "first", strlen("first"), &durable));
    OK(phr_put_with(ctx, "kept", key, "second", strlen("second"), &durable));
    const phr_object *found = phr_load(ctx, "kept", key);
    CHECK(found != NULL);
    return phr_respond_data(ctx, phr_data(found), phr_size(found));
}

/* Breaks the rule that what has been sent is not written any more, until it is killed: sends
 * durable objects and goes on writing them while they are on their way to disk. */
PHR_FUNCTION(scribbles)
{
    enum { OBJECTS = 8, BYTES = 64 * 1024 };

    for (;;) {
        char *sent[OBJECTS];
        for (int i = 0; i < OBJECTS; i++) {
            phr_object *object = phr_create(ctx, "scribbled", "own", BYTES);
            CHECK(object != NULL);
            sent[i] = phr_buffer(object);
            memset(sent[i], 'a', BYTES);
            OK(phr_send(ctx, object));
            for (int earlier = 0; earlier <= i; earlier++)
                memset(sent[earlier], 'b' + i, BYTES);
        }
        /* Waits for the disk, so that no more are on their way than that. */
        phr_object *last = phr_create(ctx, "scribbled", "last", 1);
        CHECK(last != NULL);
        OK(phr_send_durable(ctx, last));
    }
}

/* Answers with the object of this key. */
PHR_FUNCTION(loads)
{
    const phr_object *found = phr_load(ctx, "kept", phr_data(phr_input(ctx, 0)));

    if (found == NULL && phr_last_status(ctx) == PHR_ENOENT)
        return phr_respond_data(ctx, "none", strlen("none"));
    CHECK(found != NULL);
    CHECK(((const char *)phr_data(found))[phr_size(found)] == '\0');
    return phr_respond_data(ctx, phr_data(found), phr_size(found));
}

PHR_FUNCTION(deletes)
{
    OK(phr_delete(ctx, "kept", phr_data(phr_input(ctx, 0))));
    return phr_respond_data(ctx, "deleted", strlen("deleted"));
}

/* Into a durable bucket: whoever it fires answers. */
PHR_FUNCTION(logs)
{
    const phr_object *in = phr_input(ctx, 0);

    return phr_put(ctx, "log", "line", phr_data(in), phr_size(in));
}

PHR_FUNCTION(logged)
{
    const phr_object *in = phr_input(ctx, 0);

    /* What fires is on disk. */
    const phr_object *found = phr_load(ctx, "log", phr_key(in));
    CHECK(found != NULL && phr_size(found) == phr_size(in));
    CHECK(memcmp(phr_data(found), phr_data(in), phr_size(in)) == 0);
    return phr_respond_data(ctx, phr_data(found), phr_size(found));
}

/* An object of this many bytes. */
PHR_FUNCTION(keeps_much)
{
    const size_t size = strtoul(phr_data(phr_input(ctx, 0)), NULL, 10);
    phr_object *object = phr_create(ctx, "kept", "much", size);

    CHECK(object != NULL);
    unsigned char *bytes = phr_buffer(object);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * 31 + i / 251);
    OK(phr_send_durable(ctx, object));
    return phr_respond_data(ctx, "kept", strlen("kept"));
}

PHR_FUNCTION(loads_much)
{
    const phr_object *found = phr_load(ctx, "kept", "much");
    char text[32];

    CHECK(found != NULL);
    const unsigned char *bytes = phr_data(found);
    for (size_t i = 0; i < phr_size(found); i++)
        CHECK(bytes[i] == (unsigned char)(i * 31 + i / 251));
    snprintf(text, sizeof text, "%zu", phr_size(found));
    return phr_respond_data(ctx, text, strlen(text));
}

/* Leaves an object that is retained for a while, in memory alone. */
PHR_FUNCTION(leaves)
{
    const phr_object *in = phr_input(ctx, 0);

    OK(phr_put(ctx, "recent", "last", phr_data(in), phr_size(in)));
    return phr_respond_data(ctx, "left", strlen("left"));
}

PHR_FUNCTION(finds)
{
    const phr_object *found = phr_load(ctx, "recent", "last");

    if (found == NULL)
        return phr_respond_data(ctx, "none", strlen("none"));
    return phr_respond_data(ctx, phr_data(found), phr_size(found));
}
