/*
 * check.h - what the functions of the end-to-end tests use beside pheromone.h: a check that fails
 * the attempt with its own text, and bytes that two functions can make alike.
 */
#ifndef CHECK_H
#define CHECK_H

#include <pheromone.h>
#include <stdlib.h>
#include <string.h>

/* Fails the attempt with file, line and the condition. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return phr_fail(ctx, 99, "%s:%d: not so: %s (last error: %s)", __FILE__, __LINE__,     \
                            #condition, phr_last_error(ctx));                                      \
    } while (0)

/* Fails the attempt with the sentence of a call that did not return PHR_OK. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        const phr_status status_ = (call);                                                         \
        if (status_ != PHR_OK)                                                                     \
            return status_;                                                                        \
    } while (0)

/* The call returns exactly this status, and phr_last_status says the same. */
#define REFUSED(call, expected)                                                                    \
    do {                                                                                           \
        const phr_status status_ = (call);                                                         \
        if (status_ != (expected))                                                                 \
            return phr_fail(ctx, 98, "%s:%d: %s is %s, expected %s", __FILE__, __LINE__, #call,    \
                            phr_strerror(status_), phr_strerror(expected));                        \
        CHECK(phr_last_status(ctx) == (expected));                                                 \
        CHECK(phr_last_error(ctx)[0] != '\0');                                                     \
    } while (0)

/* The call returns NULL, and phr_last_status says why. */
#define REFUSED_NULL(call, expected)                                                               \
    do {                                                                                           \
        CHECK((call) == NULL);                                                                     \
        CHECK(phr_last_status(ctx) == (expected));                                                 \
        CHECK(phr_last_error(ctx)[0] != '\0');                                                     \
    } while (0)

/* A text of exactly `length` bytes, no zero byte among them and no '~' in front, different for
 * every length and salt: a key or a group. `text` holds length + 1 bytes. */
static inline void make_name(char *text, size_t length, unsigned salt)
{
    for (size_t i = 0; i < length; i++) {
        unsigned byte = (unsigned)(length * 31 + i * 7 + salt * 13) % 255u + 1u;
        text[i] = (char)(i == 0 && byte == '~' ? '|' : byte);
    }
    text[length] = '\0';
}

/* A number in a small text payload. */
static inline long number_in(const phr_object *object)
{
    return strtol((const char *)phr_data(object), NULL, 10);
}

#endif /* CHECK_H */
