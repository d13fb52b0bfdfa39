/*
 * payloads.c - payloads, keys and groups of every kind through a chain of three functions.
 */
#include "check.h"

#define NAME_MAX_BYTES 255

/* Aligned to 64 bytes, followed by one zero byte. */
static int check_input(phr_ctx *ctx, const phr_object *in)
{
    CHECK(in != NULL);
    CHECK(phr_data(in) != NULL);
    CHECK((uintptr_t)phr_data(in) % 64 == 0);
    CHECK(((const char *)phr_data(in))[phr_size(in)] == '\0');
    return PHR_OK;
}

static int copy_into(phr_ctx *ctx, const phr_object *in, phr_object *out)
{
    char *to;

    if (out == NULL)
        return phr_last_status(ctx);
    to = (char *)phr_buffer(out);
    CHECK(to != NULL);
    CHECK((uintptr_t)to % 64 == 0);
    memcpy(to, phr_data(in), phr_size(in));
    to[phr_size(in)] = '!'; /* this byte is ours until the object is sent */
    return PHR_OK;
}

PHR_FUNCTION(first)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out;

    OK(check_input(ctx, in));
    out = phr_create(ctx, NULL, NULL, phr_size(in));
    OK(copy_into(ctx, in, out));
    return phr_send(ctx, out);
}

PHR_FUNCTION(second)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out;

    OK(check_input(ctx, in));
    out = phr_create(ctx, "middle", "the payload", phr_size(in));
    OK(copy_into(ctx, in, out));
    return phr_send_in_group(ctx, out, "the group");
}

PHR_FUNCTION(third)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out;

    OK(check_input(ctx, in));
    CHECK(strcmp(phr_bucket(in), "middle") == 0);
    CHECK(strcmp(phr_key(in), "the payload") == 0);
    CHECK(strcmp(phr_group(in), "the group") == 0);
    out = phr_create(ctx, NULL, NULL, phr_size(in));
    OK(copy_into(ctx, in, out));
    return phr_respond(ctx, out);
}

/* ------------------------------------------------------------------- keys and groups --------- */

/* Publishes one object for each length of key; the group's length runs the other way. */
PHR_FUNCTION(name_all)
{
    char key[NAME_MAX_BYTES + 1], group[NAME_MAX_BYTES + 1], text[16];

    for (size_t length = 1; length <= NAME_MAX_BYTES; length++) {
        phr_send_options options = PHR_SEND_OPTIONS;

        make_name(key, length, 0);
        make_name(group, NAME_MAX_BYTES - length, 1);
        options.group = group;
        snprintf(text, sizeof text, "%zu", length);
        OK(phr_put_with(ctx, "names", key, text, strlen(text), &options));
    }
    return PHR_OK;
}

static int check_names(phr_ctx *ctx, const phr_object *in)
{
    char key[NAME_MAX_BYTES + 1], group[NAME_MAX_BYTES + 1];
    const size_t length = (size_t)number_in(in);

    CHECK(length >= 1 && length <= NAME_MAX_BYTES);
    make_name(key, length, 0);
    make_name(group, NAME_MAX_BYTES - length, 1);
    CHECK(strcmp(phr_key(in), key) == 0);
    CHECK(strcmp(phr_group(in), group) == 0);
    return PHR_OK;
}

/* Publishes it again under the names that it arrived with. */
PHR_FUNCTION(name_again)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out;

    OK(check_names(ctx, in));
    out = phr_create(ctx, "names_again", phr_key(in), phr_size(in));
    if (out == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(out), phr_data(in), phr_size(in));
    return phr_send_in_group(ctx, out, phr_group(in));
}

PHR_FUNCTION(name_done)
{
    const phr_object *in = phr_input(ctx, 0);
    char key[16];

    OK(check_names(ctx, in));
    snprintf(key, sizeof key, "n-%ld", number_in(in));
    return phr_put(ctx, "done", key, NULL, 0);
}

PHR_FUNCTION(names_arrived)
{
    CHECK(phr_input_count(ctx) == NAME_MAX_BYTES);
    return phr_respond_data(ctx, "all names", 9);
}

/* ---------------------------------------------------------------------- large objects -------- */

static unsigned char stamp_of(size_t position)
{
    return (unsigned char)(position * 2654435761u >> 24);
}

/* An object of as many bytes as the request says, all of them written. */
PHR_FUNCTION(make_large)
{
    const size_t size = (size_t)number_in(phr_input(ctx, 0));
    phr_object *out = phr_create(ctx, NULL, NULL, size);
    unsigned char *bytes;

    if (out == NULL)
        return phr_last_status(ctx);
    bytes = (unsigned char *)phr_buffer(out);
    memset(bytes, 0x5a, size);
    for (size_t i = 0; i < size; i += 4096)
        bytes[i] = stamp_of(i);
    bytes[size - 1] = 0xa5;
    return phr_send(ctx, out);
}

/* Looks at every page of it and passes it on, uncopied. */
PHR_FUNCTION(pass_large)
{
    const phr_object *in = phr_input(ctx, 0);
    const unsigned char *bytes = (const unsigned char *)phr_data(in);

    OK(check_input(ctx, in));
    for (size_t i = 0; i + 1 < phr_size(in); i += 4096)
        CHECK(bytes[i] == stamp_of(i));
    CHECK(bytes[phr_size(in) - 1] == 0xa5);
    return phr_forward(ctx, in, "large", "it");
}

PHR_FUNCTION(judge_large)
{
    const phr_object *in = phr_input(ctx, 0);
    const unsigned char *bytes = (const unsigned char *)phr_data(in);
    char text[32];

    OK(check_input(ctx, in));
    CHECK(bytes[0] == stamp_of(0) && bytes[phr_size(in) - 1] == 0xa5);
    snprintf(text, sizeof text, "%zu", phr_size(in));
    return phr_respond_data(ctx, text, strlen(text));
}
