/*
 * Map and reduce over a web server's log. `split` sends ranges of the log, `map` sums one range up,
 * path by path, and sends each sum in the group of its path, `reduce` adds the sums of one path up,
 * and `report` writes the table.
 *
 * A line that counts has a request in quotation marks, METHOD PATH PROTOCOL, and after it a status
 * and a number of bytes (or "-"); any other is passed over.
 */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* Paths of one range of the log that differ; more are sent as they come. */
#define PATHS_MAX 256
/* Longest path: it is a key and a group. */
#define PATH_MAX_BYTES 255

/* Part of the request: bytes begin to end (not included), whole lines. */
struct range {
    uint64_t begin;
    uint64_t end;
};

/* What is known of one path. */
struct sum {
    uint64_t requests;
    uint64_t errors; /* with a status of 400 or more */
    uint64_t bytes;
};

/* The end of the line that begins at `at`, with its line feed. */
static size_t line_end(const char *text, size_t end, size_t at)
{
    const char *feed = memchr(text + at, '\n', end - at);
    return feed == NULL ? end : (size_t)(feed - text) + 1;
}

PHR_FUNCTION(split)
{
    const phr_object *request = phr_input(ctx, 0);
    const char *text = phr_data(request);
    const char *wanted = phr_config(ctx, "chunk");
    size_t size = phr_size(request);
    size_t chunk = wanted == NULL ? 8192 : strtoul(wanted, NULL, 10);
    struct range range = { 0, 0 };

    if (chunk == 0)
        return phr_fail(ctx, PHR_PERMANENT(1), "chunk must be a number above 0, not %s", wanted);
    for (; range.begin < size; range.begin = range.end) {
        size_t last = size - range.begin > chunk ? range.begin + chunk - 1 : size - 1;
        range.end = line_end(text, size, last);
        phr_status status = phr_put(ctx, "chunks", NULL, &range, sizeof range);
        if (status != PHR_OK)
            return status;
    }
    return PHR_OK;
}

/* The sums of the paths met so far. */
struct table {
    size_t count;
    char paths[PATHS_MAX][PATH_MAX_BYTES + 1];
    struct sum sums[PATHS_MAX];
};

/* Static: an executor runs one invocation at a time. */
static struct table table;

/* Sends each sum in the group of its path, and empties the table. */
static phr_status send_sums(phr_ctx *ctx)
{
    phr_send_options options = PHR_SEND_OPTIONS;

    for (size_t i = 0; i < table.count; i++) {
        options.group = table.paths[i];
        phr_status status = phr_put_with(ctx, "mapped", NULL, &table.sums[i],
                                         sizeof table.sums[i], &options);
        if (status != PHR_OK)
            return status;
    }
    table.count = 0;
    return PHR_OK;
}

/* The sum of a path, a new one where there is none. */
static phr_status sum_of(phr_ctx *ctx, const char *path, size_t length, struct sum **sum)
{
    phr_status status = PHR_OK;
    size_t i = 0;

    while (i < table.count
           && (strncmp(table.paths[i], path, length) != 0 || table.paths[i][length] != '\0'))
        i++;
    if (i == PATHS_MAX) {
        status = send_sums(ctx);
        i = 0;
    }
    if (i == table.count) {
        memcpy(table.paths[i], path, length);
        table.paths[i][length] = '\0';
        memset(&table.sums[i], 0, sizeof table.sums[i]);
        table.count++;
    }
    *sum = &table.sums[i];
    return status;
}

/* Counts one line; `end` is past it. */
static phr_status count_line(phr_ctx *ctx, const char *line, const char *end)
{
    const char *method = memchr(line, '"', (size_t)(end - line));
    const char *path = method == NULL ? NULL : memchr(method, ' ', (size_t)(end - method));
    const char *close = method == NULL ? NULL : memchr(method + 1, '"', (size_t)(end - method - 1));
    if (path == NULL || close == NULL || path >= close)
        return PHR_OK;
    path++;
    const char *after = memchr(path, ' ', (size_t)(close - path));
    size_t length = (size_t)((after == NULL ? close : after) - path);
    if (length == 0 || length > PATH_MAX_BYTES || *path == '~' || memchr(path, 0, length) != NULL)
        return PHR_OK; /* no key */

    /* The request is followed by a zero byte, so strtol ends; past the line's end it has found
     * what is not of this line. */
    char *rest;
    long code = strtol(close + 1, &rest, 10);
    struct sum *sum;
    phr_status status = sum_of(ctx, path, length, &sum);
    if (status != PHR_OK)
        return status;
    sum->requests++;
    sum->errors += rest < end && code >= 400;
    if (rest < end)
        sum->bytes += strtoull(rest, NULL, 10);
    return PHR_OK;
}

PHR_FUNCTION(map)
{
    const phr_object *request = phr_request(ctx);
    const struct range *range = phr_data(phr_input(ctx, 0));

    if (request == NULL)
        return phr_last_status(ctx);
    const char *text = phr_data(request);
    table.count = 0;
    for (size_t at = range->begin, end; at < range->end; at = end) {
        end = line_end(text, range->end, at);
        phr_status status = count_line(ctx, text + at, text + end);
        if (status != PHR_OK)
            return status;
    }
    return send_sums(ctx);
}

/* All inputs are of one group: of one path. */
PHR_FUNCTION(reduce)
{
    struct sum all = { 0, 0, 0 };

    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const struct sum *sum = phr_data(phr_input(ctx, i));
        all.requests += sum->requests;
        all.errors += sum->errors;
        all.bytes += sum->bytes;
    }
    return phr_put(ctx, "reduced", phr_group(phr_input(ctx, 0)), &all, sizeof all);
}

/* One row into `room` bytes at `to`; its length, as snprintf has it. */
static size_t write_row(char *to, size_t room, const phr_object *object)
{
    const struct sum *sum = phr_data(object);
    return (size_t)snprintf(to, room, "%6llu requests %5llu errors %10llu bytes  %s\n",
                            (unsigned long long)sum->requests, (unsigned long long)sum->errors,
                            (unsigned long long)sum->bytes, phr_key(object));
}

PHR_FUNCTION(report)
{
    size_t count = phr_input_count(ctx), size = 0;

    for (size_t i = 0; i < count; i++)
        size += write_row(NULL, 0, phr_input(ctx, i));
    phr_object *response = phr_create(ctx, NULL, NULL, size + 1); /* snprintf ends with a zero */
    if (response == NULL)
        return phr_last_status(ctx);
    char *to = phr_buffer(response);
    for (size_t i = 0, done = 0; i < count; i++)
        done += write_row(to + done, size + 1 - done, phr_input(ctx, i));
    phr_status status = phr_truncate(response, size);
    if (status != PHR_OK)
        return status;
    phr_set_response_type(ctx, "text/plain");
    return phr_respond(ctx, response);
}
