/*
 * deciding.c - a custom trigger that does what the keys of its objects say, one thing for each, and
 * one that leaves in every wrong way.
 */
#include <pheromone.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                         \
            return 99;                                                                             \
        }                                                                                          \
    } while (0)

#define OBJECTS_MAX 20000

static uint64_t known[OBJECTS_MAX];
static size_t known_count;

PHR_TRIGGER(obeys)
{
    void **state = phr_trigger_state(t);

    CHECK(state != NULL && (*state == NULL) == (known_count == 0));
    *state = known;
    for (size_t i = 0; i < count; i++) {
        const phr_event *e = &events[i];
        CHECK(e->struct_size == sizeof *e && e->bucket && e->key && e->group);
        if (e->kind == PHR_EV_TICK) {
            CHECK(e->object == 0 && e->session == 0 && phr_tick_at(t, e->time_ns + 1) == PHR_OK);
            continue;
        }
        if (e->kind == PHR_EV_SESSION_END) {
            CHECK(e->object == 0 && e->session == 7);
            CHECK(phr_fire(t, NULL, known, known_count) == PHR_OK);
            continue;
        }
        if (e->kind == PHR_EV_SESSION_GONE) {
            CHECK(e->session == 7);
            CHECK(phr_fire(t, "second", known, 1) == PHR_OK);
            CHECK(phr_drop(t, known, 1) == PHR_OK);
            continue;
        }
        CHECK(e->kind == PHR_EV_OBJECT && strcmp(e->bucket, "out") == 0);
        known[known_count++] = e->object;
        if (strcmp(e->key, "fire") == 0)
            CHECK(phr_fire(t, "second", &e->object, 1) == PHR_OK);
        if (strcmp(e->key, "drop") == 0)
            CHECK(phr_drop(t, &e->object, 1) == PHR_OK);
        if (strcmp(e->key, "group") == 0)
            CHECK(strcmp(e->group, "g") == 0 && e->size_bytes == 5 && e->time_ns == 1234);
        if (strcmp(e->key, "mixed") == 0)
            CHECK(phr_fire(t, NULL, known, known_count) == PHR_EINVAL);
        if (strcmp(e->key, "drops all") == 0)
            CHECK(phr_drop(t, known, known_count) == PHR_OK);
        if (strcmp(e->key, "unknown") == 0)
            return phr_fire(t, "third", &e->object, 1);
        if (strcmp(e->key, "gone before") == 0)
            return phr_drop(t, known, 1);
    }
    return 0;
}

static phr_trigger_ctx *old;

static void *answers(void *argument)
{
    const uint64_t object = 1;
    return (void *)(intptr_t)phr_drop((phr_trigger_ctx *)argument, &object, 1);
}

static void *stays(void *argument)
{
    sleep(1000);
    return argument;
}

PHR_TRIGGER(leaves)
{
    pthread_t thread;
    void *status;

    (void)count;
    old = t;
    if (strcmp(events[0].key, "thread") == 0) {
        CHECK(pthread_create(&thread, NULL, answers, t) == 0);
        CHECK(pthread_join(thread, &status) == 0 && (intptr_t)status == PHR_EPERM);
        return 0;
    }
    if (strcmp(events[0].key, "stray") == 0)
        return pthread_create(&thread, NULL, stays, NULL);
    if (strcmp(events[0].key, "abort") == 0)
        abort();
    return 7;
}
