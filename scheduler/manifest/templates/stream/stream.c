/* replay -> tally -> report: events in windows of time. */
#include <pheromone.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MILLISECOND_NS 1000000u
#define LINE_BYTES 64

/* What tally tells report of a window. */
struct tally {
    uint64_t start_ns;
    uint64_t events;
    uint64_t bytes;
};

/* Sends each word of the request as an event that arrives at its time. */
PHR_FUNCTION(replay)
{
    const char *every = phr_config(ctx, "every");
    const uint64_t step_ns = (every ? strtoull(every, NULL, 10) : 1) * MILLISECOND_NS;
    const phr_object *in = phr_input(ctx, 0);
    const char *text = phr_data(in);
    phr_send_options options = PHR_SEND_OPTIONS;
    size_t start = 0;

    for (size_t i = 0; i <= phr_size(in); i++) {
        if (i < phr_size(in) && (unsigned char)text[i] > ' ')
            continue;
        if (i > start) {
            const char *word = text + start;
            phr_status status = phr_put_with(ctx, "events", NULL, word, i - start, &options);
            if (status != PHR_OK)
                return status;
            options.delay_ns += step_ns;
        }
        start = i + 1;
    }
    return PHR_OK;
}

/* Adds up one window. */
PHR_FUNCTION(tally)
{
    struct tally tally = { 0, phr_input_count(ctx), 0 };
    char key[24];
    phr_status status = phr_window(ctx, &tally.start_ns, NULL);

    if (status != PHR_OK)
        return status;
    for (size_t i = 0; i < phr_input_count(ctx); i++)
        tally.bytes += phr_size(phr_input(ctx, i));
    snprintf(key, sizeof key, "%020llu", (unsigned long long)tally.start_ns);
    return phr_put(ctx, "tallies", key, &tally, sizeof tally);
}

/* Lists all windows, in the order of time. */
PHR_FUNCTION(report)
{
    const size_t windows = phr_input_count(ctx);
    phr_object *out = phr_create(ctx, NULL, NULL, (windows + 1) * LINE_BYTES);
    uint64_t events = 0;

    if (out == NULL)
        return phr_last_status(ctx);
    for (size_t i = 0; i < windows; i++)
        events += ((const struct tally *)phr_data(phr_input(ctx, i)))->events;
    char *text = phr_buffer(out);
    size_t length = (size_t)snprintf(text, LINE_BYTES, "%llu events in %zu windows\n",
                                     (unsigned long long)events, windows);
    for (size_t i = 0; i < windows; i++) {
        const struct tally *first = phr_data(phr_input(ctx, 0));
        const struct tally *tally = phr_data(phr_input(ctx, i));
        const uint64_t after_ms = (tally->start_ns - first->start_ns) / MILLISECOND_NS;

        length += (size_t)snprintf(text + length, LINE_BYTES,
                                   "+%4llu ms %6llu events %8llu bytes\n",
                                   (unsigned long long)after_ms, (unsigned long long)tally->events,
                                   (unsigned long long)tally->bytes);
    }
    phr_truncate(out, length);
    return phr_respond(ctx, out);
}
