/* Sources that a rerun rule watches: what an attempt does depends on its number. */
#define _GNU_SOURCE
#include <pheromone.h>

#include "check.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Publishes each word of the input as a task of its own. */
PHR_FUNCTION(deal)
{
    char *words = strdup(phr_data(phr_input(ctx, 0))), *rest = words;

    for (char *word; (word = strtok_r(rest, " \n", &rest)) != NULL;)
        CHECK(phr_put(ctx, "tasks", word, word, strlen(word)) == PHR_OK);
    free(words);
    return PHR_OK;
}

/* The first attempt does what the task says; a further one does the task. */
PHR_FUNCTION(source)
{
    const phr_object *task = phr_input(ctx, 0);
    const char *how = phr_data(task);
    char text[64];

    /* Counted once, whichever attempts send it. */
    CHECK(phr_put(ctx, "notes", phr_key(task), "seen", 4) == PHR_OK);
    CHECK(phr_put(ctx, "notes", NULL, "seen", 4) == PHR_OK);
    if (phr_attempt(ctx) == 1 || strcmp(how, "always") == 0) {
        if (strcmp(how, "hangs") == 0)
            for (;;)
                pause();
        if (strcmp(how, "crashes") == 0)
            raise(SIGSEGV);
        if (strcmp(how, "fails") == 0)
            return phr_fail(ctx, 5, "not at once");
        if (strcmp(how, "nothing") == 0 || strcmp(how, "always") == 0)
            return PHR_OK;
    }
    snprintf(text, sizeof text, "%s in attempt %u", how, phr_attempt(ctx));
    return phr_put(ctx, "results", phr_key(task), text, strlen(text));
}

/* The first attempt sends late, as late as the second one is done; both send the same. */
PHR_FUNCTION(slow)
{
    const phr_object *task = phr_input(ctx, 0);
    char text[64];

    if (phr_attempt(ctx) == 1)
        while (!phr_cancelled(ctx))
            usleep(1000);
    /* Of an attempt that is cancelled nothing arrives any more, which is no failure of it. */
    snprintf(text, sizeof text, "%s in attempt %u", phr_key(task), phr_attempt(ctx));
    return phr_put(ctx, "results", phr_key(task), text, strlen(text));
}

/* The first attempt needs as long as a rule gives it and longer, and ends first. */
PHR_FUNCTION(late)
{
    const phr_object *task = phr_input(ctx, 0);

    if (phr_attempt(ctx) == 1)
        usleep(600 * 1000);
    CHECK(phr_put(ctx, "notes", phr_key(task), "seen", 4) == PHR_OK);
    CHECK(phr_put(ctx, "notes", NULL, "seen", 4) == PHR_OK);
    CHECK(phr_put(ctx, "results", phr_key(task), "late", 4) == PHR_OK);
    if (phr_attempt(ctx) == 2)
        while (!phr_cancelled(ctx))
            usleep(1000);
    return PHR_OK;
}

/* Answers with a line for each result, in order of keys. */
PHR_FUNCTION(finish)
{
    char *text = NULL;
    size_t size;
    FILE *lines = open_memstream(&text, &size);

    for (size_t i = 0; i < phr_input_count(ctx); i++)
        fprintf(lines, "%s\n", (const char *)phr_data(phr_input(ctx, i)));
    fclose(lines);
    phr_status status = phr_respond_data(ctx, text, size);
    free(text);
    return status;
}

/* Leaves a mark for each note. */
PHR_FUNCTION(note)
{
    FILE *marks = fopen("notes.txt", "a");

    CHECK(marks != NULL);
    fprintf(marks, "%s\n", phr_key(phr_input(ctx, 0))[0] == '~' ? "automatic" : "named");
    CHECK(fclose(marks) == 0);
    return PHR_OK;
}
