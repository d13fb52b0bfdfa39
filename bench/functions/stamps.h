/*
 * The clock and the log that the benchmarks' functions share.
 *
 * Every process keeps a static log, one entry per step of a run; the last step answers with the
 * log of its process, and `collect` with that of whichever process it runs in. An entry names its
 * run, so that nothing need be cleared between runs.
 */
#ifndef PHEROMONE_BENCH_STAMPS_H
#define PHEROMONE_BENCH_STAMPS_H

#include <pheromone.h>
#include <string.h>
#include <time.h>

#ifdef BENCH_TSC
#include <x86intrin.h>
#endif

/* Steps of one run, at most: 24 MiB of log, of which only what is used is ever touched. */
#define STEPS_MAX (1u << 20)

/* Which step of which run this is: what the harness sends, and what one step tells the next. */
typedef struct step {
    uint32_t run;    /* chosen by the harness, never 0 and never twice in a process */
    uint32_t index;  /* from 0 */
    uint32_t length; /* index of the last step */
    uint32_t reserved;
} step;

typedef struct entry {
    uint64_t run;
    uint64_t start_ticks; /* the first thing that the function did */
    uint64_t send_ticks;  /* just before it sent; 0 where nobody asks */
} entry;

/* Both clocks at one moment: from two of them the harness learns how long a tick is. */
typedef struct moment {
    uint64_t ticks, ns;
} moment;

/* What an answer begins with; `count` entries follow. */
typedef struct answer_head {
    moment begin; /* when the library was loaded */
    moment end;   /* when the answer was made */
    uint64_t count;
} answer_head;

static entry steps[STEPS_MAX + 1];
static moment loaded;

static inline uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t ticks(void)
{
#ifdef BENCH_TSC
    return __rdtsc();
#else
    return clock_ns();
#endif
}

/* The closest of several tries: between two readings the process may lose its core. */
static inline moment both_clocks(void)
{
    moment best = {0, 0};
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        uint64_t before = clock_ns();
        uint64_t between = ticks();
        uint64_t after = clock_ns();
        if (after - before < narrowest) {
            narrowest = after - before;
            best.ticks = between;
            best.ns = before + (after - before) / 2;
        }
    }
    return best;
}

__attribute__((constructor)) static void note_load(void)
{
    loaded = both_clocks();
}

static inline int respond_with_steps(phr_ctx *ctx, uint32_t length)
{
    answer_head head = {loaded, both_clocks(), (uint64_t)length + 1};
    size_t entries_size = (size_t)head.count * sizeof(entry);
    phr_object *answer = phr_create(ctx, NULL, NULL, sizeof head + entries_size);
    if (answer == NULL)
        return phr_last_status(ctx);
    char *to = (char *)phr_buffer(answer);
    memcpy(to, &head, sizeof head);
    memcpy(to + sizeof head, steps, entries_size);
    return phr_respond(ctx, answer);
}

/* The step in the first input, or a failure that says what came instead. */
static inline int read_step(phr_ctx *ctx, step *into)
{
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof *into)
        return phr_fail(ctx, 1, "a step has %zu bytes, and %zu came", sizeof *into, phr_size(in));
    memcpy(into, phr_data(in), sizeof *into);
    if (into->length > STEPS_MAX || into->index > into->length)
        return phr_fail(ctx, 1, "step %u of %u is beyond the log", into->index, into->length);
    return PHR_OK;
}

/* Answers with the log of the process it happens to run in, and stays there for a moment, so that
 * the next one like it goes to another process. */
PHR_FUNCTION(collect)
{
    step wanted;
    int status = read_step(ctx, &wanted);
    if (status != PHR_OK)
        return status;
    status = respond_with_steps(ctx, wanted.length);
    struct timespec stay = {0, 5000000};
    nanosleep(&stay, NULL);
    return status;
}

#endif
