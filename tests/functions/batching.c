/*
 * batching.c - functions behind triggers that gather across sessions: each answers single callers
 * out of a batch, at once or two stages later, and checks whom it has before it.
 */
#include "check.h"

#include <inttypes.h>

/* Answers one session with "<" body ">". */
static int answer(phr_ctx *ctx, uint64_t session, const char *body, size_t size)
{
    phr_object *object = phr_create(ctx, NULL, NULL, size + 2);
    char *out;

    CHECK(object != NULL);
    out = phr_buffer(object);
    out[0] = '<';
    memcpy(out + 1, body, size);
    out[size + 1] = '>';
    OK(phr_respond_session(ctx, session, object));
    return PHR_OK;
}

/* Each caller of a batch by itself. */
PHR_FUNCTION(answers_each)
{
    size_t i;

    CHECK(phr_respond_data(ctx, "x", 1) == PHR_ENOENT); /* the batch's own session has no caller */
    for (i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *input = phr_input(ctx, i);
        phr_object *object = phr_create(ctx, NULL, NULL, phr_size(input) + 2);

        CHECK(phr_object_session(input) != phr_session(ctx));
        CHECK(phr_parent(ctx, i) == phr_object_session(input));
        CHECK(snprintf(phr_buffer(object), phr_size(input) + 3, "<%s>",
                       (const char *)phr_data(input)) == (int)phr_size(input) + 2);
        OK(phr_respond_to(ctx, input, object));
    }
    CHECK(phr_parent_count(ctx) == phr_input_count(ctx));
    return PHR_OK;
}

/* The first stage of two: passes on who asked what, a line each. */
PHR_FUNCTION(collects)
{
    size_t size = 0, i;
    phr_object *object;
    char *out;

    for (i = 0; i < phr_input_count(ctx); i++)
        size += phr_size(phr_input(ctx, i)) + 22;
    object = phr_create(ctx, "stage", NULL, size + 1);
    CHECK(object != NULL);
    out = phr_buffer(object);
    for (i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *input = phr_input(ctx, i);

        out += sprintf(out, "%" PRIu64 " %s\n", phr_object_session(input),
                       (const char *)phr_data(input));
    }
    OK(phr_truncate(object, (size_t)(out - (char *)phr_buffer(object))));
    return phr_send(ctx, object);
}

/* The second: answers all of them. */
PHR_FUNCTION(answers_all)
{
    size_t i;

    for (i = 0; i < phr_input_count(ctx); i++) {
        const char *line = phr_data(phr_input(ctx, i));

        while (*line != '\0') {
            char *body;
            const uint64_t session = strtoull(line, &body, 10);
            const char *end = strchr(++body, '\n');

            CHECK(end != NULL);
            OK(answer(ctx, session, body, (size_t)(end - body)));
            line = end + 1;
        }
    }
    return PHR_OK;
}

/* Refuses those who ask for it, and answers the others. */
PHR_FUNCTION(picks)
{
    size_t i;

    for (i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *input = phr_input(ctx, i);
        const char *body = phr_data(input);

        if (strcmp(body, "refuse") == 0)
            OK(phr_fail_session(ctx, phr_object_session(input), 7, "refused as asked"));
        else
            OK(answer(ctx, phr_object_session(input), body, phr_size(input)));
    }
    return PHR_OK;
}

/* Answers the first of a batch and breaks. */
PHR_FUNCTION(breaks)
{
    const phr_object *first = phr_input(ctx, 0);

    OK(answer(ctx, phr_object_session(first), phr_data(first), phr_size(first)));
    return phr_fail(ctx, 3, "broken with %zu inputs", phr_input_count(ctx));
}
