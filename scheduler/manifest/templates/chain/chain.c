/* clean -> measure -> report: what a text is made of. */
#include <pheromone.h>

#include <stdint.h>
#include <string.h>

#define LETTERS 26

/* What measure tells report. */
struct measures {
    uint64_t words;
    uint64_t longest_word;
    uint64_t letters[LETTERS];
};

static int letter(unsigned char c)
{
    if (c >= 'a' && c <= 'z')
        return c;
    if (c >= 'A' && c <= 'Z')
        return c - 'A' + 'a';
    return 0;
}

/* Small letters only, one space between words. Written straight into the next function's input. */
PHR_FUNCTION(clean)
{
    const phr_object *in = phr_input(ctx, 0);
    const unsigned char *from = phr_data(in);
    phr_object *out = phr_create(ctx, NULL, NULL, phr_size(in));
    if (out == NULL)
        return phr_last_status(ctx);

    char *to = phr_buffer(out);
    size_t length = 0;
    for (size_t i = 0; i < phr_size(in); i++) {
        int c = letter(from[i]);
        if (c != 0)
            to[length++] = (char)c;
        else if (length > 0 && to[length - 1] != ' ')
            to[length++] = ' ';
    }
    phr_truncate(out, length);
    return phr_send(ctx, out);
}

PHR_FUNCTION(measure)
{
    const phr_object *in = phr_input(ctx, 0);
    const char *text = phr_data(in);
    phr_object *out = phr_create(ctx, NULL, NULL, sizeof(struct measures));
    if (out == NULL)
        return phr_last_status(ctx);

    struct measures *measures = phr_buffer(out);
    memset(measures, 0, sizeof *measures);
    uint64_t word = 0;
    for (size_t i = 0; i < phr_size(in); i++) {
        if (text[i] == ' ') {
            word = 0;
            continue;
        }
        measures->letters[text[i] - 'a']++;
        if (word++ == 0)
            measures->words++;
        if (word > measures->longest_word)
            measures->longest_word = word;
    }
    return phr_send(ctx, out);
}

PHR_FUNCTION(report)
{
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof(struct measures))
        return phr_fail(ctx, 1, "expected %zu bytes of measures, got %zu",
                        sizeof(struct measures), phr_size(in));

    const struct measures *measures = phr_data(in);
    char text[4096];
    int length = snprintf(text, sizeof text, "%llu words, the longest of %llu letters\n",
                          (unsigned long long)measures->words,
                          (unsigned long long)measures->longest_word);
    for (int i = 0; i < LETTERS; i++) {
        if (measures->letters[i] > 0)
            length += snprintf(text + length, sizeof text - (size_t)length, "%c %llu\n", 'a' + i,
                               (unsigned long long)measures->letters[i]);
    }
    return phr_respond_data(ctx, text, (size_t)length);
}
