/* A function that tells when its process got as far as this, and then keeps its process. */
#include "stamps.h"

#define LOOK_NS 1000000

/* What the harness sends. */
typedef struct order {
    uint32_t holds; /* until its session is cancelled, so that the next call needs a process more */
    uint32_t reserved;
} order;

/* Both clocks at one place: the monotonic one, and the processor time that this process has used
 * since it was forked. */
typedef struct mark {
    uint64_t at_ns;
    uint64_t used_ns;
} mark;

typedef struct marks {
    mark loaded; /* by a constructor of this library */
    mark first;  /* the function's first instruction in this process */
    mark now;    /* its first instruction in this call */
} marks;

static marks known;

static mark here(void)
{
    struct timespec used;
    mark now = {.at_ns = clock_ns()};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    now.used_ns = (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
    return now;
}

__attribute__((constructor)) static void mark_load(void)
{
    known.loaded = here();
}

PHR_FUNCTION(starts)
{
    known.now = here();
    if (known.first.at_ns == 0)
        known.first = known.now;
    order wanted;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof wanted)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof wanted,
                        phr_size(in));
    memcpy(&wanted, phr_data(in), sizeof wanted);
    int status = phr_respond_data(ctx, &known, sizeof known);
    struct timespec look = {0, LOOK_NS};
    while (status == PHR_OK && wanted.holds && !phr_cancelled(ctx))
        nanosleep(&look, NULL);
    return status;
}
