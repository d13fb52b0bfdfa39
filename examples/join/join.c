/*
 * A join over branches that are known only at run time. `split` finds the poems of a text (a line
 * "# TITLE" begins one) and sends each as a range of the request; `measure` counts the lines, words
 * and longest word of one; `table` runs when all have been measured, in the order of the text.
 *
 * A word is a run of letters and apostrophes.
 */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* Room for "poem-" and the digits of any number. */
#define KEY_SIZE 32
/* Longest title printed. */
#define TITLE_MAX 60

/* Part of the request: bytes begin to end (not included). */
struct range {
    uint64_t begin;
    uint64_t end;
};

/* One row of the table. */
struct measure {
    struct range title;
    struct range longest; /* the longest word; of several, the first */
    uint64_t lines;
    uint64_t words;
};

/* The end of the line that begins at `at`, without its line feed. */
static size_t line_end(const char *text, size_t end, size_t at)
{
    const char *feed = memchr(text + at, '\n', end - at);
    return feed == NULL ? end : (size_t)(feed - text);
}

/* Where the next poem at or after a line's beginning begins; `size` where there is none. */
static size_t next_poem(const char *text, size_t size, size_t at)
{
    while (at < size && text[at] != '#') {
        at = line_end(text, size, at);
        at += at < size; /* the line feed */
    }
    return at;
}

/* The range of the next poem at or after `at`; 0 where there is none. */
static int find_poem(const char *text, size_t size, size_t at, struct range *poem)
{
    poem->begin = next_poem(text, size, at);
    if (poem->begin == size)
        return 0;
    size_t after_title = line_end(text, size, poem->begin);
    poem->end = next_poem(text, size, after_title + (after_title < size));
    return 1;
}

PHR_FUNCTION(split)
{
    const phr_object *request = phr_input(ctx, 0);
    const char *text = phr_data(request);
    size_t size = phr_size(request), count = 0;
    struct range poem;

    for (size_t at = 0; find_poem(text, size, at, &poem); at = poem.end)
        count++;

    /* The list says what the join waits for, and in which order it wants it. It may be sent before
     * or after the branches: here before. A list of nothing fires at once. */
    char (*names)[KEY_SIZE] = calloc(count + 1, sizeof *names);
    const char **keys = calloc(count + 1, sizeof *keys);
    phr_status status = PHR_OK;
    if (names == NULL || keys == NULL)
        status = phr_fail(ctx, 2, "no memory for the keys of %zu poems", count);
    for (size_t i = 0; status == PHR_OK && i < count; i++) {
        snprintf(names[i], sizeof names[i], "poem-%zu", i);
        keys[i] = names[i];
    }
    if (status == PHR_OK)
        status = phr_join(ctx, "measures", "all-poems", keys, count);

    size_t at = 0;
    for (size_t i = 0; status == PHR_OK && i < count; i++) {
        find_poem(text, size, at, &poem);
        status = phr_put(ctx, "poems", keys[i], &poem, sizeof poem);
        at = poem.end;
    }
    free(keys);
    free(names);
    return status;
}

static int is_of_a_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\'';
}

/* Adds the words of the line `at` to `end`. */
static void measure_line(const char *text, size_t at, size_t end, struct measure *measure)
{
    while (at < end) {
        size_t begin = at;
        while (at < end && is_of_a_word(text[at]))
            at++;
        if (at == begin) {
            at++;
            continue;
        }
        measure->words++;
        if (at - begin > measure->longest.end - measure->longest.begin) {
            measure->longest.begin = begin;
            measure->longest.end = at;
        }
    }
}

PHR_FUNCTION(measure)
{
    const phr_object *request = phr_request(ctx);
    const struct range *poem = phr_data(phr_input(ctx, 0));

    if (request == NULL)
        return phr_last_status(ctx);
    const char *text = phr_data(request);
    struct measure measure = { { 0, 0 }, { 0, 0 }, 0, 0 };
    size_t at = line_end(text, poem->end, poem->begin);
    measure.title.begin = poem->begin + 1; /* past the # */
    measure.title.end = at;
    while (at < poem->end) {
        size_t begin = at + 1;
        at = line_end(text, poem->end, begin);
        measure.lines += at > begin; /* empty ones part stanzas */
        measure_line(text, begin, at, &measure);
    }
    /* Under the key of its poem, which is the one that the list has. */
    return phr_put(ctx, "measures", phr_key(phr_input(ctx, 0)), &measure, sizeof measure);
}

/* One row into `room` bytes at `to`; its length, as snprintf has it. */
static size_t write_row(char *to, size_t room, const char *text, const struct measure *measure)
{
    size_t title = measure->title.end - measure->title.begin;
    size_t longest = measure->longest.end - measure->longest.begin;
    size_t skipped = title > 0 && text[measure->title.begin] == ' ';

    title -= skipped;
    return (size_t)snprintf(to, room, "%4llu lines %5llu words  %.*s (longest word: %.*s)\n",
                            (unsigned long long)measure->lines,
                            (unsigned long long)measure->words,
                            (int)(title < TITLE_MAX ? title : TITLE_MAX),
                            text + measure->title.begin + skipped, (int)longest,
                            text + measure->longest.begin);
}

PHR_FUNCTION(table)
{
    const phr_object *request = phr_request(ctx);
    size_t count = phr_input_count(ctx), size = 0;

    if (request == NULL)
        return phr_last_status(ctx);
    const char *text = phr_data(request);
    for (size_t i = 0; i < count; i++)
        size += write_row(NULL, 0, text, phr_data(phr_input(ctx, i)));

    phr_object *response = phr_create(ctx, NULL, NULL, size + 1); /* snprintf ends with a zero */
    if (response == NULL)
        return phr_last_status(ctx);
    char *to = phr_buffer(response);
    for (size_t i = 0, done = 0; i < count; i++)
        done += write_row(to + done, size + 1 - done, text, phr_data(phr_input(ctx, i)));
    phr_status status = phr_truncate(response, size);
    if (status != PHR_OK)
        return status;
    phr_set_response_type(ctx, "text/plain");
    return phr_respond(ctx, response);
}
