/*
 * failures.c - functions that fail, each in a way of its own, after saying their last words.
 */
#include "check.h"

#include <signal.h>
#include <unistd.h>

/* Two lines, one on each stream; a plain pipe would lose both at an abort. */
static void last_words(void)
{
    printf("the last words on stdout\n");
    fprintf(stderr, "the last words on stderr\n");
}

PHR_FUNCTION(returns_an_error)
{
    last_words();
    return phr_fail(ctx, 7, "the table %s is missing", "of contents");
}

PHR_FUNCTION(returns_a_status_alone)
{
    (void)ctx;
    last_words();
    return 42;
}

PHR_FUNCTION(fails_for_good)
{
    last_words();
    return phr_fail(ctx, PHR_PERMANENT(9), "never again");
}

PHR_FUNCTION(passes_a_status_on)
{
    last_words();
    return phr_put(ctx, "no such bucket", "k", "x", 1);
}

PHR_FUNCTION(aborts)
{
    (void)ctx;
    last_words();
    abort();
}

PHR_FUNCTION(dereferences_null)
{
    volatile int *volatile nowhere = NULL;

    (void)ctx;
    last_words();
    return *nowhere;
}

PHR_FUNCTION(exits)
{
    (void)ctx;
    last_words();
    exit(3);
}

PHR_FUNCTION(exits_as_if_well)
{
    (void)ctx;
    last_words();
    exit(0);
}

/* Its input lies in a region that it may only read. */
PHR_FUNCTION(writes_into_its_input)
{
    char *bytes = (char *)(uintptr_t)phr_data(phr_input(ctx, 0));

    last_words();
    *(volatile char *)bytes = 'x';
    return PHR_OK;
}

/* From its own buffer upwards, in strides, until something stops it. */
PHR_FUNCTION(writes_past_its_region)
{
    phr_object *out = phr_create(ctx, NULL, NULL, 64);
    volatile char *bytes;

    if (out == NULL)
        return phr_last_status(ctx);
    bytes = (volatile char *)phr_buffer(out);
    last_words();
    for (size_t i = 0; i < (size_t)1 << 46; i += (size_t)256 << 20)
        bytes[i] = 'x';
    return PHR_OK;
}

/* Deeper and deeper; the handler of the crash must not need that stack. */
PHR_FUNCTION(overflows_its_stack)
{
    volatile char here[65536];

    here[0] = (char)phr_input_count(ctx);
    return here[0] ? overflows_its_stack(ctx) + here[0] : 0;
}

PHR_FUNCTION(is_killed)
{
    (void)ctx;
    last_words();
    raise(SIGKILL);
    return PHR_OK;
}

PHR_FUNCTION(never_returns)
{
    (void)ctx;
    last_words();
    for (;;)
        pause();
}

/* Answers, and fails afterwards. */
PHR_FUNCTION(answers_and_fails)
{
    OK(phr_respond_data(ctx, "an answer", 9));
    return phr_fail(ctx, 5, "too bad");
}

/* Crashes at every even number, answers at every odd one. */
PHR_FUNCTION(crashes_at_even_numbers)
{
    const long number = number_in(phr_input(ctx, 0));

    if (number % 2 == 0)
        abort();
    return phr_respond_data(ctx, "odd", 3);
}
