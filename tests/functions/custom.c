/*
 * custom.c - custom triggers that gather by what only they know, fail in every way there is, and
 * check what their calls refuse; a source before them and a sink behind them that leaves notes.
 */
#include "check.h"

#include <fcntl.h>
#include <unistd.h>

#define MILLISECOND_NS 1000000u
#define PENDING_MAX 64

/* Sends as many objects as the request says, o0, o1, ..., each with as many bytes as its number. */
PHR_FUNCTION(sends)
{
    const long count = number_in(phr_input(ctx, 0));
    const char bytes[PENDING_MAX] = { 0 };

    for (long i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof key, "o%ld", i);
        OK(phr_put(ctx, "b", key, bytes, (size_t)i));
    }
    return PHR_OK;
}

/* Notes the keys that it was fired with in a line. */
PHR_FUNCTION(takes)
{
    char line[1024] = "";
    size_t length = 0;
    const int fd = open("taken", O_WRONLY | O_CREAT | O_APPEND, 0666);

    CHECK(fd >= 0);
    for (size_t i = 0; i < phr_input_count(ctx); i++)
        length += (size_t)snprintf(line + length, sizeof line - length, "%s%s", i ? " " : "",
                                   phr_key(phr_input(ctx, i)));
    length += (size_t)snprintf(line + length, sizeof line - length, "\n");
    CHECK(write(fd, line, length) == (ssize_t)length);
    close(fd);
    return PHR_OK;
}

/* What is pending, oldest first. */
typedef struct {
    uint64_t objects[PENDING_MAX];
    size_t count;
    uint64_t bytes;
} gathered;

static gathered *state_of(phr_trigger_ctx *t)
{
    void **state = phr_trigger_state(t);

    if (*state == NULL)
        *state = calloc(1, sizeof(gathered));
    return (gathered *)*state;
}

static void gather(gathered *g, const phr_event *event)
{
    g->objects[g->count++] = event->object;
    g->bytes += event->size_bytes;
}

static phr_status fire_all(phr_trigger_ctx *t, gathered *g, const char *function)
{
    const phr_status status = phr_fire(t, function, g->objects, g->count);

    g->count = 0;
    g->bytes = 0;
    return status;
}

/* Whether this is the first process to ask. */
static int is_first(const char *file)
{
    const int fd = open(file, O_WRONLY | O_CREAT | O_EXCL, 0666);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Fires what it has when its sizes come to `config.bytes`, and the rest at the end. */
PHR_TRIGGER(sums)
{
    gathered *g = state_of(t);
    const uint64_t bytes = strtoull(phr_trigger_config(t, "bytes"), NULL, 10);

    for (size_t i = 0; i < count; i++) {
        if (events[i].kind == PHR_EV_OBJECT)
            gather(g, &events[i]);
        if (g->count > 0 && (g->bytes >= bytes || events[i].kind == PHR_EV_SESSION_END)) {
            const phr_status status = fire_all(t, g, "takes");
            if (status != PHR_OK)
                return status;
        }
    }
    return 0;
}

/* Knows three objects when its first process dies: its successor has to know them too. */
PHR_TRIGGER(crashes)
{
    gathered *g = state_of(t);

    for (size_t i = 0; i < count; i++) {
        if (events[i].kind == PHR_EV_OBJECT)
            gather(g, &events[i]);
        if (g->count == 3 && is_first("crashed")) {
            phr_fire(t, NULL, g->objects, g->count);
            printf("about to crash\n");
            abort();
        }
        if (events[i].kind == PHR_EV_SESSION_END)
            return fire_all(t, g, NULL);
    }
    return 0;
}

/* Never returns in its first process. */
PHR_TRIGGER(hangs)
{
    gathered *g = state_of(t);

    for (size_t i = 0; i < count; i++)
        if (events[i].kind == PHR_EV_OBJECT)
            gather(g, &events[i]);
    if (is_first("hung"))
        for (;;)
            pause();
    return events[count - 1].kind == PHR_EV_SESSION_END ? fire_all(t, g, NULL) : 0;
}

/* Can do nothing. */
PHR_TRIGGER(fails)
{
    (void)t, (void)events, (void)count;
    fprintf(stderr, "nothing works here\n");
    return 5;
}

/* Fires what has come when nothing has come for a while. */
PHR_TRIGGER(ticks)
{
    gathered *g = state_of(t);

    for (size_t i = 0; i < count; i++) {
        if (events[i].kind == PHR_EV_OBJECT) {
            gather(g, &events[i]);
            phr_tick_at(t, events[i].time_ns + 50 * MILLISECOND_NS);
        }
        if (events[i].kind == PHR_EV_TICK)
            return fire_all(t, g, NULL);
    }
    return 0;
}

/* Fires all that has come with each object, and drops it all at the end. */
PHR_TRIGGER(keeps)
{
    gathered *g = state_of(t);

    for (size_t i = 0; i < count; i++) {
        phr_status status = PHR_OK;
        if (events[i].kind == PHR_EV_OBJECT) {
            gather(g, &events[i]);
            status = phr_fire(t, "takes", g->objects, g->count);
        } else if (events[i].kind == PHR_EV_SESSION_END && g->count > 0) {
            status = phr_drop(t, g->objects, g->count);
            g->count = 0;
        }
        if (status != PHR_OK)
            return status;
    }
    return 0;
}

#define NOT_SO(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            return 99;                                                                             \
        }                                                                                          \
    } while (0)

/* Checks what an event says and what the calls refuse, then fires. */
PHR_TRIGGER(checks)
{
    for (size_t i = 0; i < count; i++) {
        const phr_event *e = &events[i];
        if (e->kind != PHR_EV_OBJECT)
            continue;
        uint64_t list[2] = { e->object, e->object };
        NOT_SO(e->struct_size == sizeof *e && e->object != 0 && e->session != 0);
        NOT_SO(strcmp(e->bucket, "b") == 0 && e->key[0] == 'o' && strcmp(e->group, "") == 0);
        NOT_SO(e->size_bytes == strtoull(e->key + 1, NULL, 10) && e->time_ns > 0);
        NOT_SO(phr_fire(t, "nobody", list, 1) == PHR_ENOENT);
        NOT_SO(phr_fire(t, "sends", list, 1) == PHR_ENOENT);
        NOT_SO(phr_fire(t, NULL, list, 0) == PHR_EINVAL);
        NOT_SO(phr_fire(t, NULL, NULL, 1) == PHR_EINVAL);
        NOT_SO(phr_fire(t, NULL, list, 2) == PHR_EINVAL);
        list[1] = e->object + 1000;
        NOT_SO(phr_fire(t, NULL, list, 2) == PHR_ENOENT && phr_drop(t, list, 2) == PHR_ENOENT);
        NOT_SO(phr_fire(NULL, NULL, list, 1) == PHR_EINVAL);
        NOT_SO(phr_trigger_config(t, "nothing") == NULL && phr_trigger_config(t, NULL) == NULL);
        NOT_SO(strcmp(phr_trigger_config(t, "bytes"), "5") == 0);
        NOT_SO(phr_fire(t, "takes", list, 1) == PHR_OK);
        NOT_SO(phr_fire(t, "takes", list, 1) == PHR_ENOENT && phr_drop(t, list, 1) == PHR_ENOENT);
    }
    return 0;
}
