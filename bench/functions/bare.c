/*
 * What the operating system itself takes for what starts and recoveries consist of: processes that
 * are forked and die, and libraries that are loaded. Runs without isolation, which would forbid it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stamps.h"

/* What the harness sends; what follows is the path of a library, for `loads`. */
typedef struct order {
    uint32_t count;
    uint32_t signal; /* that ends a process, for `recoveries` */
} order;

/* What a child tells. */
typedef struct page {
    volatile uint64_t died_ns;
    volatile uint64_t began_ns;
} page;

/* Times of one kind: what the answer is made of. */
typedef struct times {
    phr_object *object;
    uint64_t *ns;
} times;

static int take_order(phr_ctx *ctx, order *into, times *out)
{
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) < sizeof *into)
        return phr_fail(ctx, 1, "an order has %zu bytes or more, and %zu came", sizeof *into,
                        phr_size(in));
    memcpy(into, phr_data(in), sizeof *into);
    out->object = phr_create(ctx, NULL, NULL, into->count * sizeof(uint64_t));
    if (out->object == NULL)
        return phr_last_status(ctx);
    out->ns = (uint64_t *)phr_buffer(out->object);
    return PHR_OK;
}

static page *shared_page(void)
{
    void *memory = mmap(NULL, sizeof(page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                        0);
    return memory == MAP_FAILED ? NULL : (page *)memory;
}

/* A process whose first instruction stamps; then it leaves. False where it cannot be had. */
static int forks_once(page *shared)
{
    pid_t child = fork();
    if (child == 0) {
        shared->began_ns = clock_ns();
        _exit(0);
    }
    return child > 0 && waitpid(child, NULL, 0) == child;
}

/* From just before fork to the child's first instruction. */
PHR_FUNCTION(forks)
{
    order wanted;
    times out;
    int status = take_order(ctx, &wanted, &out);
    if (status != PHR_OK)
        return status;
    page *shared = shared_page();
    if (shared == NULL)
        return phr_fail(ctx, 2, "no page to share with a child");
    for (uint32_t i = 0; i < wanted.count; i++) {
        uint64_t begin = clock_ns();
        if (!forks_once(shared))
            return phr_fail(ctx, 3, "a process could not be forked");
        out.ns[i] = shared->began_ns - begin;
    }
    munmap(shared, sizeof *shared);
    return phr_respond(ctx, out.object);
}

/* From just before a child's death by a signal to the first instruction of the next, forked by the
 * parent as soon as it has heard of the death. */
PHR_FUNCTION(recoveries)
{
    order wanted;
    times out;
    int status = take_order(ctx, &wanted, &out);
    if (status != PHR_OK)
        return status;
    page *shared = shared_page();
    if (shared == NULL)
        return phr_fail(ctx, 2, "no page to share with a child");
    for (uint32_t i = 0; i < wanted.count; i++) {
        pid_t child = fork();
        if (child == 0) {
            /* The executor's own handler is not what is measured here. */
            signal((int)wanted.signal, SIG_DFL);
            shared->died_ns = clock_ns();
            raise((int)wanted.signal);
            _exit(1);
        }
        if (child < 0 || waitpid(child, NULL, 0) != child || !forks_once(shared))
            return phr_fail(ctx, 3, "a process could not be forked");
        out.ns[i] = shared->began_ns - shared->died_ns;
    }
    munmap(shared, sizeof *shared);
    return phr_respond(ctx, out.object);
}

/* dlopen of a library that is not loaded, with its constructors. */
PHR_FUNCTION(loads)
{
    order wanted;
    times out;
    int status = take_order(ctx, &wanted, &out);
    if (status != PHR_OK)
        return status;
    /* A zero byte follows every payload. */
    const char *path = (const char *)phr_data(phr_input(ctx, 0)) + sizeof wanted;
    for (uint32_t i = 0; i < wanted.count; i++) {
        uint64_t begin = clock_ns();
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        out.ns[i] = clock_ns() - begin;
        if (library == NULL)
            return phr_fail(ctx, 4, "%s", dlerror());
        dlclose(library);
    }
    return phr_respond(ctx, out.object);
}
