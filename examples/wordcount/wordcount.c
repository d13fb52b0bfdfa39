/*
 * Word count. No text is copied: `split` sends eight ranges of the request, `count` looks at its
 * range of the request and sends a tally per distinct word (where the word stands, and how often),
 * and `merge` adds the tallies up and writes the words once, into the response.
 *
 * A word is a run of the letters A to Z and a to z; upper and lower case count as the same.
 */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* As many as app.toml's `keys = ["part-{0..7}"]`. */
#define PARTS 8

/* A part of the request: bytes begin to end (not included). */
struct range {
    uint64_t begin;
    uint64_t end;
};

/* A word, as the place in the request where it was first met, and how often it was. */
struct tally {
    uint64_t begin;
    uint64_t length;
    uint64_t count;
};

/* Distinct words with their tallies: open addressing, a power of two of slots, at most half used.
 * A slot with count 0 is free. */
struct table {
    const char *text;
    struct tally *slots;
    size_t slot_count;
    size_t used;
};

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char lower(char c)
{
    return (c >= 'A' && c <= 'Z') ? (char)(c + ('a' - 'A')) : c;
}

/* FNV-1a over the lower-cased letters. */
static uint64_t hash_of(const char *word, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)lower(word[i])) * 0x100000001b3u;
    return hash ^ (hash >> 32);
}

/* The order of `sort`: by bytes, a word before those that it begins. */
static int compare_words(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t shorter = a_length < b_length ? a_length : b_length;
    for (size_t i = 0; i < shorter; i++) {
        int difference = lower(a[i]) - lower(b[i]);
        if (difference != 0)
            return difference;
    }
    return a_length < b_length ? -1 : a_length > b_length;
}

static int table_init(struct table *table, const char *text, size_t slot_count)
{
    table->text = text;
    table->slot_count = slot_count;
    table->used = 0;
    table->slots = calloc(slot_count, sizeof *table->slots);
    return table->slots != NULL;
}

/* Adds without growing: there is a free slot. */
static void table_place(struct table *table, const struct tally *more)
{
    const char *word = table->text + more->begin;
    size_t at = (size_t)hash_of(word, more->length) & (table->slot_count - 1);
    for (;;) {
        struct tally *slot = &table->slots[at];
        if (slot->count == 0) {
            *slot = *more;
            table->used++;
            return;
        }
        if (compare_words(table->text + slot->begin, slot->length, word, more->length) == 0) {
            slot->count += more->count;
            return;
        }
        at = (at + 1) & (table->slot_count - 1);
    }
}

static int table_add(struct table *table, const struct tally *more)
{
    if (2 * (table->used + 1) > table->slot_count) {
        struct table larger;
        if (!table_init(&larger, table->text, 2 * table->slot_count))
            return 0;
        for (size_t i = 0; i < table->slot_count; i++)
            if (table->slots[i].count != 0)
                table_place(&larger, &table->slots[i]);
        free(table->slots);
        *table = larger;
    }
    table_place(table, more);
    return 1;
}

/* Moves the tallies to the front of the slots, in no order. The table is of no further use. */
static void table_pack(struct table *table)
{
    size_t packed = 0;
    for (size_t i = 0; i < table->slot_count; i++)
        if (table->slots[i].count != 0)
            table->slots[packed++] = table->slots[i];
}

/* The first place at or after `at` where no word is cut in two. */
static size_t word_boundary(const char *text, size_t size, size_t at)
{
    while (at < size && is_letter(text[at]))
        at++;
    return at;
}

PHR_FUNCTION(split)
{
    const phr_object *request = phr_input(ctx, 0);
    const char *text = phr_data(request);
    size_t size = phr_size(request);
    struct range range = { 0, 0 };

    for (unsigned part = 0; part < PARTS; part++) {
        char key[16];
        /* size * (part + 1) / PARTS, without a product that overflows. */
        size_t end = size / PARTS * (part + 1) + size % PARTS * (part + 1) / PARTS;
        range.end = word_boundary(text, size, end > range.begin ? end : range.begin);
        snprintf(key, sizeof key, "part-%u", part);
        phr_status status = phr_put(ctx, "parts", key, &range, sizeof range);
        if (status != PHR_OK)
            return status;
        range.begin = range.end;
    }
    return PHR_OK;
}

PHR_FUNCTION(count)
{
    const phr_object *request = phr_request(ctx);
    const phr_object *part = phr_input(ctx, 0);
    const struct range *range = phr_data(part);
    struct table table;

    if (request == NULL)
        return phr_last_status(ctx);
    if (phr_size(part) != sizeof *range || range->end > phr_size(request))
        return phr_fail(ctx, PHR_PERMANENT(1), "%s is not a range of the request", phr_key(part));
    if (!table_init(&table, phr_data(request), 1024))
        return phr_fail(ctx, 2, "out of memory");

    const char *text = table.text;
    size_t at = range->begin;
    while (at < range->end) {
        if (!is_letter(text[at])) {
            at++;
            continue;
        }
        struct tally word = { at, word_boundary(text, range->end, at) - at, 1 };
        if (!table_add(&table, &word)) {
            free(table.slots);
            return phr_fail(ctx, 2, "out of memory after %zu words", table.used);
        }
        at += word.length;
    }
    table_pack(&table);
    phr_status status = phr_put(ctx, "counts", phr_key(part), table.slots,
                                table.used * sizeof *table.slots);
    free(table.slots);
    return status;
}

/* The text that qsort's comparison looks at; an executor runs one invocation at a time. */
static const char *sorted_text;

/* Most frequent first, then by word. */
static int compare_tallies(const void *left, const void *right)
{
    const struct tally *a = left, *b = right;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    return compare_words(sorted_text + a->begin, a->length, sorted_text + b->begin, b->length);
}

/* "%7d word\n", as `uniq -c` writes it, into an object that becomes the response. */
static phr_status respond_with(phr_ctx *ctx, const char *text, const struct tally *tallies,
                               size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += (size_t)snprintf(NULL, 0, "%7llu \n", (unsigned long long)tallies[i].count)
                + tallies[i].length;

    phr_object *response = phr_create(ctx, NULL, NULL, size);
    if (response == NULL)
        return phr_last_status(ctx);
    char *to = phr_buffer(response);
    for (size_t i = 0; i < count; i++) {
        to += sprintf(to, "%7llu ", (unsigned long long)tallies[i].count);
        for (size_t j = 0; j < tallies[i].length; j++)
            *to++ = lower(text[tallies[i].begin + j]);
        *to++ = '\n';
    }
    phr_set_response_type(ctx, "text/plain");
    return phr_respond(ctx, response);
}

PHR_FUNCTION(merge)
{
    const phr_object *request = phr_request(ctx);
    struct table table;

    if (request == NULL)
        return phr_last_status(ctx);
    if (!table_init(&table, phr_data(request), 4096))
        return phr_fail(ctx, 2, "out of memory");
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *part = phr_input(ctx, i);
        const struct tally *tallies = phr_data(part);
        for (size_t j = 0; j < phr_size(part) / sizeof *tallies; j++) {
            if (!table_add(&table, &tallies[j])) {
                free(table.slots);
                return phr_fail(ctx, 2, "out of memory after %zu words", table.used);
            }
        }
    }
    table_pack(&table);
    sorted_text = table.text;
    qsort(table.slots, table.used, sizeof *table.slots, compare_tallies);
    phr_status status = respond_with(ctx, table.text, table.slots, table.used);
    free(table.slots);
    return status;
}
