/* split -> 4 x map -> 4 x reduce -> collect: how often each word occurs in a text. */
#include <pheromone.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAPPERS 4  /* the first number of the keys in bucket `partitions` */
#define REDUCERS 4 /* the second one */

/* --------------------------------------------------------------------------- a table of words */

/* Words lie in the inputs; the table only points at them. */
struct word {
    const char *text;
    size_t length;
    uint64_t hash;
    uint64_t count;
};

struct table {
    struct word *slots; /* a power of two of them, `text` NULL where free */
    size_t size;
    size_t used;
};

static uint64_t hash_of(const char *text, size_t length)
{
    uint64_t hash = 14695981039346656037ull; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((unsigned char)text[i] | 0x20)) * 1099511628211ull;
    return hash;
}

static int same_word(const struct word *word, const char *text, size_t length)
{
    if (word->length != length)
        return 0;
    for (size_t i = 0; i < length; i++)
        if ((word->text[i] | 0x20) != (text[i] | 0x20))
            return 0;
    return 1;
}

static struct word *slot_of(const struct table *table, const char *text, size_t length,
                            uint64_t hash)
{
    size_t at = hash & (table->size - 1);
    while (table->slots[at].text != NULL && !same_word(&table->slots[at], text, length))
        at = (at + 1) & (table->size - 1);
    return &table->slots[at];
}

static int grow(struct table *table)
{
    struct table larger = {.size = table->size == 0 ? 1024 : table->size * 2, .used = table->used};
    larger.slots = calloc(larger.size, sizeof *larger.slots);
    if (larger.slots == NULL)
        return -1;
    for (size_t i = 0; i < table->size; i++) {
        const struct word *word = &table->slots[i];
        if (word->text != NULL)
            *slot_of(&larger, word->text, word->length, word->hash) = *word;
    }
    free(table->slots);
    *table = larger;
    return 0;
}

static int add(struct table *table, const char *text, size_t length, uint64_t count)
{
    if (table->used * 2 >= table->size && grow(table) != 0)
        return -1;
    uint64_t hash = hash_of(text, length);
    struct word *word = slot_of(table, text, length, hash);
    if (word->text == NULL) {
        *word = (struct word){.text = text, .length = length, .hash = hash};
        table->used++;
    }
    word->count += count;
    return 0;
}

static int is_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* -------------------------------------------------------------------------------- the functions */

/* A part of the request. */
struct part {
    size_t first;
    size_t end;
};

PHR_FUNCTION(split)
{
    const phr_object *request = phr_input(ctx, 0);
    const char *text = phr_data(request);
    size_t size = phr_size(request), first = 0;
    for (int mapper = 0; mapper < MAPPERS; mapper++) {
        size_t end = mapper + 1 == MAPPERS ? size : size / MAPPERS * (size_t)(mapper + 1);
        if (end < first)
            end = first;
        while (end < size && is_letter((unsigned char)text[end]))
            end++; /* no word is cut in two */
        struct part part = {.first = first, .end = end};
        char key[16];
        snprintf(key, sizeof key, "%d", mapper);
        phr_status status = phr_put(ctx, "parts", key, &part, sizeof part);
        if (status != PHR_OK)
            return status;
        first = end;
    }
    return PHR_OK;
}

/* Sends the words of one partition as lines "word count". */
static int send_partition(phr_ctx *ctx, const struct table *table, int partition)
{
    size_t size = 0;
    for (size_t i = 0; i < table->size; i++)
        if (table->slots[i].text != NULL && table->slots[i].hash % REDUCERS == (uint64_t)partition)
            size += table->slots[i].length + 22; /* a space, 20 digits, a line's end */
    char key[32];
    snprintf(key, sizeof key, "%s-%d", phr_key(phr_input(ctx, 0)), partition);
    phr_object *out = phr_create(ctx, "partitions", key, size);
    if (out == NULL)
        return phr_last_status(ctx);

    char *to = phr_buffer(out);
    size_t length = 0;
    for (size_t i = 0; i < table->size; i++) {
        const struct word *word = &table->slots[i];
        if (word->text == NULL || word->hash % REDUCERS != (uint64_t)partition)
            continue;
        for (size_t j = 0; j < word->length; j++)
            to[length++] = (char)(word->text[j] | 0x20);
        length += (size_t)sprintf(to + length, " %llu\n", (unsigned long long)word->count);
    }
    phr_truncate(out, length);
    return phr_send(ctx, out);
}

PHR_FUNCTION(map)
{
    const phr_object *request = phr_request(ctx);
    struct part part;
    if (request == NULL)
        return phr_last_status(ctx);
    if (phr_size(phr_input(ctx, 0)) != sizeof part)
        return phr_fail(ctx, 1, "the input is no part of the request");
    memcpy(&part, phr_data(phr_input(ctx, 0)), sizeof part);

    const char *text = phr_data(request);
    struct table table = {0};
    int status = PHR_OK;
    for (size_t at = part.first; at < part.end && status == PHR_OK;) {
        size_t first = at;
        while (at < part.end && is_letter((unsigned char)text[at]))
            at++;
        if (at > first && add(&table, text + first, at - first, 1) != 0)
            status = phr_fail(ctx, 2, "no memory for %zu words", table.used);
        if (at == first)
            at++;
    }
    for (int partition = 0; partition < REDUCERS && status == PHR_OK; partition++)
        status = send_partition(ctx, &table, partition);
    free(table.slots);
    return status;
}

static int by_count(const void *a, const void *b)
{
    const struct word *left = a, *right = b;
    if (left->count != right->count)
        return left->count < right->count ? 1 : -1;
    size_t shorter = left->length < right->length ? left->length : right->length;
    int order = memcmp(left->text, right->text, shorter);
    return order != 0 ? order : (left->length > right->length) - (left->length < right->length);
}

/* Adds up the lines "word count" of all inputs into a new object, the most frequent word first. */
static int merge(phr_ctx *ctx, const char *bucket, const char *key, phr_object **out)
{
    struct table table = {0};
    int status = PHR_OK;
    size_t size = 0;
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const char *line = phr_data(phr_input(ctx, i)); /* a zero byte follows every payload */
        while (*line != '\0') {
            size_t length = strcspn(line, " ");
            char *end;
            uint64_t count = strtoull(line + length, &end, 10);
            if (length == 0 || *end != '\n') {
                status = phr_fail(ctx, 1, "input %zu is no list of words", i);
                goto out;
            }
            if (add(&table, line, length, count) != 0) {
                status = phr_fail(ctx, 2, "no memory for %zu words", table.used);
                goto out;
            }
            line = end + 1;
        }
        size += phr_size(phr_input(ctx, i));
    }
    size_t words = 0;
    for (size_t i = 0; i < table.size; i++)
        if (table.slots[i].text != NULL)
            table.slots[words++] = table.slots[i];
    if (words > 0)
        qsort(table.slots, words, sizeof *table.slots, by_count);
    /* A sum may have more digits than its parts. */
    *out = phr_create(ctx, bucket, key, size + 20 * words);
    if (*out == NULL) {
        status = phr_last_status(ctx);
        goto out;
    }
    char *to = phr_buffer(*out);
    size_t length = 0;
    for (size_t i = 0; i < words; i++)
        length += (size_t)sprintf(to + length, "%.*s %llu\n", (int)table.slots[i].length,
                                  table.slots[i].text, (unsigned long long)table.slots[i].count);
    status = phr_truncate(*out, length);
out:
    free(table.slots);
    return status;
}

PHR_FUNCTION(reduce)
{
    /* All inputs have keys MAPPER-PARTITION with the same partition. */
    const char *partition = strchr(phr_key(phr_input(ctx, 0)), '-');
    if (partition == NULL)
        return phr_fail(ctx, 1, "the key of an input is not MAPPER-PARTITION");
    phr_object *out;
    int status = merge(ctx, "reduced", partition + 1, &out);
    return status != PHR_OK ? status : phr_send(ctx, out);
}

PHR_FUNCTION(collect)
{
    phr_object *out;
    int status = merge(ctx, NULL, NULL, &out);
    return status != PHR_OK ? status : phr_respond(ctx, out);
}
