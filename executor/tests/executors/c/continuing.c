/* Functions whose input says what they do, word by word; what they send is the input behind `|`. */
#define _GNU_SOURCE
#include <pheromone.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 256
/* Most of a publish ring. */
#define MANY 800
#define LEFT_BYTES (1 << 20)

static void *stay(void *unused)
{
    (void)unused;
    for (;;)
        pause();
    return NULL;
}

static phr_object *make(phr_ctx *ctx, const char *bucket, const char *key, const char *rest)
{
    phr_object *out = phr_create(ctx, bucket, key, strlen(rest));

    if (out != NULL)
        memcpy(phr_buffer(out), rest, strlen(rest));
    return out;
}

static int sent_with(phr_ctx *ctx, const char *rest, const phr_send_options *options)
{
    phr_object *out = make(ctx, "out", NULL, rest);

    return out == NULL ? phr_last_status(ctx) : phr_send_with(ctx, out, options);
}

static const char *or_none(const char *text)
{
    return text != NULL && text[0] != 0 ? text : "none";
}

/* Answers with what it sees of its invocation. */
static int tell(phr_ctx *ctx)
{
    const phr_object *in = phr_input(ctx, 0);
    char text[1024];

    snprintf(text, sizeof text,
             "function %s trigger %s attempt %u session %llu inputs %zu bytes %zu key %s bucket %s "
             "group [%s] of %llu arrived %d window %d deadline %llu header %s environment %s "
             "config %s parallelism %u local %p",
             phr_function(ctx), or_none(phr_trigger(ctx)), phr_attempt(ctx),
             (unsigned long long)phr_session(ctx), phr_input_count(ctx), phr_size(in), phr_key(in),
             or_none(phr_bucket(in)), phr_group(in), (unsigned long long)phr_object_session(in),
             phr_arrival_ns(in) != 0 && phr_arrival_ns(in) <= phr_now_ns(ctx),
             phr_window(ctx, NULL, NULL) == PHR_OK, (unsigned long long)phr_deadline_ns(ctx),
             or_none(phr_request_header(ctx, "pheromone-thing")), or_none(getenv("WHO")),
             or_none(phr_config(ctx, "who")), phr_parallelism(ctx), phr_local(ctx));
    return phr_respond_data(ctx, text, strlen(text));
}

/* Sends itself on, with one hop less to go. */
static int again(phr_ctx *ctx, const char *count)
{
    const long left = atol(count);
    char text[64];

    if (left == 0)
        return PHR_OK;
    snprintf(text, sizeof text, "again %ld", left - 1);
    return phr_put(ctx, "out", NULL, text, strlen(text));
}

static int many(phr_ctx *ctx)
{
    int status = PHR_OK;
    char key[32];

    for (int i = 0; i < MANY && status == PHR_OK; i++) {
        snprintf(key, sizeof key, "many-%d", i);
        status = phr_put(ctx, "out", key, NULL, 0);
    }
    return status;
}

static int left_behind(phr_ctx *ctx)
{
    return phr_create(ctx, "out", NULL, LEFT_BYTES) != NULL ? PHR_OK : phr_last_status(ctx);
}

/* Until the test writes over the first byte of the input. */
static int paused(const phr_object *in)
{
    const volatile char *first = (const volatile char *)phr_data(in);

    while (*first != 'P')
        usleep(100);
    return PHR_OK;
}

static int with_a_thread(void)
{
    pthread_t thread;

    return pthread_create(&thread, NULL, stay, NULL) == 0 ? PHR_OK : 1;
}

static int act(phr_ctx *ctx, const char *word, const char *rest)
{
    phr_send_options grouped = PHR_SEND_OPTIONS, delayed = PHR_SEND_OPTIONS;
    const phr_object *in = phr_input(ctx, 0);
    phr_object *out;

    grouped.group = "g";
    delayed.delay_ns = 1000;
    if (strcmp(word, "p") == 0)
        return paused(in);
    if (strcmp(word, "auto") == 0)
        return sent_with(ctx, rest, NULL);
    if (strcmp(word, "named") == 0)
        return phr_put(ctx, "out", "k", rest, strlen(rest));
    if (strcmp(word, "group") == 0)
        return sent_with(ctx, rest, &grouped);
    if (strcmp(word, "delay") == 0)
        return sent_with(ctx, rest, &delayed);
    if (strcmp(word, "durable") == 0)
        return (out = make(ctx, "out", NULL, rest)) != NULL ? phr_send_durable(ctx, out) : 1;
    if (strcmp(word, "forward") == 0)
        return phr_forward(ctx, in, "out", NULL);
    if (strcmp(word, "next") == 0)
        return (out = make(ctx, NULL, NULL, rest)) != NULL ? phr_send(ctx, out) : 1;
    if (strcmp(word, "direct") == 0) {
        out = phr_create_for(ctx, "second", strlen(rest));
        if (out != NULL)
            memcpy(phr_buffer(out), rest, strlen(rest));
        return out != NULL ? phr_send(ctx, out) : phr_last_status(ctx);
    }
    if (strcmp(word, "again") == 0)
        return again(ctx, (const char *)phr_data(in) + strlen("again "));
    if (strcmp(word, "many") == 0)
        return many(ctx);
    if (strcmp(word, "leave") == 0)
        return left_behind(ctx);
    if (strcmp(word, "thread") == 0)
        return with_a_thread();
    if (strcmp(word, "log") == 0) {
        phr_log(ctx, PHR_INFO, "here");
        return PHR_OK;
    }
    if (strcmp(word, "say") == 0) {
        printf("%s speaks\n", phr_function(ctx));
        return PHR_OK;
    }
    if (strcmp(word, "local") == 0)
        return phr_set_local(ctx, (void *)1, NULL);
    if (strcmp(word, "tell") == 0)
        return tell(ctx);
    if (strcmp(word, "fail") == 0)
        return phr_fail(ctx, 3, "as it was told");
    return PHR_OK;
}

static int follow(phr_ctx *ctx)
{
    const phr_object *in = phr_input(ctx, 0);
    const char *bar = (const char *)memchr(phr_data(in), '|', phr_size(in));
    const char *rest = bar != NULL ? bar + 1 : "";
    const size_t length = bar != NULL ? (size_t)(bar - (const char *)phr_data(in)) : phr_size(in);
    char words[WORDS_MAX], *place = NULL;
    int status = PHR_OK;

    if (length >= sizeof words)
        return phr_fail(ctx, 4, "%zu bytes of words", length);
    memcpy(words, phr_data(in), length);
    words[length] = 0;
    for (char *word = strtok_r(words, " ", &place); word != NULL && status == PHR_OK;
         word = strtok_r(NULL, " ", &place))
        status = act(ctx, word, rest);
    return status;
}

PHR_FUNCTION(first)
{
    return follow(ctx);
}

PHR_FUNCTION(second)
{
    return follow(ctx);
}
