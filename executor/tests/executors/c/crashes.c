/* Functions that end badly, each after a line of output; the last is not ended. */
#define _GNU_SOURCE
#include <pheromone.h>

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *what)
{
    printf("about to %s\n", what);
    fprintf(stderr, "really");
}

PHR_FUNCTION(crash_abort)
{
    (void)ctx;
    say("abort");
    abort();
}

PHR_FUNCTION(crash_assert)
{
    say("fail an assertion");
    assert(ctx == NULL);
    return 0;
}

PHR_FUNCTION(crash_null)
{
    volatile int *nothing = NULL;

    (void)ctx;
    say("write to NULL");
    *nothing = 1;
    return 0;
}

PHR_FUNCTION(crash_input)
{
    say("write to an input");
    *(volatile char *)phr_data(phr_input(ctx, 0)) = 'x';
    return 0;
}

/* Writes on past its own object until something stops it. */
PHR_FUNCTION(crash_past_region)
{
    volatile char *at = (volatile char *)phr_buffer(phr_create(ctx, "out", NULL, 100));

    say("write past the region");
    for (;; at += 4096)
        *at = 'x';
}

PHR_FUNCTION(crash_exit)
{
    (void)ctx;
    say("exit");
    exit(7);
}

static int deeper(int depth)
{
    volatile char room[100000];

    room[0] = (char)depth;
    return depth < 0 ? room[0] : deeper(depth + 1) + room[0];
}

PHR_FUNCTION(crash_stack)
{
    (void)ctx;
    say("recurse");
    return deeper(1);
}

PHR_FUNCTION(crash_divide)
{
    volatile int zero = 0;

    (void)ctx;
    say("divide");
    return 1000 / zero;
}

PHR_FUNCTION(crash_wild)
{
    (void)ctx;
    say("follow a wild pointer");
    return *(volatile int *)0x4141414141414141;
}

PHR_FUNCTION(crash_kill)
{
    (void)ctx;
    say("kill itself");
    kill(getpid(), SIGKILL);
    return 0;
}

PHR_FUNCTION(prints)
{
    printf("one\n");
    printf("tw");
    fflush(stdout);
    printf("o\n");
    puts("three");
    fprintf(stderr, "four");
    phr_log(ctx, PHR_WARN, "five %d\nsix", 5);
    if (write(1, "raw\n", 4) != 4)
        return 1;
    return PHR_OK;
}

PHR_FUNCTION(prints_much)
{
    int i;

    for (i = 0; i < 3000; i++)
        printf("%0100d\n", i);
    (void)ctx;
    return PHR_OK;
}
