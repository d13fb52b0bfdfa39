/*
 * custom.c - breaks a text into pages of at least so many bytes and lists them.
 *
 * No type of trigger that comes with the system looks at sizes, so one of our own does: `enough`.
 * It sees no line, only how long each is.
 */
#include <pheromone.h>
#include <stdlib.h>
#include <string.h>

/* Sends each line by itself, in order. */
PHR_FUNCTION(cut)
{
    const phr_object *text = phr_input(ctx, 0);
    const char *at = (const char *)phr_data(text);
    const char *end = at + phr_size(text);

    while (at < end) {
        const char *stop = (const char *)memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        const phr_status status = phr_put(ctx, "lines", NULL, at, (size_t)(next - at));
        if (status != PHR_OK)
            return status;
        at = next;
    }
    return PHR_OK;
}

/* ---------------------------------------------------------------------------- the trigger ---- */

/* The lines of one session that are not on a page yet. */
typedef struct sheet {
    struct sheet *next;
    uint64_t session, bytes;
    uint64_t *lines;
    size_t count, room;
} sheet;

static sheet *find_sheet(sheet **list, uint64_t session)
{
    for (sheet *s = *list; s != NULL; s = s->next)
        if (s->session == session)
            return s;
    sheet *made = (sheet *)calloc(1, sizeof *made);
    if (made != NULL) {
        made->session = session;
        made->next = *list;
        *list = made;
    }
    return made;
}

static void forget_sheet(sheet **list, uint64_t session)
{
    for (sheet **at = list; *at != NULL; at = &(*at)->next) {
        if ((*at)->session == session) {
            sheet *gone = *at;
            *at = gone->next;
            free(gone->lines);
            free(gone);
            return;
        }
    }
}

static int add_line(sheet *s, const phr_event *line)
{
    if (s->count == s->room) {
        const size_t room = s->room ? 2 * s->room : 64;
        uint64_t *lines = (uint64_t *)realloc(s->lines, room * sizeof *lines);
        if (lines == NULL)
            return PHR_ENOMEM;
        s->lines = lines;
        s->room = room;
    }
    s->lines[s->count++] = line->object;
    s->bytes += line->size_bytes;
    return PHR_OK;
}

/*
 * Fires `page` with the lines that have come, as soon as they have enough bytes, and with the rest
 * at the session's end. The sheets hold what is pending and nothing else: after a crash the next
 * process is told of the same objects, and fills them again.
 */
PHR_TRIGGER(enough)
{
    sheet **sheets = (sheet **)phr_trigger_state(t);
    const uint64_t enough_bytes = strtoull(phr_trigger_config(t, "bytes"), NULL, 10);

    for (size_t i = 0; i < count; i++) {
        const phr_event *event = &events[i];
        int status = PHR_OK;
        if (event->kind == PHR_EV_SESSION_GONE) {
            forget_sheet(sheets, event->session);
            continue;
        }
        if (event->kind != PHR_EV_OBJECT && event->kind != PHR_EV_SESSION_END)
            continue;
        sheet *s = find_sheet(sheets, event->session);
        if (s == NULL)
            return PHR_ENOMEM;
        const int is_end = event->kind == PHR_EV_SESSION_END;
        if (!is_end)
            status = add_line(s, event);
        if (status == PHR_OK && s->count > 0 && (is_end || s->bytes >= enough_bytes)) {
            status = phr_fire(t, "page", s->lines, s->count);
            forget_sheet(sheets, event->session);
        }
        if (status != PHR_OK)
            return status;
    }
    return 0;
}

/* ------------------------------------------------------------------------------- the pages ---- */

/* Measures a page. Its key is the number of its first line: keys are in the text's order. */
PHR_FUNCTION(page)
{
    const size_t lines = phr_input_count(ctx);
    const char *number = strchr(phr_key(phr_input(ctx, 0)), '.');
    size_t bytes = 0;
    char key[32], row[64];

    if (number == NULL)
        return phr_fail(ctx, 1, "a line has the key %s", phr_key(phr_input(ctx, 0)));
    for (size_t i = 0; i < lines; i++)
        bytes += phr_size(phr_input(ctx, i));
    snprintf(key, sizeof key, "%010ld", strtol(number + 1, NULL, 10));
    const int length = snprintf(row, sizeof row, "%4zu lines %6zu bytes\n", lines, bytes);
    return phr_put(ctx, "pages", key, row, (size_t)length);
}

/* Lists the pages in order. */
PHR_FUNCTION(contents)
{
    const size_t count = phr_input_count(ctx);
    const phr_object **rows = (const phr_object **)calloc(count + 1, sizeof *rows);

    if (rows == NULL)
        return phr_fail(ctx, 1, "no memory for %zu pages", count);
    for (size_t i = 0; i < count; i++)
        rows[i] = phr_input(ctx, i);
    const phr_status status = count ? phr_respond_parts(ctx, rows, count)
                                    : phr_respond_data(ctx, "", 0);
    free(rows);
    return status;
}
