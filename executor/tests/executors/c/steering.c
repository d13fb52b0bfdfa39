/* Functions that steer triggers, delay what they send, wait for objects, look at their window. */
#define _GNU_SOURCE
#include <pheromone.h>

#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return phr_fail(ctx, 1, "line %d: %s; last error: %s", __LINE__, #condition,           \
                            phr_last_error(ctx));                                                  \
    } while (0)

/* The call is refused with this status and a sentence that says so. */
#define REFUSED(call, status, sentence)                                                            \
    do {                                                                                           \
        CHECK((call) == (status) && phr_last_status(ctx) == (status));                             \
        CHECK(strstr(phr_last_error(ctx), sentence) != NULL);                                      \
    } while (0)

PHR_FUNCTION(steer)
{
    const char *const keys[] = { "b", "a", "~5.6" };

    CHECK(phr_join(ctx, "out", "join", keys, 3) == PHR_OK);
    CHECK(phr_join(ctx, "out", "join", keys, 0) == PHR_OK);
    CHECK(phr_join(ctx, "other", "join", NULL, 0) == PHR_OK);
    CHECK(phr_redundant(ctx, "out", "round", 1, 1) == PHR_OK);
    CHECK(phr_redundant(ctx, "out", "round", 2, UINT32_MAX) == PHR_OK);
    CHECK(phr_expect_sources(ctx, "out", "sources", 0) == PHR_OK);
    CHECK(phr_expect_sources(ctx, "out", "sources", 7) == PHR_OK);
    CHECK(phr_close_source(ctx, "out", "sources") == PHR_OK);
    CHECK(phr_close_source(ctx, "out", "fixed sources") == PHR_OK);
    CHECK(phr_last_status(ctx) == PHR_OK);
    return PHR_OK;
}

/* A list that no one message can hold: 1000 keys of 255 bytes. */
PHR_FUNCTION(join_many)
{
    static char texts[1000][256];
    static const char *keys[1000];
    int i;

    for (i = 0; i < 1000; i++) {
        snprintf(texts[i], sizeof texts[i], "%0255d", i);
        keys[i] = texts[i];
    }
    CHECK(phr_join(ctx, "out", "join", keys, 1000) == PHR_OK);
    return PHR_OK;
}

PHR_FUNCTION(steer_wrongly)
{
    const char *keys[] = { "a", "b", "a" };
    char long_text[300];

    memset(long_text, 'k', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;

    /* No such thing. */
    REFUSED(phr_join(ctx, "nowhere", "join", keys, 1), PHR_ENOENT,
            "phr_join: the app has no bucket `nowhere`");
    REFUSED(phr_join(ctx, "other", "round", keys, 1), PHR_ENOENT,
            "phr_join: bucket `other` has no trigger `round`: it has `join`");
    REFUSED(phr_redundant(ctx, "out", "nothing", 1, 2), PHR_ENOENT, "has no trigger `nothing`");
    REFUSED(phr_expect_sources(ctx, "out", "nothing", 1), PHR_ENOENT, "phr_expect_sources: ");
    REFUSED(phr_close_source(ctx, "out", "nothing"), PHR_ENOENT, "phr_close_source: ");
    REFUSED(phr_join(ctx, NULL, "join", keys, 1), PHR_EINVAL, "the bucket is NULL");
    REFUSED(phr_join(ctx, "out", NULL, keys, 1), PHR_EINVAL, "the trigger is NULL");

    /* Another type. */
    REFUSED(phr_join(ctx, "out", "round", keys, 1), PHR_EINVAL,
            "trigger `round` of bucket `out` is of type `redundant`, and the call is for "
            "`dynamic_join` triggers");
    REFUSED(phr_redundant(ctx, "out", "first", 1, 2), PHR_EINVAL, "of type `immediate`");
    REFUSED(phr_redundant(ctx, "out", "sources", 1, 2), PHR_EINVAL, "of type `dynamic_group`");
    REFUSED(phr_expect_sources(ctx, "out", "join", 1), PHR_EINVAL, "of type `dynamic_join`");
    REFUSED(phr_expect_sources(ctx, "out", "after", 1), PHR_EINVAL,
            "the call is for `dynamic_group` triggers without `after`");
    REFUSED(phr_close_source(ctx, "out", "after"), PHR_EINVAL, "without `after`");

    /* What the manifest has said. */
    REFUSED(phr_redundant(ctx, "out", "fixed round", 1, 2), PHR_EINVAL,
            "trigger `fixed round` of bucket `out` has `k` and `n` in the manifest");
    REFUSED(phr_expect_sources(ctx, "out", "fixed sources", 1), PHR_EINVAL,
            "has `sources` in the manifest");

    /* Numbers and keys. */
    REFUSED(phr_redundant(ctx, "out", "round", 0, 2), PHR_EINVAL, "k = 0");
    REFUSED(phr_redundant(ctx, "out", "round", 3, 2), PHR_EINVAL,
            "a round of n = 2 objects cannot fire on k = 3");
    REFUSED(phr_redundant(ctx, "out", "round", 0, 0), PHR_EINVAL, "k is from 1 to n");
    REFUSED(phr_join(ctx, "out", "join", NULL, 1), PHR_EINVAL, "the keys are NULL");
    REFUSED(phr_join(ctx, "out", "join", keys, 3), PHR_EINVAL, "keys[0] and keys[2] are both `a`");
    keys[2] = NULL;
    REFUSED(phr_join(ctx, "out", "join", keys, 3), PHR_EINVAL, "keys[2]: the key is NULL");
    keys[2] = "";
    REFUSED(phr_join(ctx, "out", "join", keys, 3), PHR_EINVAL, "keys[2]: the key is empty");
    keys[2] = long_text;
    REFUSED(phr_join(ctx, "out", "join", keys, 3), PHR_EINVAL,
            "keys[2]: the key is longer than 255 bytes");
    CHECK(phr_join(NULL, "out", "join", keys, 1) == PHR_EINVAL);
    return PHR_OK;
}

/* Waits until it is cancelled, then steers. */
PHR_FUNCTION(steer_late)
{
    CHECK(phr_put(ctx, "out", "begun", "x", 1) == PHR_OK);
    while (!phr_cancelled(ctx))
        usleep(100);
    REFUSED(phr_join(ctx, "out", "join", NULL, 0), PHR_ECANCELED, "the session has ended");
    REFUSED(phr_redundant(ctx, "out", "round", 1, 2), PHR_ECANCELED, "the session has ended");
    REFUSED(phr_expect_sources(ctx, "out", "sources", 1), PHR_ECANCELED, "the session has ended");
    REFUSED(phr_close_source(ctx, "out", "sources"), PHR_ECANCELED, "the session has ended");
    return PHR_OK;
}

PHR_FUNCTION(delay)
{
    phr_send_options options = PHR_SEND_OPTIONS;
    phr_object *object = phr_create(ctx, NULL, "label", 1);

    options.delay_ns = 1000;
    options.group = "g";
    CHECK(object != NULL && phr_send_with(ctx, object, &options) == PHR_OK);
    options.delay_ns = UINT64_MAX;
    options.group = NULL;
    CHECK(phr_put_with(ctx, "out", NULL, "x", 1, &options) == PHR_OK);
    options.delay_ns = 5;
    CHECK(phr_forward_with(ctx, phr_input(ctx, 0), "out", "again", &options) == PHR_OK);
    return PHR_OK;
}

PHR_FUNCTION(wait_and_find)
{
    const phr_object *found = phr_get(ctx, "out", "k", UINT64_MAX);

    CHECK(found != NULL && strcmp((const char *)phr_data(found), "found it") == 0);
    return PHR_OK;
}

/* Answers come in the order of these calls. */
PHR_FUNCTION(wait_and_find_nothing)
{
    CHECK(phr_get(ctx, "out", "k", 1) == NULL);
    CHECK(phr_last_status(ctx) == PHR_ENOENT);
    CHECK(strstr(phr_last_error(ctx), "nothing is left that could publish it") != NULL);
    CHECK(phr_get(ctx, "out", "k", 2) == NULL);
    CHECK(phr_last_status(ctx) == PHR_ETIMEDOUT);
    CHECK(strstr(phr_last_error(ctx), "phr_get: no object `k` in bucket `out` came") != NULL);
    CHECK(phr_get(ctx, "out", "k", 3) == NULL);
    CHECK(phr_last_status(ctx) == PHR_EAGAIN);
    CHECK(strstr(phr_last_error(ctx), "limits.waiters") != NULL);
    CHECK(phr_get(ctx, "out", "k", 4) == NULL);
    CHECK(phr_last_status(ctx) == PHR_ENOMEM);
    CHECK(strstr(phr_last_error(ctx), "memory") != NULL);
    CHECK(phr_get(ctx, "out", "k", 5) == NULL);
    CHECK(phr_last_status(ctx) == PHR_ECANCELED);
    CHECK(strstr(phr_last_error(ctx), "the session has ended") != NULL);
    return PHR_OK;
}

PHR_FUNCTION(no_window)
{
    uint64_t start = 1;
    uint64_t end = 2;

    REFUSED(phr_window(ctx, &start, &end), PHR_ENOENT, "not caused by a window or a batch");
    CHECK(start == 1 && end == 2);
    return PHR_OK;
}

PHR_FUNCTION(window)
{
    uint64_t start = 0;
    uint64_t end = 0;

    CHECK(phr_window(ctx, NULL, NULL) == PHR_OK);
    CHECK(phr_window(ctx, &start, NULL) == PHR_OK && start == 1000);
    CHECK(phr_window(ctx, NULL, &end) == PHR_OK && end == UINT64_MAX);
    start = end = 0;
    CHECK(phr_window(ctx, &start, &end) == PHR_OK && start == 1000 && end == UINT64_MAX);
    return PHR_OK;
}
