/*
 * The first two of five. `deal` sends five searches for each Sudoku; each tries the same things in
 * an order of its own, and how long one takes depends on the puzzle in a way that nobody can
 * foresee: from microseconds to minutes. The trigger lets the first two solutions through and
 * cancels the rest of that puzzle; `compare` sees that the two agree, and `answer` prints them all.
 */
#include <pheromone.h>

#include <string.h>

#define SIDE 9
#define FIELDS (SIDE * SIDE)
/* As many as app.toml's `n`. */
#define SEARCHES 5
/* Between two looks at phr_cancelled: some microseconds. */
#define STEPS_PER_LOOK 1024

/* One search to be made. */
struct task {
    uint32_t order; /* 0 to SEARCHES - 1 */
    char fields[FIELDS];
};

PHR_FUNCTION(deal)
{
    const phr_object *request = phr_input(ctx, 0);
    const char *text = phr_data(request), *end = text + phr_size(request);
    unsigned puzzle = 0, line = 0;

    while (text < end) {
        const char *feed = memchr(text, '\n', (size_t)(end - text));
        size_t length = (size_t)((feed == NULL ? end : feed) - text);
        line++;
        if (length > 0 && *text != '#') {
            phr_send_options options = PHR_SEND_OPTIONS;
            struct task task;
            char group[32];

            /* strspn ends at the line's end: a line feed is none of these, nor is the zero byte. */
            if (length != FIELDS || strspn(text, ".123456789") < FIELDS)
                return phr_fail(ctx, PHR_PERMANENT(1),
                                "line %u is no Sudoku: 81 digits and points wanted", line);
            memcpy(task.fields, text, FIELDS);
            snprintf(group, sizeof group, "puzzle-%04u", puzzle++);
            options.group = group; /* the round */
            for (task.order = 0; task.order < SEARCHES; task.order++) {
                phr_status status = phr_put_with(ctx, "searches", NULL, &task, sizeof task,
                                                 &options);
                if (status != PHR_OK)
                    return status;
            }
        }
        text += length + 1;
    }
    return PHR_OK;
}

/* A search under way. Digits are bits 0 to 8. */
struct search {
    const phr_ctx *ctx;
    uint32_t order;
    unsigned long steps;
    int is_cancelled;
    char fields[FIELDS];
    unsigned rows[SIDE], columns[SIDE], boxes[SIDE]; /* digits that are there */
};

static unsigned box_of(unsigned field)
{
    return field / SIDE / 3 * 3 + field % SIDE / 3;
}

/* Puts a digit into an empty field, or takes it away. */
static void toggle(struct search *search, unsigned field, unsigned digit)
{
    unsigned bit = 1u << digit;
    search->rows[field / SIDE] ^= bit;
    search->columns[field % SIDE] ^= bit;
    search->boxes[box_of(field)] ^= bit;
    search->fields[field] = search->fields[field] == '.' ? (char)('1' + digit) : '.';
}

static unsigned candidates(const struct search *search, unsigned field)
{
    return 0x1ffu
           & ~(search->rows[field / SIDE] | search->columns[field % SIDE]
               | search->boxes[box_of(field)]);
}

static unsigned count_bits(unsigned bits)
{
    unsigned count = 0;
    for (; bits != 0; bits &= bits - 1)
        count++;
    return count;
}

/* The field to try next; FIELDS when none is empty. Orders 0 and 1 take them as they lie, forwards
 * and backwards; the others the one with the fewest candidates. */
static unsigned next_field(const struct search *search)
{
    unsigned found = FIELDS, fewest = SIDE + 1;

    for (unsigned i = 0; i < FIELDS; i++) {
        unsigned field = search->order % 2 == 0 ? i : FIELDS - 1 - i;
        if (search->fields[field] != '.')
            continue;
        if (search->order < 2)
            return field;
        unsigned count = count_bits(candidates(search, field));
        if (count < fewest) {
            fewest = count;
            found = field;
        }
    }
    return found;
}

/* 1 once every field has its digit; 0 when there is no solution from here, or nobody wants it. */
static int solve(struct search *search)
{
    if (++search->steps % STEPS_PER_LOOK == 0 && phr_cancelled(search->ctx))
        search->is_cancelled = 1;
    if (search->is_cancelled)
        return 0;
    unsigned field = next_field(search);
    if (field == FIELDS)
        return 1;
    unsigned possible = candidates(search, field);
    for (unsigned i = 0; i < SIDE; i++) {
        /* Order 4 tries high digits first. */
        unsigned digit = search->order == 4 ? SIDE - 1 - i : i;
        if ((possible & 1u << digit) == 0)
            continue;
        toggle(search, field, digit);
        if (solve(search))
            return 1;
        toggle(search, field, digit);
    }
    return 0;
}

PHR_FUNCTION(search)
{
    const phr_object *in = phr_input(ctx, 0);
    const struct task *task = phr_data(in);
    struct search search = { .ctx = ctx, .order = task->order };

    memset(search.fields, '.', sizeof search.fields);
    for (unsigned field = 0; field < FIELDS; field++) {
        unsigned digit = (unsigned)(task->fields[field] - '1');
        if (task->fields[field] == '.')
            continue;
        if ((candidates(&search, field) & 1u << digit) == 0)
            return phr_fail(ctx, PHR_PERMANENT(2), "%s has a digit twice", phr_group(in));
        toggle(&search, field, digit);
    }
    if (!solve(&search)) {
        if (search.is_cancelled)
            return PHR_OK; /* two others were faster, and nobody looks at what is returned */
        return phr_fail(ctx, PHR_PERMANENT(3), "%s has no solution", phr_group(in));
    }

    phr_send_options options = PHR_SEND_OPTIONS;
    options.group = phr_group(in);
    phr_status status = phr_put_with(ctx, "solutions", NULL, search.fields, FIELDS, &options);
    /* Cancelled at the very end: it is a straggler as well. */
    return status == PHR_ECANCELED ? PHR_OK : status;
}

/* Two solutions of one puzzle: both searches must have found the same. */
PHR_FUNCTION(compare)
{
    const phr_object *one = phr_input(ctx, 0), *other = phr_input(ctx, 1);

    if (memcmp(phr_data(one), phr_data(other), FIELDS) != 0)
        return phr_fail(ctx, PHR_PERMANENT(4), "%s has two solutions", phr_group(one));
    /* Forwarded, not copied; the key puts the puzzles in order. */
    return phr_forward(ctx, one, "solved", phr_group(one));
}

/* One line a puzzle. */
PHR_FUNCTION(answer)
{
    size_t count = phr_input_count(ctx);
    phr_object *response = phr_create(ctx, NULL, NULL, count * (FIELDS + 1));

    if (response == NULL)
        return phr_last_status(ctx);
    char *to = phr_buffer(response);
    for (size_t i = 0; i < count; i++) {
        memcpy(to, phr_data(phr_input(ctx, i)), FIELDS);
        to[FIELDS] = '\n';
        to += FIELDS + 1;
    }
    phr_set_response_type(ctx, "text/plain");
    return phr_respond(ctx, response);
}
