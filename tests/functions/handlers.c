/* Functions that fail in many ways, and those that handle what has failed. */
#define _GNU_SOURCE
#include <pheromone.h>

#include "check.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Publishes each word of the input into `jobs`, under the word itself. */
PHR_FUNCTION(deal)
{
    char *words = strdup(phr_data(phr_input(ctx, 0))), *rest = words;

    for (char *word; (word = strtok_r(rest, " \n", &rest)) != NULL;)
        CHECK(phr_put(ctx, "jobs", word, word, strlen(word)) == PHR_OK);
    free(words);
    return PHR_OK;
}

/* Does to its caller what its input says. */
static int fare(phr_ctx *ctx, const char *how)
{
    if (strcmp(how, "returns") == 0)
        return phr_fail(ctx, 7, "no %s today", "bread");
    if (strcmp(how, "forbids") == 0)
        return phr_fail(ctx, PHR_PERMANENT(9), "never again");
    if (strcmp(how, "dies") == 0)
        raise(SIGSEGV);
    if (strcmp(how, "exits") == 0)
        exit(3);
    if (strcmp(how, "hangs") == 0)
        for (;;)
            pause();
    return PHR_OK;
}

PHR_FUNCTION(work)
{
    const phr_object *job = phr_input(ctx, 0);
    int returned = fare(ctx, phr_data(job));

    if (returned != PHR_OK)
        return returned;
    return phr_forward(ctx, job, "done", phr_key(job));
}

/* Fails by a name that a phr_failure just has room for. */
PHR_FUNCTION(work_with_a_name_as_long_as_the_name_of_a_function_may_ever_be_)
{
    return fare(ctx, phr_data(phr_input(ctx, 0)));
}

/* Repairs a failure: what could not be done is done, with a note of how it had failed. */
PHR_FUNCTION(handle)
{
    const phr_object *object = phr_input(ctx, 0);
    const phr_failure *failure = phr_data(object);
    const phr_object *job = phr_failed_input(object, 0);
    char key[300], note[2048];

    CHECK(phr_size(object) == sizeof *failure && failure->struct_size == sizeof *failure);
    CHECK(phr_key(object)[0] == '~' && strchr(phr_key(object), '.') == NULL);
    CHECK(strncmp(phr_group(object), failure->function, strlen(failure->function)) == 0);
    CHECK(phr_failed_input_count(object) == 1 && job != NULL);
    CHECK(phr_failed_input(object, 1) == NULL && phr_failed_input_count(job) == 0);
    CHECK(strcmp(phr_key(job), phr_data(job)) == 0);
    CHECK(phr_forward(ctx, job, "done", phr_key(job)) == PHR_OK);
    snprintf(key, sizeof key, "%s-how", phr_key(job));
    snprintf(note, sizeof note, "%s attempt=%u status=%d signal=%d: %s", failure->function,
             failure->attempt, failure->status, failure->signal, failure->message);
    return phr_put(ctx, "done", key, note, strlen(note));
}

/* Passes a failure on, under another name. */
PHR_FUNCTION(pass_on)
{
    return phr_forward(ctx, phr_input(ctx, 0), "passed", "failure");
}

/* Answers with what the failed invocation had been given. */
PHR_FUNCTION(answer_with_its_input)
{
    const phr_object *job = phr_failed_input(phr_input(ctx, 0), 0);

    CHECK(job != NULL);
    return phr_respond_parts(ctx, &job, 1);
}

/* Fails on whatever it is to handle. */
PHR_FUNCTION(mishandle)
{
    return phr_fail(ctx, 3, "this one cannot be handled either");
}

/* Answers with a line for each input, in order. */
PHR_FUNCTION(finish)
{
    char *text = NULL;
    size_t size;
    FILE *lines = open_memstream(&text, &size);

    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *in = phr_input(ctx, i);
        fprintf(lines, "%s = %s\n", phr_key(in), (const char *)phr_data(in));
    }
    fclose(lines);
    phr_status status = phr_respond_data(ctx, text, size);
    free(text);
    return status;
}
