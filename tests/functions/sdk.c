/*
 * sdk.c - every call of pheromone.h, used as its documentation says and against it. A function
 * whose checks hold answers "ok".
 */
#include "check.h"

#include <pthread.h>
#include <unistd.h>

static phr_status say_ok(phr_ctx *ctx)
{
    return phr_respond_data(ctx, "ok", 2);
}

/* ------------------------------------------------------------------------------ inputs ------- */

PHR_FUNCTION(sees_its_request)
{
    const phr_object *in = phr_input(ctx, 0);
    const uint64_t arrived_ns = phr_arrival_ns(in);

    CHECK(phr_input_count(ctx) == 1);
    CHECK(in != NULL && phr_input(ctx, 0) == in);
    CHECK(phr_input(ctx, 1) == NULL && phr_input(ctx, SIZE_MAX) == NULL);
    CHECK(phr_input_named(ctx, "request") == in);
    CHECK(phr_input_named(ctx, "reques") == NULL && phr_input_named(ctx, NULL) == NULL);
    CHECK(strcmp(phr_key(in), "request") == 0);
    CHECK(strcmp(phr_bucket(in), "") == 0 && strcmp(phr_group(in), "") == 0);
    CHECK(phr_size(in) == 5 && memcmp(phr_data(in), "input", 6) == 0);
    CHECK(phr_session(ctx) != 0 && phr_object_session(in) == phr_session(ctx));
    CHECK(arrived_ns > 0 && arrived_ns <= phr_now_ns(ctx));
    CHECK(phr_failed_input_count(in) == 0 && phr_failed_input(in, 0) == NULL);
    return say_ok(ctx);
}

PHR_FUNCTION(survives_null_everywhere)
{
    CHECK(phr_input_count(NULL) == 0 && phr_input(NULL, 0) == NULL);
    CHECK(phr_data(NULL) == NULL && phr_size(NULL) == 0);
    CHECK(strcmp(phr_key(NULL), "") == 0 && strcmp(phr_bucket(NULL), "") == 0);
    CHECK(phr_create(NULL, NULL, NULL, 1) == NULL && phr_buffer(NULL) == NULL);
    CHECK(phr_send(NULL, NULL) == PHR_EINVAL && phr_last_status(NULL) == PHR_EINVAL);
    phr_discard(ctx, NULL);
    phr_log(NULL, PHR_INFO, "nobody hears this");
    REFUSED(phr_send(ctx, NULL), PHR_EINVAL);
    REFUSED(phr_respond(ctx, NULL), PHR_EINVAL);
    REFUSED(phr_forward(ctx, NULL, NULL, NULL), PHR_EINVAL);
    REFUSED(phr_put(ctx, "bucket", "key", NULL, 1), PHR_EINVAL);
    return say_ok(ctx);
}

PHR_FUNCTION(knows_about_itself)
{
    uint64_t start_ns, end_ns;
    const uint64_t now_ns = phr_now_ns(ctx);

    CHECK(strcmp(phr_app(ctx), "sdk") == 0);
    CHECK(strcmp(phr_function(ctx), "knows_about_itself") == 0);
    CHECK(strcmp(phr_trigger(ctx), "") == 0);
    CHECK(phr_invocation(ctx) != 0 && phr_attempt(ctx) == 1);
    CHECK(phr_parallelism(ctx) == 2);
    CHECK(phr_parent_count(ctx) == 0 && phr_parent(ctx, 0) == 0);
    CHECK(phr_deadline_ns(ctx) == UINT64_MAX);
    CHECK(!phr_cancelled(ctx));
    CHECK(phr_now_ns(ctx) >= now_ns);
    CHECK(phr_wall_ns(ctx, now_ns) > 1700000000ull * 1000000000ull);
    CHECK(phr_window(ctx, &start_ns, &end_ns) == PHR_ENOENT);
    CHECK(phr_local(ctx) == NULL);
    return say_ok(ctx);
}

/* The body says how many seconds there can be left. */
PHR_FUNCTION(has_a_deadline)
{
    const uint64_t most_s = strtoull(phr_data(phr_input(ctx, 0)), NULL, 10);
    const uint64_t now_ns = phr_now_ns(ctx);

    CHECK(most_s > 0);
    CHECK(phr_deadline_ns(ctx) > now_ns);
    CHECK(phr_deadline_ns(ctx) <= now_ns + most_s * 1000000000ull);
    return say_ok(ctx);
}

/* ------------------------------------------------------------------------ keys and groups ---- */

PHR_FUNCTION(names_badly)
{
    char name[258];
    phr_send_options options = PHR_SEND_OPTIONS;
    phr_object *object;

    memset(name, 'n', sizeof name);
    name[257] = '\0';
    REFUSED_NULL(phr_create(ctx, "bucket", "", 1), PHR_EINVAL);
    REFUSED_NULL(phr_create(ctx, "bucket", "~1.0", 1), PHR_EINVAL);
    name[256] = '\0';
    REFUSED_NULL(phr_create(ctx, "bucket", name, 1), PHR_EINVAL);
    REFUSED(phr_put(ctx, "bucket", name, "x", 1), PHR_EINVAL);
    options.group = name;
    REFUSED(phr_put_with(ctx, "bucket", "key", "x", 1, &options), PHR_EINVAL);
    REFUSED_NULL(phr_create(ctx, "buckets", "key", 1), PHR_ENOENT);
    CHECK(phr_create_for(ctx, "nobody", 1) == NULL && phr_last_status(ctx) < 0);
    REFUSED_NULL(phr_create_for(ctx, "sees_its_request", 1), PHR_EPERM);
    /* An object that was refused is still ours. */
    object = phr_create(ctx, "bucket", "key", 1);
    CHECK(object != NULL);
    REFUSED(phr_send_in_group(ctx, object, name), PHR_EINVAL);
    name[255] = '\0';
    OK(phr_send_in_group(ctx, object, name));
    return say_ok(ctx);
}

PHR_FUNCTION(makes_automatic_keys)
{
    for (int i = 0; i < 3; i++)
        OK(phr_put(ctx, "automatic", NULL, &i, sizeof i));
    return PHR_OK;
}

/* Gets one object of `automatic`; the key is ~I.N, N counting from 0. */
PHR_FUNCTION(reads_an_automatic_key)
{
    const phr_object *in = phr_input(ctx, 0);
    unsigned long long invocation;
    unsigned number;
    int sent;

    memcpy(&sent, phr_data(in), sizeof sent);
    CHECK(sscanf(phr_key(in), "~%llu.%u", &invocation, &number) == 2);
    CHECK(number == (unsigned)sent && invocation != 0);
    CHECK(phr_get(ctx, "automatic", phr_key(in), 0) != NULL);
    if (sent == 2)
        return say_ok(ctx);
    return PHR_OK;
}

/* ----------------------------------------------------------------------- direct objects ------ */

/* To its `next`, labelled and in a group, and to one of its `calls` alone. */
PHR_FUNCTION(sends_directly)
{
    phr_object *labelled = phr_create(ctx, NULL, "a label", 3);
    phr_object *again = phr_create(ctx, NULL, "a label", 3);
    phr_object *called = phr_create_for(ctx, "is_called", 6);
    phr_send_options options = PHR_SEND_OPTIONS;

    CHECK(labelled != NULL && again != NULL && called != NULL);
    memcpy(phr_buffer(labelled), "one", 3);
    memcpy(phr_buffer(again), "two", 3);
    memcpy(phr_buffer(called), "called", 6);
    OK(phr_send_in_group(ctx, labelled, "a group"));
    OK(phr_send_in_group(ctx, again, "a group"));
    OK(phr_send(ctx, called));
    options.function = "is_called";
    OK(phr_put_with(ctx, NULL, NULL, "called", 6, &options));
    return PHR_OK;
}

PHR_FUNCTION(is_next)
{
    const phr_object *in = phr_input(ctx, 0);

    CHECK(phr_size(in) == 3);
    CHECK(strcmp(phr_key(in), "a label") == 0 && strcmp(phr_bucket(in), "") == 0);
    CHECK(strcmp(phr_group(in), "a group") == 0);
    return phr_put(ctx, "outcome", memcmp(phr_data(in), "one", 3) ? "next-two" : "next-one", "", 0);
}

PHR_FUNCTION(is_called)
{
    static const char *keys[] = { "call-0", "call-1" };
    const phr_object *in = phr_input(ctx, 0);

    CHECK(strcmp((const char *)phr_data(in), "called") == 0);
    CHECK(strcmp(phr_group(in), "") == 0);
    /* Both calls may come here; whoever is first takes the first key. */
    return phr_put(ctx, "outcome", keys[phr_get(ctx, "outcome", keys[0], 0) != NULL], "", 0);
}

PHR_FUNCTION(has_no_next)
{
    phr_object *object = phr_create(ctx, NULL, NULL, 1);

    CHECK(object != NULL);
    REFUSED(phr_send(ctx, object), PHR_EINVAL);
    /* It may still be the response. */
    *(char *)phr_buffer(object) = '!';
    return phr_respond(ctx, object);
}

PHR_FUNCTION(may_send_into_one_bucket)
{
    REFUSED(phr_put(ctx, "bucket", "key", "x", 1), PHR_EPERM);
    REFUSED_NULL(phr_create(ctx, "bucket", "key", 1), PHR_EPERM);
    OK(phr_put(ctx, "other", "key", "x", 1));
    return say_ok(ctx);
}

PHR_FUNCTION(answers_ok)
{
    return say_ok(ctx);
}

/* ------------------------------------------------------------------- truncate and discard ---- */

PHR_FUNCTION(truncates)
{
    phr_object *object = phr_create(ctx, NULL, NULL, 100000);

    CHECK(object != NULL && phr_size(object) == 100000);
    memset(phr_buffer(object), 'x', 100001);
    REFUSED(phr_truncate(object, 100001), PHR_EINVAL);
    OK(phr_truncate(object, 1025));
    CHECK(phr_size(object) == 1025);
    REFUSED(phr_truncate(object, 1026), PHR_EINVAL);
    OK(phr_truncate(object, 11));
    return phr_send(ctx, object);
}

PHR_FUNCTION(sees_what_is_left)
{
    const phr_object *in = phr_input(ctx, 0);

    CHECK(phr_size(in) == 11);
    CHECK(strcmp((const char *)phr_data(in), "xxxxxxxxxxx") == 0);
    return say_ok(ctx);
}

/* A hundred times more than the quota, given back each time. */
PHR_FUNCTION(discards)
{
    for (int i = 0; i < 100; i++) {
        phr_object *object = phr_create(ctx, NULL, NULL, (size_t)16 << 20);

        if (object == NULL)
            return phr_last_status(ctx);
        phr_discard(ctx, object);
    }
    return say_ok(ctx);
}

/* The same by truncating. */
PHR_FUNCTION(truncates_to_nothing)
{
    for (int i = 0; i < 100; i++) {
        phr_object *object = phr_create(ctx, "bucket", NULL, (size_t)16 << 20);

        if (object == NULL)
            return phr_last_status(ctx);
        OK(phr_truncate(object, 0));
        OK(phr_send(ctx, object));
    }
    return say_ok(ctx);
}

PHR_FUNCTION(leaves_objects_unsent)
{
    for (int i = 0; i < 3; i++)
        CHECK(phr_create(ctx, NULL, NULL, (size_t)8 << 20) != NULL);
    return say_ok(ctx);
}

PHR_FUNCTION(fills_the_memory)
{
    int created = 0;

    while (phr_create(ctx, NULL, NULL, (size_t)8 << 20) != NULL)
        created++;
    CHECK(phr_last_status(ctx) == PHR_ENOMEM);
    CHECK(created >= 1 && created < 8);
    return say_ok(ctx);
}

PHR_FUNCTION(asks_for_too_much)
{
    REFUSED_NULL(phr_create(ctx, NULL, NULL, ((size_t)16 << 20) + 1), PHR_ETOOBIG);
    REFUSED_NULL(phr_create(ctx, NULL, NULL, SIZE_MAX), PHR_ETOOBIG);
    REFUSED(phr_put(ctx, "bucket", NULL, "x", (size_t)1 << 40), PHR_ETOOBIG);
    return say_ok(ctx);
}

/* ---------------------------------------------------------------------------- forwarding ----- */

/* 12 MiB in a quota of 32: a copy at any hop would not fit beside two others. */
PHR_FUNCTION(begins_forwarding)
{
    const size_t size = (size_t)12 << 20;
    phr_object *out = phr_create(ctx, "relay", "hop-0", size);

    if (out == NULL)
        return phr_last_status(ctx);
    memset(phr_buffer(out), 7, size);
    return phr_send(ctx, out);
}

PHR_FUNCTION(forwards)
{
    const phr_object *in = phr_input(ctx, 0);
    const int hop = atoi(phr_key(in) + 4);
    const char *bytes = (const char *)phr_data(in);
    char key[16];

    CHECK(phr_size(in) == (size_t)12 << 20);
    CHECK(bytes[0] == 7 && bytes[phr_size(in) - 1] == 7 && bytes[phr_size(in)] == 0);
    CHECK(strcmp(phr_group(in), hop % 2 ? "odd" : "") == 0);
    if (hop == 20)
        return say_ok(ctx);
    snprintf(key, sizeof key, "hop-%d", hop + 1);
    if (hop % 2 == 0) {
        phr_send_options options = PHR_SEND_OPTIONS;
        options.group = "odd";
        return phr_forward_with(ctx, in, "relay", key, &options);
    }
    return phr_forward(ctx, in, "relay", key);
}

/* The request, to its next: nothing but a name. */
PHR_FUNCTION(forwards_its_request)
{
    return phr_forward(ctx, phr_input(ctx, 0), NULL, "passed on");
}

PHR_FUNCTION(answers_its_input)
{
    const phr_object *in = phr_input(ctx, 0);

    CHECK(strcmp(phr_key(in), "passed on") == 0);
    return phr_respond_parts(ctx, &in, 1);
}

/* ---------------------------------------------------------------------------- responses ------ */

PHR_FUNCTION(answers_twice)
{
    phr_object *second = phr_create(ctx, NULL, NULL, 2);

    OK(phr_respond_data(ctx, "once", 4));
    REFUSED(phr_respond_data(ctx, "twice", 5), PHR_EEXIST);
    CHECK(second != NULL);
    REFUSED(phr_respond(ctx, second), PHR_EEXIST);
    phr_discard(ctx, second);
    return PHR_OK;
}

PHR_FUNCTION(answers_with_parts)
{
    OK(phr_put(ctx, "parts", "a", "first ", 6));
    OK(phr_put(ctx, "parts", "b", NULL, 0));
    return phr_put(ctx, "parts", "c", "third ", 6);
}

PHR_FUNCTION(joins_the_parts)
{
    const phr_object *parts[5] = { phr_input(ctx, 2), phr_input(ctx, 0), phr_input(ctx, 1),
                                   phr_request(ctx), phr_input(ctx, 0) };

    CHECK(strcmp(phr_trigger(ctx), "all-parts") == 0);
    CHECK(parts[3] != NULL);
    return phr_respond_parts(ctx, parts, 5);
}

PHR_FUNCTION(answers_with_a_type)
{
    const char *type = phr_request_header(ctx, "content-type");

    REFUSED(phr_set_response_status(ctx, 199), PHR_EINVAL);
    REFUSED(phr_set_response_status(ctx, 600), PHR_EINVAL);
    OK(phr_set_response_status(ctx, 201));
    OK(phr_set_response_type(ctx, "text/x-test"));
    CHECK(type != NULL);
    CHECK(strcmp(phr_request_header(ctx, "Pheromone-Colour"), "blue") == 0);
    CHECK(strcmp(phr_request_header_of(ctx, phr_input(ctx, 0), "pheromone-colour"), "blue") == 0);
    CHECK(phr_request_header(ctx, "Pheromone-Absent") == NULL);
    CHECK(phr_last_status(ctx) == PHR_ENOENT);
    CHECK(phr_request_header(ctx, "Cookie") == NULL);
    return phr_respond_data(ctx, type, strlen(type));
}

/* In a session that nobody waits for. */
PHR_FUNCTION(has_no_caller)
{
    REFUSED(phr_respond_data(ctx, "x", 1), PHR_ENOENT);
    phr_log(ctx, PHR_INFO, "nobody waits");
    return PHR_OK;
}

/* -------------------------------------------------------------------------- looking up ------- */

PHR_FUNCTION(publishes_to_be_found)
{
    const phr_object *own;
    phr_object *direct = phr_create(ctx, NULL, "direct", 1);

    OK(phr_put(ctx, "kept", "a", "the object", 10));
    OK(phr_put(ctx, "kept", "b", NULL, 0));
    own = phr_get(ctx, "kept", "a", 0);
    CHECK(own != NULL && phr_size(own) == 10);
    CHECK(strcmp((const char *)phr_data(own), "the object") == 0);
    CHECK(direct != NULL);
    return phr_send(ctx, direct);
}

PHR_FUNCTION(finds_what_is_there)
{
    const phr_object *found = phr_get(ctx, "kept", "a", 0);

    CHECK(found != NULL && strcmp(phr_key(found), "a") == 0);
    CHECK(strcmp(phr_bucket(found), "kept") == 0 && phr_size(found) == 10);
    CHECK((uintptr_t)phr_data(found) % 64 == 0);
    CHECK(strcmp((const char *)phr_data(found), "the object") == 0);
    CHECK(phr_size(phr_get(ctx, "kept", "b", 0)) == 0);
    REFUSED_NULL(phr_get(ctx, "kept", "c", 0), PHR_ENOENT);
    REFUSED_NULL(phr_get(ctx, "kept", "direct", 0), PHR_ENOENT);
    REFUSED_NULL(phr_get(ctx, "no such bucket", "a", 0), PHR_ENOENT);
    CHECK(phr_size(phr_get(ctx, "kept", "a", 1000000)) == 10);
    OK(phr_delete(ctx, "kept", "b"));
    REFUSED_NULL(phr_get(ctx, "kept", "b", 0), PHR_ENOENT);
    /* What was found may be forwarded and answered with. */
    OK(phr_forward(ctx, found, "bucket", "again"));
    return phr_respond_parts(ctx, &found, 1);
}

/* Several hundred objects by name: more than any one message could hold. */
PHR_FUNCTION(gets_many)
{
    char key[16];

    for (int i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "k%d", i);
        OK(phr_put(ctx, "kept", key, &i, sizeof i));
    }
    for (int i = 0; i < 500; i++) {
        const phr_object *found;
        int value;

        snprintf(key, sizeof key, "k%d", i);
        found = phr_get(ctx, "kept", key, 0);
        CHECK(found != NULL);
        memcpy(&value, phr_data(found), sizeof value);
        CHECK(value == i);
    }
    return say_ok(ctx);
}

PHR_FUNCTION(has_a_kept_request)
{
    const phr_object *request = phr_request(ctx);

    CHECK(request != NULL);
    CHECK(strcmp(phr_key(request), "request") == 0);
    if (phr_input(ctx, 0) != request && strcmp(phr_key(phr_input(ctx, 0)), "range") == 0)
        return phr_respond_parts(ctx, &request, 1);
    return phr_put(ctx, "ranges", "range", "0-4", 3);
}

PHR_FUNCTION(has_no_kept_request)
{
    if (strcmp(phr_bucket(phr_input(ctx, 0)), "ranges") != 0)
        return phr_put(ctx, "ranges", "range", "0-4", 3);
    REFUSED_NULL(phr_request(ctx), PHR_ENOENT);
    return say_ok(ctx);
}

/* ----------------------------------------------------------------- surroundings and state ---- */

PHR_FUNCTION(reads_its_config)
{
    CHECK(strcmp(phr_config(ctx, "model"), "a.bin") == 0);
    CHECK(strcmp(phr_config(ctx, "threshold"), "7") == 0);
    CHECK(strcmp(phr_config(ctx, "from_the_app"), "yes") == 0);
    CHECK(strcmp(phr_config(ctx, "overridden"), "by the function") == 0);
    CHECK(phr_config(ctx, "absent") == NULL);
    CHECK(strcmp(getenv("COLOUR"), "blue") == 0);
    CHECK(strcmp(getenv("PASSED_ON"), "from the node") == 0);
    CHECK(getenv("NOT_PASSED_ON") == NULL && getenv("HOME") == NULL);
    return say_ok(ctx);
}

PHR_FUNCTION(reads_a_file_beside_the_manifest)
{
    FILE *file = fopen("poem.txt", "r");
    char line[64];

    CHECK(file != NULL);
    CHECK(fgets(line, sizeof line, file) != NULL);
    fclose(file);
    return phr_respond_data(ctx, line, strlen(line));
}

static int inits;
static int model = 42;

PHR_INIT(keeps_a_model)
{
    inits++;
    CHECK(phr_input_count(ctx) == 0);
    CHECK(strcmp(phr_config(ctx, "model"), "b.bin") == 0);
    REFUSED(phr_put(ctx, "bucket", "key", "x", 1), PHR_EPERM);
    REFUSED(phr_respond_data(ctx, "x", 1), PHR_EPERM);
    phr_log(ctx, PHR_INFO, "loading the model");
    return phr_set_local(ctx, &model, NULL);
}

PHR_FUNCTION(keeps_a_model)
{
    CHECK(inits == 1);
    CHECK(phr_local(ctx) == &model && *(int *)phr_local(ctx) == 42);
    return say_ok(ctx);
}

PHR_INIT(cannot_begin)
{
    return phr_fail(ctx, 4, "the model is missing");
}

PHR_FUNCTION(cannot_begin)
{
    return say_ok(ctx);
}

static int destroyed;

static void destroy(void *pointer)
{
    *(int *)pointer = -1;
    destroyed++;
}

PHR_FUNCTION(replaces_its_local)
{
    static int first, second;

    OK(phr_set_local(ctx, &first, destroy));
    OK(phr_set_local(ctx, &second, destroy));
    CHECK(destroyed == 1 && first == -1 && second == 0);
    CHECK(phr_local(ctx) == &second);
    OK(phr_set_local(ctx, NULL, NULL));
    CHECK(destroyed == 2 && phr_local(ctx) == NULL);
    return say_ok(ctx);
}

/* The n-th call of a process says n. */
PHR_FUNCTION(counts_its_calls)
{
    static long calls;

    CHECK(++calls == number_in(phr_input(ctx, 0)));
    return say_ok(ctx);
}

/* ------------------------------------------------------------------------------ output ------- */

PHR_FUNCTION(prints)
{
    printf("through printf\n");
    fprintf(stderr, "through stderr\n");
    printf("without a line end");
    phr_log(ctx, PHR_WARN, "through %s", "phr_log");
    phr_log(ctx, PHR_INFO, "two\nlines");
    if (write(1, "through write\n", 14) != 14)
        return 1;
    return say_ok(ctx);
}

/* Far past the limit of 64 KiB; never blocks. */
PHR_FUNCTION(prints_too_much)
{
    for (int i = 0; i < 100000; i++)
        printf("line %d of far too many, all of them of no use to anybody\n", i);
    return say_ok(ctx);
}

PHR_FUNCTION(says_much_when_failing)
{
    static char text[4096];

    memset(text, 'm', sizeof text - 1);
    return phr_fail(ctx, 1, "begin %s end", text);
}

/* ------------------------------------------------------------------------------ threads ------ */

static void *of_another_thread(void *argument)
{
    phr_ctx *ctx = (phr_ctx *)argument;
    intptr_t wrong = 0;

    wrong |= phr_put(ctx, "bucket", "key", "x", 1) != PHR_EPERM;
    wrong |= (phr_create(ctx, NULL, NULL, 1) != NULL) << 1;
    wrong |= (phr_now_ns(ctx) == 0) << 2;
    wrong |= (phr_cancelled(ctx) != 0) << 3;
    phr_log(ctx, PHR_INFO, "another thread");
    return (void *)wrong;
}

PHR_FUNCTION(uses_threads)
{
    pthread_t thread;
    void *wrong = NULL;

    CHECK(pthread_create(&thread, NULL, of_another_thread, ctx) == 0);
    CHECK(pthread_join(thread, &wrong) == 0);
    CHECK(wrong == NULL);
    return say_ok(ctx);
}

static phr_ctx *escaped;

PHR_FUNCTION(keeps_its_context)
{
    if (escaped != NULL && escaped != ctx)
        CHECK(phr_put(escaped, "bucket", "late", "x", 1) == PHR_EPERM);
    escaped = ctx;
    return say_ok(ctx);
}

static void *sleep_long(void *argument)
{
    sleep(1000);
    return argument;
}

/* Says which process it ran in. */
PHR_FUNCTION(leaves_a_thread)
{
    pthread_t thread;
    char text[32];

    CHECK(pthread_create(&thread, NULL, sleep_long, NULL) == 0);
    snprintf(text, sizeof text, "%d", (int)getpid());
    return phr_respond_data(ctx, text, strlen(text));
}

/* ------------------------------------------------------------- on a node that keeps nothing -- */

PHR_FUNCTION(sends_durable_in_vain)
{
    phr_object *object = phr_create(ctx, "bucket", "later", 1);

    CHECK(object != NULL);
    REFUSED(phr_send_durable(ctx, object), PHR_ENOTSUP);
    REFUSED_NULL(phr_load(ctx, "bucket", "later"), PHR_ENOENT);
    /* After the refusal the object is still ours. */
    OK(phr_send(ctx, object));
    return say_ok(ctx);
}
