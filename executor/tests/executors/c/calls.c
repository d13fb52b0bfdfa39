/* Functions that use the SDK's calls and check, each for itself, what they give. */
#define _GNU_SOURCE
#include <pheromone.h>

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return phr_fail(ctx, 1, "line %d: %s; last error: %s", __LINE__, #condition,           \
                            phr_last_error(ctx));                                                  \
    } while (0)

static int aligned_and_ended(const phr_object *object)
{
    const char *data = (const char *)phr_data(object);
    return data != NULL && (uintptr_t)data % 64 == 0 && data[phr_size(object)] == 0;
}

/* Publishes its input again: a copy, with the same key and group. */
PHR_FUNCTION(copy)
{
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out;

    CHECK(phr_input_count(ctx) == 1);
    CHECK(aligned_and_ended(in));
    CHECK(phr_input(ctx, 1) == NULL);
    out = phr_create(ctx, "out", phr_key(in), phr_size(in));
    CHECK(out != NULL);
    CHECK(phr_buffer(out) != NULL && (uintptr_t)phr_buffer(out) % 64 == 0);
    CHECK(phr_size(out) == phr_size(in));
    memcpy(phr_buffer(out), phr_data(in), phr_size(in));
    ((char *)phr_buffer(out))[phr_size(out)] = 'x'; /* allowed; zero once sent */
    return phr_send_in_group(ctx, out, phr_group(in));
}

PHR_FUNCTION(about)
{
    uint64_t wall;

    CHECK(strcmp(phr_app(ctx), "test") == 0);
    CHECK(strcmp(phr_function(ctx), "about") == 0);
    CHECK(strcmp(phr_trigger(ctx), "second") == 0);
    CHECK(phr_session(ctx) == 77);
    CHECK(phr_invocation(ctx) != 0);
    CHECK(phr_attempt(ctx) == 2);
    CHECK(phr_parallelism(ctx) == 5);
    CHECK(phr_deadline_ns(ctx) == 123456789);
    CHECK(phr_now_ns(ctx) > 0);
    wall = phr_wall_ns(ctx, phr_now_ns(ctx));
    CHECK(wall > 1600000000ull * 1000000000ull);
    CHECK(phr_cancelled(ctx) == 0);
    CHECK(strcmp(phr_config(ctx, "model"), "a.bin") == 0);
    CHECK(phr_config(ctx, "other") == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(phr_window(ctx, NULL, NULL) == PHR_ENOENT);
    CHECK(phr_parent_count(ctx) == 0 && phr_parent(ctx, 0) == 0);
    CHECK(phr_arguments(ctx) == PHR_ARGUMENTS_VALUES);
    CHECK(strcmp(getenv("GREETING"), "hello") == 0);
    CHECK(getenv("PATH") == NULL);
    return PHR_OK;
}

PHR_FUNCTION(no_environment)
{
    CHECK(getenv("GREETING") == NULL);
    return PHR_OK;
}

/* Inputs with names, automatic keys, many of them. */
PHR_FUNCTION(inputs)
{
    size_t count = phr_input_count(ctx);
    size_t i;
    char key[32];

    for (i = 0; i < count; i++) {
        const phr_object *in = phr_input(ctx, i);
        CHECK(in != NULL && aligned_and_ended(in));
        snprintf(key, sizeof key, "%zu", i);
        CHECK(strcmp((const char *)phr_data(in), key) == 0);
        CHECK(phr_object_session(in) == 77 && phr_arrival_ns(in) == 1000 + i);
        if (i % 2 == 0) {
            snprintf(key, sizeof key, "key-%zu", i);
            CHECK(strcmp(phr_group(in), "even") == 0);
            CHECK(strcmp(phr_bucket(in), "out") == 0);
        } else {
            snprintf(key, sizeof key, "~9.%zu", i);
            CHECK(strcmp(phr_group(in), "") == 0);
            CHECK(strcmp(phr_bucket(in), "") == 0);
        }
        CHECK(strcmp(phr_key(in), key) == 0);
        CHECK(phr_input_named(ctx, key) == in);
    }
    CHECK(phr_input(ctx, count) == NULL);
    CHECK(phr_input_named(ctx, "key-1") == NULL);
    return PHR_OK;
}

PHR_FUNCTION(outputs)
{
    phr_object *object = phr_create(ctx, "out", NULL, 100000);
    phr_object *second;
    phr_object *direct;
    phr_send_options options = PHR_SEND_OPTIONS;

    CHECK(object != NULL);
    CHECK(strncmp(phr_key(object), "~", 1) == 0 && strcmp(phr_bucket(object), "out") == 0);
    CHECK(phr_truncate(object, 100001) == PHR_EINVAL);
    CHECK(phr_truncate(object, 10) == PHR_OK && phr_size(object) == 10);
    CHECK(phr_truncate(object, 11) == PHR_EINVAL);
    memcpy(phr_buffer(object), "0123456789", 10);
    CHECK(phr_send(ctx, object) == PHR_OK);
    CHECK(phr_send(ctx, object) == PHR_EINVAL);
    CHECK(strstr(phr_last_error(ctx), "has been sent before") != NULL);
    CHECK(phr_buffer(object) == NULL);
    CHECK(phr_truncate(object, 1) == PHR_EINVAL);

    second = phr_create(ctx, "out", NULL, 0);
    CHECK(second != NULL && strcmp(phr_key(second) + strlen(phr_key(second)) - 2, ".1") == 0);
    CHECK(phr_send(ctx, second) == PHR_OK);

    /* Direct objects: ordinals of creation, labels, one function only. */
    direct = phr_create(ctx, NULL, NULL, 1);
    CHECK(direct != NULL && strcmp(phr_bucket(direct), "") == 0);
    CHECK(phr_send(ctx, direct) == PHR_OK);
    direct = phr_create(ctx, NULL, "label", 1);
    CHECK(direct != NULL && strcmp(phr_key(direct), "label") == 0);
    CHECK(phr_send_in_group(ctx, direct, "g") == PHR_OK);
    direct = phr_create_for(ctx, "inputs", 1);
    CHECK(direct != NULL && phr_send(ctx, direct) == PHR_OK);
    options.function = "inputs";
    CHECK(phr_put_with(ctx, NULL, NULL, "p", 1, &options) == PHR_OK);
    CHECK(phr_put_with(ctx, "out", NULL, "p", 1, &options) == PHR_EINVAL);

    /* Forwarding. */
    CHECK(phr_forward(ctx, phr_input(ctx, 0), "out", "again") == PHR_OK);
    CHECK(phr_forward(ctx, phr_input(ctx, 0), NULL, NULL) == PHR_OK);
    options.function = NULL;
    options.group = "grouped";
    CHECK(phr_forward_with(ctx, phr_input(ctx, 0), "out", NULL, &options) == PHR_OK);

    /* Given back. */
    phr_discard(ctx, phr_create(ctx, "out", NULL, 5000));
    phr_discard(ctx, object);
    phr_discard(ctx, NULL);
    CHECK(phr_create(ctx, "out", "left", 10) != NULL);
    return PHR_OK;
}

PHR_FUNCTION(refusals)
{
    char long_text[300];
    phr_object *object;
    phr_send_options options = PHR_SEND_OPTIONS;

    memset(long_text, 'k', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    CHECK(phr_last_status(ctx) == PHR_OK && strcmp(phr_last_error(ctx), "") == 0);

    CHECK(phr_create(ctx, "nowhere", NULL, 1) == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(strstr(phr_last_error(ctx), "phr_create: the app has no bucket `nowhere`") != NULL);
    CHECK(strstr(phr_last_error(ctx), "`out`") != NULL);
    CHECK(phr_create(ctx, "other", NULL, 1) == NULL && phr_last_status(ctx) == PHR_EPERM);
    CHECK(phr_create(ctx, "out", "~1.2", 1) == NULL && phr_last_status(ctx) == PHR_EINVAL);
    CHECK(phr_create(ctx, "out", "", 1) == NULL && phr_last_status(ctx) == PHR_EINVAL);
    CHECK(phr_create(ctx, "out", long_text, 1) == NULL && phr_last_status(ctx) == PHR_EINVAL);
    CHECK(phr_create(ctx, "out", NULL, (size_t)1 << 40) == NULL);
    CHECK(phr_last_status(ctx) == PHR_ETOOBIG);
    CHECK(phr_create(ctx, "out", NULL, SIZE_MAX) == NULL && phr_last_status(ctx) == PHR_ETOOBIG);
    CHECK(phr_create_for(ctx, "copy", 1) == NULL && phr_last_status(ctx) == PHR_EPERM);
    CHECK(phr_create_for(ctx, "nobody", 1) == NULL && phr_last_status(ctx) == PHR_EPERM);
    CHECK(phr_create_for(ctx, NULL, 1) == NULL && phr_last_status(ctx) == PHR_EINVAL);

    object = phr_create(ctx, NULL, NULL, 1);
    CHECK(object != NULL);
    CHECK(phr_send(ctx, object) == PHR_EINVAL); /* no `next` */
    CHECK(strstr(phr_last_error(ctx), "`next`") != NULL);
    CHECK(phr_put(ctx, NULL, NULL, "x", 1) == PHR_EINVAL);
    CHECK(phr_put(ctx, "out", NULL, NULL, 1) == PHR_EINVAL);
    phr_discard(ctx, object);
    CHECK(phr_send(ctx, object) == PHR_EINVAL);
    CHECK(phr_send(ctx, NULL) == PHR_EINVAL);
    CHECK(phr_send(ctx, (phr_object *)phr_input(ctx, 0)) == PHR_EINVAL);
    CHECK(strstr(phr_last_error(ctx), "phr_forward") != NULL);

    object = phr_create(ctx, "out", NULL, 1);
    options.group = long_text;
    CHECK(phr_send_with(ctx, object, &options) == PHR_EINVAL);
    options.group = NULL;
    options.flags = 2;
    CHECK(phr_send_with(ctx, object, &options) == PHR_EINVAL);
    options.flags = 0;
    options.struct_size = 3;
    CHECK(phr_send_with(ctx, object, &options) == PHR_EINVAL);
    CHECK(phr_forward(ctx, object, "out", NULL) == PHR_EINVAL);
    CHECK(phr_forward(ctx, NULL, "out", NULL) == PHR_EINVAL);
    CHECK(phr_forward(ctx, phr_input(ctx, 0), "other", NULL) == PHR_EPERM);

    CHECK(phr_respond(ctx, object) == PHR_ENOENT); /* no caller */
    CHECK(phr_respond_data(ctx, "x", 1) == PHR_ENOENT);
    CHECK(phr_set_response_status(ctx, 199) == PHR_EINVAL);
    CHECK(phr_set_response_status(ctx, 600) == PHR_EINVAL);
    CHECK(phr_set_response_type(ctx, "text/plain\r\nX: y") == PHR_EINVAL);
    CHECK(phr_get(ctx, "nowhere", "k", 0) == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(phr_get(ctx, "out", NULL, 0) == NULL && phr_last_status(ctx) == PHR_EINVAL);
    CHECK(phr_request(ctx) == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(phr_request_header(ctx, "traceparent") == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(phr_input_count(NULL) == 0 && phr_create(NULL, "out", NULL, 1) == NULL);
    CHECK(phr_send(NULL, object) == PHR_EINVAL && phr_size(NULL) == 0 && phr_data(NULL) == NULL);
    return PHR_OK;
}

/* Sends wait for the disk, and what it refuses is still the sender's. */
PHR_FUNCTION(durable)
{
    phr_object *object = phr_create(ctx, "out", "k", 1);

    CHECK(phr_send_durable(ctx, phr_create(ctx, NULL, NULL, 1)) == PHR_EINVAL);
    CHECK(phr_send_durable(ctx, object) == PHR_EEXIST);
    CHECK(strstr(phr_last_error(ctx), "an object of this name already") != NULL);
    CHECK(phr_send_durable(ctx, object) == PHR_EIO);
    CHECK(phr_send_durable(ctx, object) == PHR_OK);
    CHECK(phr_load(ctx, "out", "k") == NULL && phr_last_status(ctx) == PHR_ENOENT);
    const phr_object *found = phr_load(ctx, "out", "k");
    CHECK(found != NULL && memcmp(phr_data(found), "found it", 8) == 0);
    return phr_forward(ctx, found, "out", "again");
}

PHR_FUNCTION(respond)
{
    phr_object *object = phr_create(ctx, NULL, NULL, 6);

    CHECK(object != NULL);
    memcpy(phr_buffer(object), "answer", 6);
    CHECK(phr_set_response_type(ctx, "text/plain") == PHR_OK);
    CHECK(phr_set_response_status(ctx, 201) == PHR_OK);
    CHECK(phr_respond(ctx, object) == PHR_OK);
    CHECK(phr_respond_data(ctx, "x", 1) == PHR_EEXIST);
    CHECK(phr_respond(ctx, object) == PHR_EEXIST);
    return PHR_OK;
}

/* Answers two parents and fails a third session, each once. */
PHR_FUNCTION(respond_elsewhere)
{
    phr_object *object = phr_create(ctx, NULL, NULL, 1);

    CHECK(phr_parent_count(ctx) == 2);
    CHECK(phr_parent(ctx, 0) == 71 && phr_parent(ctx, 1) == 72 && phr_parent(ctx, 2) == 0);
    memcpy(phr_buffer(object), "a", 1);
    CHECK(phr_respond_session(ctx, 0, object) == PHR_EINVAL);
    CHECK(phr_respond_session(ctx, phr_parent(ctx, 0), object) == PHR_OK);
    object = phr_create(ctx, NULL, NULL, 1);
    memcpy(phr_buffer(object), "b", 1);
    CHECK(phr_respond_session(ctx, 71, object) == PHR_EEXIST);
    CHECK(phr_fail_session(ctx, 71, 3, "no") == PHR_EEXIST);
    CHECK(phr_respond_to(ctx, object, object) == PHR_EINVAL);
    CHECK(phr_respond_to(ctx, phr_input(ctx, 0), object) == PHR_OK);
    CHECK(phr_fail_session(ctx, 72, 0, "no") == PHR_EINVAL);
    CHECK(phr_fail_session(ctx, 72, 3, "not this one") == PHR_OK);
    CHECK(phr_fail_session(ctx, 72, 3, "nor again") == PHR_EEXIST);
    return PHR_OK;
}

PHR_FUNCTION(respond_data)
{
    return phr_respond_data(ctx, phr_data(phr_input(ctx, 0)), phr_size(phr_input(ctx, 0)));
}

PHR_FUNCTION(respond_parts)
{
    const phr_object **parts = calloc(10001, sizeof *parts);
    size_t i;
    phr_status status;

    CHECK(parts != NULL);
    for (i = 0; i < 10001; i++)
        parts[i] = phr_input(ctx, i % phr_input_count(ctx));
    parts[10000] = phr_request(ctx);
    status = phr_respond_parts(ctx, parts, 10001);
    free(parts);
    CHECK(status == PHR_OK);
    return PHR_OK;
}

PHR_FUNCTION(request)
{
    const phr_object *request = phr_request(ctx);

    CHECK(request != NULL && strcmp((const char *)phr_data(request), "the request") == 0);
    CHECK(strcmp(phr_key(request), "request") == 0);
    CHECK(phr_forward(ctx, request, "out", "request") == PHR_OK);
    CHECK(strcmp(phr_request_header(ctx, "content-type"), "text/plain") == 0);
    CHECK(strcmp(phr_request_header(ctx, "Pheromone-Thing"), "yes") == 0);
    CHECK(phr_request_header(ctx, "Accept") == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(strcmp(phr_request_header_of(ctx, request, "CONTENT-TYPE"), "text/plain") == 0);
    return PHR_OK;
}

PHR_FUNCTION(get)
{
    const phr_object *found = phr_get(ctx, "out", "there", 0);

    CHECK(found != NULL && strcmp((const char *)phr_data(found), "found it") == 0);
    CHECK(phr_get(ctx, "out", "~5.6", 0) == NULL && phr_last_status(ctx) == PHR_ENOENT);
    CHECK(strstr(phr_last_error(ctx), "no object `~5.6` in bucket `out`") != NULL);
    CHECK(phr_forward(ctx, found, "out", "from-get") == PHR_OK);
    CHECK(phr_delete(ctx, "out", "there") == PHR_OK);
    return PHR_OK;
}

/* The first byte of the input says what to return. */
PHR_FUNCTION(fail)
{
    const char *how = (const char *)phr_data(phr_input(ctx, 0));
    char long_text[3000];

    memset(long_text, 'm', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    switch (how[0]) {
    case 's': return 17;
    case 'f': return phr_fail(ctx, 3, "no table %s", "x");
    case 'p': return phr_fail(ctx, PHR_PERMANENT(9), "never again");
    case 'l': return phr_fail(ctx, 4, "%s", long_text);
    case 'e': return phr_create(ctx, "nowhere", NULL, 1) ? 0 : phr_last_status(ctx);
    case 'n': return PHR_EAGAIN;
    case 'x': return 70000;
    case 'y': return -77;
    default: return phr_fail(ctx, 5, "said before") - 5;
    }
}

static int from_thread[8];

static void *use_ctx(void *argument)
{
    phr_ctx *ctx = (phr_ctx *)argument;

    from_thread[0] = phr_cancelled(ctx);
    from_thread[1] = phr_now_ns(ctx) > 0;
    phr_log(ctx, PHR_INFO, "from a thread");
    from_thread[2] = phr_put(ctx, "out", NULL, "x", 1);
    from_thread[3] = phr_create(ctx, "out", NULL, 1) == NULL;
    from_thread[4] = phr_last_status(ctx);
    from_thread[5] = phr_input(ctx, 0) == NULL;
    return NULL;
}

static phr_ctx *remembered;

PHR_FUNCTION(threads)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, use_ctx, ctx) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(from_thread[0] == 0 && from_thread[1] == 1);
    CHECK(from_thread[2] == PHR_EPERM && from_thread[3] == 1 && from_thread[4] == PHR_EPERM);
    CHECK(from_thread[5] == 1);
    /* A handle of an invocation that has returned. */
    if (remembered != NULL) {
        CHECK(phr_put(remembered, "out", NULL, "x", 1) == PHR_EPERM);
        CHECK(strstr(phr_last_error(remembered), "another thread") != NULL);
    }
    remembered = ctx;
    return PHR_OK;
}

static void *sleep_long(void *argument)
{
    sleep(60);
    return argument;
}

PHR_FUNCTION(stray)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, sleep_long, NULL) == 0);
    return PHR_OK;
}

/* Waits until it is cancelled, then tries what it may not any more. */
PHR_FUNCTION(cancelled)
{
    phr_object *object = phr_create(ctx, "out", NULL, 1);

    CHECK(phr_put(ctx, "out", "begun", "x", 1) == PHR_OK);
    while (!phr_cancelled(ctx))
        usleep(100);
    CHECK(phr_send(ctx, object) == PHR_ECANCELED);
    CHECK(phr_create(ctx, "out", NULL, 1) == NULL && phr_last_status(ctx) == PHR_ECANCELED);
    CHECK(phr_respond(ctx, object) == PHR_ECANCELED);
    CHECK(phr_get(ctx, "out", "k", 0) == NULL && phr_last_status(ctx) == PHR_ECANCELED);
    CHECK(phr_size(phr_input(ctx, 0)) == 1);
    return phr_last_status(ctx);
}

/* Asks for more and more until it is refused; the input says how much at once. */
PHR_FUNCTION(fill)
{
    size_t step = (size_t)strtoull((const char *)phr_data(phr_input(ctx, 0)), NULL, 10);
    char text[32];
    int count = 0;

    while (phr_create(ctx, "out", NULL, step) != NULL)
        count++;
    CHECK(phr_last_status(ctx) == PHR_ENOMEM);
    phr_log(ctx, PHR_INFO, "%d objects", count);
    snprintf(text, sizeof text, "%d", count);
    return PHR_OK;
}

PHR_FUNCTION(many)
{
    int i;

    for (i = 0; i < 5000; i++)
        CHECK(phr_put(ctx, "out", NULL, &i, sizeof i) == PHR_OK);
    return PHR_OK;
}

/* The descriptors that are open while a function runs, but for the one that looks. */
PHR_FUNCTION(descriptors)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    char open_ones[512] = "";

    CHECK(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder)) {
            strcat(open_ones, entry->d_name);
            strcat(open_ones, " ");
        }
    }
    closedir(folder);
    return phr_put(ctx, "out", "open", open_ones, strlen(open_ones));
}

PHR_FUNCTION(who)
{
    char text[256];
    char folder[128];

    CHECK(getcwd(folder, sizeof folder) != NULL);
    snprintf(text, sizeof text, "%d %d %d %s", (int)getuid(), (int)getegid(), getgroups(0, NULL),
             folder);
    return phr_put(ctx, "out", "who", text, strlen(text));
}
