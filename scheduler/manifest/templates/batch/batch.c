/* answer_all: answers every caller of a batch by itself. */
#include <pheromone.h>

#include <stdio.h>

#define ANSWER_BYTES 64

static size_t words_of(const unsigned char *text, size_t size)
{
    size_t words = 0;
    int inside = 0;

    for (size_t i = 0; i < size; i++) {
        int is_space = text[i] <= ' ';
        words += !is_space && !inside;
        inside = !is_space;
    }
    return words;
}

PHR_FUNCTION(answer_all)
{
    /* What is done once for the whole batch goes here. */
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *question = phr_input(ctx, i);
        if (phr_size(question) == 0) {
            /* Fails this caller, and nobody else. */
            phr_fail_session(ctx, phr_object_session(question), 1, "an empty question");
            continue;
        }
        phr_object *answer = phr_create(ctx, NULL, NULL, ANSWER_BYTES);
        if (answer == NULL)
            return phr_last_status(ctx);
        size_t words = words_of(phr_data(question), phr_size(question));
        int length = snprintf(phr_buffer(answer), ANSWER_BYTES, "%zu words\n", words);
        phr_truncate(answer, (size_t)length);
        phr_status status = phr_respond_to(ctx, question, answer);
        if (status != PHR_OK)
            return status;
    }
    return PHR_OK;
}
