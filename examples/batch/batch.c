/*
 * batch.c - how often a word is in a text: a batch of questions is answered by one pass over it.
 *
 * The text is mapped once per process. A pass looks each word of it up in a small table of those
 * that were asked for, so that 32 questions cost little more than one.
 */
#include <pheromone.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS 1024 /* of the table; a power of two, far above the questions of a batch */
#define QUESTIONS_MAX (SLOTS / 2)
#define ANSWER_BYTES 32

struct text {
    const char *bytes;
    size_t size;
};

/* A word that somebody has asked for. */
struct asked {
    const char *word;
    size_t length;
    uint64_t count;
};

static int is_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static unsigned char small(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
}

static int same(const char *a, const char *b, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (small((unsigned char)a[i]) != small((unsigned char)b[i]))
            return 0;
    return 1;
}

/* The slot of a word: its own, or the free one that would be (FNV-1a, linear probing). */
static struct asked *find(struct asked *table, const char *word, size_t length)
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ small((unsigned char)word[i])) * 1099511628211u;
    for (size_t at = hash % SLOTS;; at = (at + 1) % SLOTS) {
        struct asked *slot = &table[at];

        if (slot->word == NULL || (slot->length == length && same(slot->word, word, length)))
            return slot;
    }
}

PHR_INIT(look_up)
{
    static struct text text;
    const char *path = phr_config(ctx, "text");
    const int file = open(path ? path : "", O_RDONLY);
    struct stat status;

    if (file < 0 || fstat(file, &status) != 0)
        return phr_fail(ctx, 1, "cannot open the text `%s`", path ? path : "");
    text.size = (size_t)status.st_size;
    text.bytes = text.size ? mmap(NULL, text.size, PROT_READ, MAP_PRIVATE, file, 0) : "";
    close(file);
    if (text.bytes == MAP_FAILED)
        return phr_fail(ctx, 1, "cannot map the text `%s`", path);
    return phr_set_local(ctx, &text, NULL);
}

/* The word that a question is: what is before its first line end. */
static size_t word_of(const phr_object *question)
{
    const char *word = phr_data(question);
    size_t length = 0;

    while (length < phr_size(question) && is_letter((unsigned char)word[length]))
        length++;
    return length;
}

static void count_all(const struct text *text, struct asked *table)
{
    for (size_t i = 0; i < text->size;) {
        size_t start = i;

        while (i < text->size && is_letter((unsigned char)text->bytes[i]))
            i++;
        if (i > start) {
            struct asked *slot = find(table, text->bytes + start, i - start);

            slot->count += slot->word != NULL;
        } else {
            i++;
        }
    }
}

static phr_status answer(phr_ctx *ctx, const phr_object *question, uint64_t count)
{
    phr_object *object = phr_create(ctx, NULL, NULL, ANSWER_BYTES);
    int length;

    if (object == NULL)
        return phr_last_status(ctx);
    length = snprintf(phr_buffer(object), ANSWER_BYTES, "%llu\n", (unsigned long long)count);
    phr_truncate(object, (size_t)length);
    return phr_respond_to(ctx, question, object);
}

PHR_FUNCTION(look_up)
{
    struct asked table[SLOTS] = { { NULL, 0, 0 } };
    const size_t questions = phr_input_count(ctx);

    if (questions > QUESTIONS_MAX)
        return phr_fail(ctx, 1, "a batch of %zu; write a `count` of at most %d", questions,
                        QUESTIONS_MAX);
    for (size_t i = 0; i < questions; i++) {
        const phr_object *question = phr_input(ctx, i);
        const size_t length = word_of(question);

        if (length > 0) {
            struct asked *slot = find(table, phr_data(question), length);

            slot->word = phr_data(question);
            slot->length = length;
        }
    }
    count_all(phr_local(ctx), table);
    for (size_t i = 0; i < questions; i++) {
        const phr_object *question = phr_input(ctx, i);
        const size_t length = word_of(question);
        phr_status status = PHR_OK;

        if (length == 0)
            status = phr_fail_session(ctx, phr_object_session(question), 1,
                                      "a question is one word");
        else
            status = answer(ctx, question, find(table, phr_data(question), length)->count);
        if (status != PHR_OK)
            return status;
    }
    return PHR_OK;
}
