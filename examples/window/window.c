/*
 * window.c - replay -> rate -> report: a log in time, added up over a sliding window.
 */
#include <pheromone.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MILLISECOND_NS 1000000u
#define LINE_BYTES 64

/* What rate tells report. */
struct rate {
    uint64_t start_ns;
    uint64_t hits;
    uint64_t errors; /* of them with a status of 400 or more */
};

/* Sends each line of the log, to arrive at its time. */
PHR_FUNCTION(replay)
{
    const char *every = phr_config(ctx, "every_us");
    const uint64_t step_ns = 1000 * (every ? strtoull(every, NULL, 10) : 0);
    const phr_object *log = phr_input(ctx, 0);
    const char *line = phr_data(log);
    const char *end = line + phr_size(log);
    phr_send_options options = PHR_SEND_OPTIONS;

    while (line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const size_t length = (size_t)((stop ? stop : end) - line);
        phr_status status = phr_put_with(ctx, "hits", NULL, line, length, &options);

        if (status != PHR_OK)
            return status;
        options.delay_ns += step_ns;
        line += length + 1;
    }
    return PHR_OK;
}

/* Whether a line's status, behind its quoted request, is an error. */
static int is_error(const char *line)
{
    const char *quote = strrchr(line, '"');

    return quote != NULL && atoi(quote + 1) >= 400;
}

PHR_FUNCTION(rate)
{
    struct rate rate = { 0, phr_input_count(ctx), 0 };
    char key[24];
    phr_status status = phr_window(ctx, &rate.start_ns, NULL);

    if (status != PHR_OK)
        return status;
    for (size_t i = 0; i < phr_input_count(ctx); i++)
        rate.errors += (uint64_t)is_error(phr_data(phr_input(ctx, i)));
    snprintf(key, sizeof key, "%020llu", (unsigned long long)rate.start_ns);
    return phr_put(ctx, "rates", key, &rate, sizeof rate);
}

/* A line for each window, in the order of time: its start, its hits, its errors. */
PHR_FUNCTION(report)
{
    const size_t windows = phr_input_count(ctx);
    phr_object *out = phr_create(ctx, NULL, NULL, windows * LINE_BYTES);
    size_t length = 0;

    if (out == NULL)
        return phr_last_status(ctx);
    for (size_t i = 0; i < windows; i++) {
        const struct rate *first = phr_data(phr_input(ctx, 0));
        const struct rate *rate = phr_data(phr_input(ctx, i));
        const uint64_t after_ms = (rate->start_ns - first->start_ns) / MILLISECOND_NS;

        length += (size_t)snprintf((char *)phr_buffer(out) + length, LINE_BYTES,
                                   "+%5llu ms %5llu hits %5llu errors\n",
                                   (unsigned long long)after_ms, (unsigned long long)rate->hits,
                                   (unsigned long long)rate->errors);
    }
    phr_truncate(out, length);
    return phr_respond(ctx, out);
}
