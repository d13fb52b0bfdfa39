/* Functions that look at what is attached to objects that tell of failures. */
#define _GNU_SOURCE
#include <pheromone.h>

#include <pthread.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return phr_fail(ctx, 1, "line %d: %s; last error: %s", __LINE__, #condition,           \
                            phr_last_error(ctx));                                                  \
    } while (0)

static const phr_object *of_others = (const phr_object *)-1;
static size_t count_of_others;

static void *elsewhere(void *failure)
{
    count_of_others = phr_failed_input_count(failure);
    of_others = phr_failed_input(failure, 0);
    return NULL;
}

/* The first input has three objects attached, the second none. */
PHR_FUNCTION(handle)
{
    const phr_object *failure = phr_input(ctx, 0), *plain = phr_input(ctx, 1);
    const phr_object *parts[2];
    pthread_t thread;

    CHECK(phr_failed_input_count(failure) == 3 && phr_failed_input_count(plain) == 0);
    CHECK(phr_failed_input_count(NULL) == 0 && phr_failed_input(NULL, 0) == NULL);
    CHECK(pthread_create(&thread, NULL, elsewhere, (void *)failure) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(count_of_others == 3 && of_others == NULL);
    CHECK(phr_failed_input(failure, 3) == NULL && phr_failed_input(failure, SIZE_MAX) == NULL);
    CHECK(phr_failed_input(plain, 0) == NULL && phr_last_status(ctx) == PHR_OK);

    parts[0] = phr_failed_input(failure, 2);
    parts[1] = phr_failed_input(failure, 0);
    CHECK(parts[0] != NULL && parts[1] != NULL);
    CHECK(phr_failed_input(failure, 0) == parts[1]);
    CHECK(strcmp(phr_key(parts[0]), "key-2") == 0 && strcmp(phr_key(parts[1]), "key-0") == 0);
    CHECK(strcmp(phr_data(parts[0]), "payload") == 0);
    CHECK(phr_get(ctx, "out", "found", 0) != NULL);
    CHECK(phr_forward(ctx, parts[1], "out", "again") == PHR_OK);
    CHECK(phr_forward(ctx, failure, "out", "failure") == PHR_OK);
    return phr_respond_parts(ctx, parts, 2);
}

/* Of what is attached not all may be held. */
PHR_FUNCTION(hold)
{
    const phr_object *failure = phr_input(ctx, 0);

    CHECK(phr_failed_input(failure, 0) != NULL && phr_last_status(ctx) == PHR_OK);
    CHECK(phr_failed_input(failure, 1) == NULL && phr_last_status(ctx) == PHR_ENOMEM);
    CHECK(strstr(phr_last_error(ctx), "phr_failed_input: the failure has 3 inputs") != NULL);
    CHECK(phr_failed_input(failure, 0) != NULL);
    return PHR_OK;
}

/* A failure whose input was a failure. */
PHR_FUNCTION(nested)
{
    const phr_object *inner = phr_failed_input(phr_input(ctx, 0), 0);

    CHECK(phr_failed_input_count(inner) == 1);
    CHECK(strcmp(phr_key(phr_failed_input(inner, 0)), "key-0") == 0);
    return PHR_OK;
}

/* What an earlier invocation was given is good for nothing. */
PHR_FUNCTION(late)
{
    static const phr_object *before;

    if (before != NULL)
        CHECK(phr_failed_input(before, 0) == NULL);
    before = phr_input(ctx, 1);
    return PHR_OK;
}
