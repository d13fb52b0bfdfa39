/* A function whose first attempt dies, and whose second tells how long that took to be mended. */
#include <signal.h>
#include <stdlib.h>

#include "stamps.h"

/* What the harness sends. */
typedef struct order {
    uint32_t signal;
    uint32_t reserved;
} order;

PHR_FUNCTION(crashes)
{
    uint64_t now = clock_ns();
    order wanted;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof wanted)
        return phr_fail(ctx, 1, "an order has %zu bytes, and %zu came", sizeof wanted,
                        phr_size(in));
    memcpy(&wanted, phr_data(in), sizeof wanted);
    if (phr_attempt(ctx) == 1) {
        /* What is sent stays, whatever becomes of its sender. */
        uint64_t died = clock_ns();
        int status = phr_put(ctx, "stamps", "died", &died, sizeof died);
        if (status != PHR_OK)
            return status;
        if (wanted.signal == SIGABRT)
            abort();
        raise((int)wanted.signal);
        return phr_fail(ctx, 2, "signal %u does not end a process", wanted.signal);
    }
    const phr_object *died = phr_get(ctx, "stamps", "died", 0);
    if (died == NULL)
        return phr_last_status(ctx);
    uint64_t took = now - *(const uint64_t *)phr_data(died);
    return phr_respond_data(ctx, &took, sizeof took);
}
