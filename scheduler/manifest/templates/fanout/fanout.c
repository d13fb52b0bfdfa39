/* split -> 8 x count -> join: how many primes there are up to a number. */
#include <pheromone.h>

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 8 /* as many as the keys of the by_set trigger in app.toml */
#define LIMIT_MAX 10000000000ull

/* One range: first <= n < end. */
struct range {
    uint64_t first;
    uint64_t end;
};

PHR_FUNCTION(split)
{
    const char *text = phr_data(phr_input(ctx, 0)); /* a zero byte follows every payload */
    char *end;
    errno = 0;
    unsigned long long limit = strtoull(text, &end, 10);
    if (end == text || errno != 0 || strchr(text, '-') != NULL || limit > LIMIT_MAX)
        return phr_fail(ctx, 1, "give a number from 0 to %llu, not \"%.*s\"", LIMIT_MAX,
                        (int)strcspn(text, "\r\n"), text);

    for (uint64_t part = 0; part < PARTS; part++) {
        char key[16];
        snprintf(key, sizeof key, "part-%u", (unsigned)part);
        struct range range = {
            .first = (limit + 1) / PARTS * part,
            .end = part + 1 == PARTS ? limit + 1 : (limit + 1) / PARTS * (part + 1),
        };
        phr_status status = phr_put(ctx, "ranges", key, &range, sizeof range);
        if (status != PHR_OK)
            return status;
    }
    return PHR_OK;
}

/* Crosses out the multiples of `prime` in a segment that begins at `first`. */
static void cross_out(char *composite, uint64_t first, uint64_t length, uint64_t prime)
{
    uint64_t from = prime * prime;
    if (from < first)
        from = (first + prime - 1) / prime * prime;
    for (uint64_t n = from; n < first + length; n += prime)
        composite[n - first] = 1;
}

/* Counts primes of a range by a sieve in segments that fit a cache. */
static int64_t count_primes(struct range range)
{
    enum { SEGMENT = 256 * 1024 };
    uint64_t root = (uint64_t)sqrtl((long double)range.end) + 1;
    char *small = calloc(root + 1, 1);
    char *segment = malloc(SEGMENT);
    int64_t count = -1;
    if (small == NULL || segment == NULL)
        goto out;

    for (uint64_t n = 2; n * n <= root; n++)
        if (!small[n])
            cross_out(small, 0, root + 1, n);
    count = 0;
    for (uint64_t first = range.first; first < range.end; first += SEGMENT) {
        uint64_t length = range.end - first < SEGMENT ? range.end - first : SEGMENT;
        memset(segment, 0, length);
        for (uint64_t n = 2; n <= root && n * n < first + length; n++)
            if (!small[n])
                cross_out(segment, first, length, n);
        for (uint64_t i = 0; i < length; i++)
            count += first + i >= 2 && !segment[i];
    }
out:
    free(small);
    free(segment);
    return count;
}

PHR_FUNCTION(count)
{
    const phr_object *in = phr_input(ctx, 0);
    struct range range;
    if (phr_size(in) != sizeof range)
        return phr_fail(ctx, 1, "expected %zu bytes of a range, got %zu", sizeof range,
                        phr_size(in));
    memcpy(&range, phr_data(in), sizeof range);

    int64_t primes = count_primes(range);
    if (primes < 0)
        return phr_fail(ctx, 2, "no memory for a sieve up to %llu", (unsigned long long)range.end);
    phr_log(ctx, PHR_DEBUG, "%lld primes from %llu", (long long)primes,
            (unsigned long long)range.first);
    /* The same key: part-0 of the ranges becomes part-0 of the counts. */
    return phr_put(ctx, "counts", phr_key(in), &primes, sizeof primes);
}

PHR_FUNCTION(join)
{
    int64_t sum = 0;
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        int64_t primes;
        if (phr_size(phr_input(ctx, i)) != sizeof primes)
            return phr_fail(ctx, 1, "input %zu is no count", i);
        memcpy(&primes, phr_data(phr_input(ctx, i)), sizeof primes);
        sum += primes;
    }
    char text[64];
    int length = snprintf(text, sizeof text, "%lld primes\n", (long long)sum);
    return phr_respond_data(ctx, text, (size_t)length);
}
