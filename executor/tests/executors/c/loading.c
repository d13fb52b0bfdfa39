/* Initializers, local state, names that clash. */
#include <pheromone.h>

#include <math.h>
#include <string.h>

static int initialized;
static int shared;

static void forget(void *pointer)
{
    printf("destroyed %s\n", (const char *)pointer);
}

PHR_INIT(prepared)
{
    initialized++;
    printf("initializing\n");
    if (phr_input_count(ctx) != 0 || phr_input(ctx, 0) != NULL)
        return phr_fail(ctx, 2, "it has inputs");
    if (phr_put(ctx, "out", NULL, "x", 1) != PHR_EPERM)
        return phr_fail(ctx, 2, "it may publish");
    if (strcmp(phr_config(ctx, "model"), "a.bin") != 0)
        return phr_fail(ctx, 2, "no config");
    return phr_set_local(ctx, "the model", forget);
}

PHR_FUNCTION(prepared)
{
    if (initialized != 1)
        return phr_fail(ctx, 2, "initialized %d times", initialized);
    if (phr_last_status(ctx) != PHR_OK)
        return phr_fail(ctx, 2, "an error of the initializer is still there");
    shared++;
    return strcmp((const char *)phr_local(ctx), "the model") == 0 ? PHR_OK : 1;
}

PHR_FUNCTION(unprepared)
{
    if (phr_local(ctx) != NULL)
        return phr_fail(ctx, 2, "another function's pointer");
    if (shared == 0)
        return phr_fail(ctx, 2, "statics are not shared");
    return phr_set_local(ctx, "a", forget) || phr_set_local(ctx, "b", forget);
}

PHR_INIT(broken)
{
    return phr_fail(ctx, 7, "no model here");
}

PHR_FUNCTION(broken)
{
    (void)ctx;
    return PHR_OK;
}

static double volatile two = 2.0;

/* Exported as `log`, and calls the C library's. */
PHR_FUNCTION_AS(clashing, "log")
{
    if (fabs(log(two) - 0.6931) > 0.001)
        return phr_fail(ctx, 1, "log is not the C library's");
    return PHR_OK;
}

PHR_TRIGGER(decide)
{
    (void)t;
    (void)events;
    return (int)count;
}

int unmarked(phr_ctx *ctx)
{
    (void)ctx;
    return 0;
}
