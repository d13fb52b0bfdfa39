/* Chapters, counted by a routine that dies of some of them and again by one that does not. */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* What is known of a chapter. */
struct count {
    size_t words;
    size_t longest; /* letters of the longest word, the first of several */
    size_t at;      /* where it begins */
};

static int is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Fast and fragile, as routines are that somebody else wrote: a word has to fit `room`. */
static struct count count_quickly(const char *text, size_t size)
{
    char room[14];
    struct count count = { 0, 0, 0 };
    size_t at = 0;

    while (at < size) {
        size_t length = 0;

        while (at + length < size && is_letter(text[at + length])) {
            if (length + 1 == sizeof room)
                abort();
            room[length] = text[at + length];
            length++;
        }
        room[length] = '\0';
        count.words += length > 0;
        if (strlen(room) > count.longest)
            count = (struct count){ count.words, length, at };
        at += length + 1;
    }
    return count;
}

static struct count count_carefully(const char *text, size_t size)
{
    struct count count = { 0, 0, 0 };
    size_t begin = 0;

    for (size_t at = 0; at <= size; at++) {
        if (at < size && is_letter(text[at]))
            continue;
        count.words += at > begin;
        if (at - begin > count.longest) {
            count.longest = at - begin;
            count.at = begin;
        }
        begin = at + 1;
    }
    return count;
}

/* Sends the line of a chapter, under the chapter's key. */
static int send_line(phr_ctx *ctx, const phr_object *chapter, struct count count, const char *note)
{
    const char *text = (const char *)phr_data(chapter);
    size_t room = count.longest + strlen(note) + 100;
    phr_object *line = phr_create(ctx, "counts", phr_key(chapter), room);

    if (line == NULL)
        return phr_last_status(ctx);
    int length = snprintf((char *)phr_buffer(line), room, "%s %6zu words, longest: %.*s%s\n",
                          phr_key(chapter), count.words, (int)count.longest, text + count.at, note);
    phr_truncate(line, (size_t)length);
    return phr_send(ctx, line);
}

/* Whether a chapter begins with this line. */
static int is_heading(const char *line)
{
    while (*line == ' ')
        line++;
    return strncmp(line, "CHAPTER ", 8) == 0;
}

/* Where the next chapter begins; the end of the text where there is none. */
static const char *next_heading(const char *line)
{
    while (*line != '\0' && !is_heading(line)) {
        const char *end = strchr(line, '\n');
        line = end == NULL ? line + strlen(line) : end + 1;
    }
    return line;
}

/* Sends each chapter; what comes before the first one is none. */
PHR_FUNCTION(split)
{
    const char *chapter = next_heading((const char *)phr_data(phr_input(ctx, 0)));

    for (unsigned number = 1; *chapter != '\0'; number++) {
        const char *rest = chapter + strcspn(chapter, "\n");
        const char *end = next_heading(*rest == '\0' ? rest : rest + 1);
        char key[32];

        snprintf(key, sizeof key, "chapter-%02u", number);
        phr_status status = phr_put(ctx, "chapters", key, chapter, (size_t)(end - chapter));
        if (status != PHR_OK)
            return status;
        chapter = end;
    }
    return PHR_OK;
}

PHR_FUNCTION(quick)
{
    const phr_object *chapter = phr_input(ctx, 0);
    struct count count = count_quickly((const char *)phr_data(chapter), phr_size(chapter));

    return send_line(ctx, chapter, count, "");
}

/* Its input tells what has failed and how; attached to it is what the failed one had as input. */
PHR_FUNCTION(careful)
{
    const phr_object *object = phr_input(ctx, 0);
    const phr_failure *failure = (const phr_failure *)phr_data(object);
    const phr_object *chapter = phr_failed_input(object, 0);
    char note[64];

    if (chapter == NULL)
        return phr_last_status(ctx);
    struct count count = count_carefully((const char *)phr_data(chapter), phr_size(chapter));
    if (failure->signal != 0)
        snprintf(note, sizeof note, " (counted again after signal %d)", failure->signal);
    else
        snprintf(note, sizeof note, " (counted again after status %d)", failure->status);
    return send_line(ctx, chapter, count, note);
}

/* Answers with all lines, which come in the order of the chapters. */
PHR_FUNCTION(report)
{
    size_t count = phr_input_count(ctx);
    const phr_object **lines = (const phr_object **)calloc(count + 1, sizeof *lines);

    if (lines == NULL)
        return phr_fail(ctx, 1, "no memory for %zu lines", count);
    for (size_t i = 0; i < count; i++)
        lines[i] = phr_input(ctx, i);
    phr_status status = phr_respond_parts(ctx, lines, count);
    free(lines);
    return status;
}
