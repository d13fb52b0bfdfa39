/*
 * pheromone.h - write a Pheromone function in C
 *
 * Functions do not call functions. A function is started because objects arrived, and what it has
 * to say it publishes as objects: into buckets, whose triggers decide what runs next and with
 * which objects, or directly to the functions that its manifest names as `next`.
 *
 *     #include <pheromone.h>
 *
 *     PHR_FUNCTION(shout)
 *     {
 *         const phr_object *in = phr_input(ctx, 0);
 *         phr_object *out = phr_create(ctx, "words", NULL, phr_size(in));
 *         if (out == NULL)
 *             return phr_last_status(ctx);
 *         const char *from = (const char *)phr_data(in);
 *         char *to = (char *)phr_buffer(out);
 *         for (size_t i = 0; i < phr_size(in); i++)
 *             to[i] = (from[i] >= 'a' && from[i] <= 'z') ? (char)(from[i] - 32) : from[i];
 *         return phr_send(ctx, out);
 *     }
 *
 *     cc -O2 -shared -fPIC -I include -o shout.so shout.c
 *
 * There is nothing to link: every call below goes through a table of function pointers that the
 * executor hands over with the invocation. The header is C11 and C++17, and includes four headers
 * of the C library.
 *
 *
 * MEMORY AND OWNERSHIP
 *
 *   Payloads lie in shared memory and are never copied between functions. An input is read where
 *   its producer wrote it; an output is written where its consumers will read it. Every payload is
 *   aligned to 64 bytes and followed by one zero byte that its size does not count, so a payload
 *   of text is a C string.
 *
 *   phr_create gives you an object that nobody else can see. Fill its buffer, then send it,
 *   respond with it, or discard it: a call that takes an unsent object consumes it when it returns
 *   PHR_OK, and on an error it is still yours. What is unsent when the function returns is given
 *   back for you, and counted. From phr_send on an object is immutable: its buffer is no longer
 *   yours to write.
 *
 *   Pointers to inputs, to what phr_get and phr_load found, to keys, names and headers are valid
 *   until the function returns. Strings that you pass in are copied before the call returns.
 *
 *
 * THREADS AND PROCESSES
 *
 *   An executor process runs one invocation at a time, and may hold several functions of the app.
 *   Static variables are shared by the functions of one library in one process and survive between
 *   invocations; other processes have their own. The working directory is the manifest's.
 *
 *   `ctx` belongs to the thread that was called. From other threads of yours only phr_cancelled,
 *   phr_now_ns and phr_log may be used; every other call that takes `ctx` is PHR_EPERM there, and
 *   after the function has returned. Any thread may fill a buffer before it is sent, and what an
 *   object says of itself (phr_data, phr_size, phr_key, ...) may be read by any thread until the
 *   function returns. Join your threads before returning: one left over is reported and costs the
 *   process. exit() is a crash named exit(n).
 *
 *   A process that you fork has none of the shared memory, and may use none of the calls: copy
 *   what it needs first, and end it by _exit or exec.
 *
 *
 * ERRORS
 *
 *   No call aborts the process. A call that returns a phr_status returns PHR_OK or a negative
 *   status; a call that returns a pointer returns NULL on an error, and then phr_last_status gives
 *   the status and phr_last_error the whole sentence. Passing the status on,
 *
 *       if (status != PHR_OK) return status;
 *
 *   fails the attempt with that sentence as its message. Your own failures are 1 to 255, said with
 *   a message by phr_fail; PHR_PERMANENT(status) forbids another attempt.
 *
 *   NULL for `ctx` is PHR_EINVAL (or NULL, or 0), NULL for an object has no data, size 0, and the
 *   key, bucket and group "".
 *
 *
 * WHO WAITS
 *
 *   Only phr_create, phr_create_for, phr_put and phr_respond_data (for memory), phr_get, phr_load
 *   and durable sends wait for someone. Every other call returns as soon as its message is in the
 *   ring, and reports what the executor itself can know; what only the scheduler knows (a key that
 *   another invocation has taken, say) becomes an error event of the session.
 *
 *
 * UNITS
 *
 *   Sizes are bytes. Times end in _ns and are nanoseconds; points in time are CLOCK_MONOTONIC,
 *   which phr_wall_ns turns into time since 1970. Keys have 1 to 255 bytes, groups 0 to 255,
 *   neither contains a zero byte, and a key must not begin with '~', which marks automatic keys.
 *
 *
 * Calls marked [later] are part of the interface but not of this build: they return PHR_ENOTSUP
 * (or NULL) with a sentence in phr_last_error.
 */
#ifndef PHEROMONE_H
#define PHEROMONE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ======================================================================== version and ABI ==== */

/*
 * A library says which ABI it was compiled with. Another major version is refused at load; a minor
 * version only adds calls at the end of the table, and fields at the end of structs that begin
 * with their size.
 */
#define PHR_ABI_MAJOR 1
#define PHR_ABI_MINOR 0

#if defined(__GNUC__) || defined(__clang__)
#define PHR_PRINTF_(text, first) __attribute__((__format__(__printf__, text, first)))
#define PHR_EXPORT_ __attribute__((__visibility__("default")))
#else
#define PHR_PRINTF_(text, first)
#define PHR_EXPORT_
#endif

#ifdef __cplusplus
#define PHR_EXTERN_ extern "C"
extern "C" {
#else
#define PHR_EXTERN_ extern
#endif

/* ============================================================================ status codes === */

/*
 * Errors are negative and have the numbers of Linux's errno. Positive statuses belong to
 * functions: 1 to 255.
 */
typedef int phr_status;

#define PHR_OK 0           /* done */
#define PHR_EPERM (-1)     /* not allowed here: another thread, another bucket, another function */
#define PHR_ENOENT (-2)    /* there is no such thing */
#define PHR_EIO (-5)       /* the disk refused */
#define PHR_ETOOBIG (-7)   /* larger than a limit of the app */
#define PHR_EAGAIN (-11)   /* not now; the same call may succeed later */
#define PHR_ENOMEM (-12)   /* the app's memory is full */
#define PHR_EEXIST (-17)   /* it is already there, or already done */
#define PHR_EINVAL (-22)   /* an argument is wrong */
#define PHR_ENOTSUP (-95)  /* not in this build, or switched off */
#define PHR_ETIMEDOUT (-110) /* the time given has passed */
#define PHR_ECANCELED (-125) /* the session has ended; nothing that is sent now will arrive */

/* Returned by a function: fails the invocation with this status of its own (1 to 255) and forbids
 * another attempt. */
#define PHR_PERMANENT(status) (0x100 | (status))

/* The status's name, as text: "PHR_ENOMEM". Functions' own statuses are "failed". */
static inline const char *phr_strerror(phr_status status)
{
    switch (status) {
    case PHR_OK: return "PHR_OK";
    case PHR_EPERM: return "PHR_EPERM";
    case PHR_ENOENT: return "PHR_ENOENT";
    case PHR_EIO: return "PHR_EIO";
    case PHR_ETOOBIG: return "PHR_ETOOBIG";
    case PHR_EAGAIN: return "PHR_EAGAIN";
    case PHR_ENOMEM: return "PHR_ENOMEM";
    case PHR_EEXIST: return "PHR_EEXIST";
    case PHR_EINVAL: return "PHR_EINVAL";
    case PHR_ENOTSUP: return "PHR_ENOTSUP";
    case PHR_ETIMEDOUT: return "PHR_ETIMEDOUT";
    case PHR_ECANCELED: return "PHR_ECANCELED";
    default: return status > 0 ? "failed" : "unknown status";
    }
}

/* =================================================================================== types === */

typedef struct phr_ctx phr_ctx;                 /* one invocation, as its function sees it */
typedef struct phr_object phr_object;           /* an input (const), or an output not yet sent */
typedef struct phr_trigger_ctx phr_trigger_ctx; /* one call of a custom trigger */

/* How an object is sent. Start from PHR_SEND_OPTIONS and set what differs. */
typedef struct {
    size_t struct_size;   /* sizeof(phr_send_options) */
    uint32_t flags;       /* PHR_DURABLE, or 0 */
    uint32_t reserved;    /* 0 */
    const char *group;    /* NULL or "": none */
    const char *function; /* with bucket NULL: to this function only; else NULL */
    uint64_t delay_ns;    /* published when this has passed; 0: at once */
} phr_send_options;

#define PHR_SEND_OPTIONS { sizeof(phr_send_options), 0, 0, NULL, NULL, 0 }

/* phr_send_options.flags: return only once it is on disk, as phr_send_durable does */
#define PHR_DURABLE 1u

/* Levels of phr_log. */
#define PHR_DEBUG 0
#define PHR_INFO 1
#define PHR_WARN 2
#define PHR_ERROR 3

/* Longest message of phr_fail and line of phr_log in bytes, with the zero byte; more is cut. */
#define PHR_MESSAGE_MAX 1025
#define PHR_LOG_MAX 4096

/* What phr_arguments gives: the manifest's `arguments`, used by compat/cpp_function.hpp. */
#define PHR_ARGUMENTS_VALUES 0
#define PHR_ARGUMENTS_KEYS_AND_VALUES 1
#define PHR_ARGUMENTS_KEYS 2

/* What a custom trigger is told. Of an object only its metadata: its payload is for the functions.
 * The strings are never NULL, and valid until the trigger returns. Other kinds may be added: pass
 * over those that you do not know. */
typedef struct phr_event {
    uint32_t struct_size; /* sizeof(phr_event) of the executor */
    uint32_t kind;        /* PHR_EV_... */
    uint64_t object;      /* names the object in phr_fire and phr_drop, in this process; else 0 */
    uint64_t session;     /* whose object, or which session; of a tick 0 */
    uint64_t size_bytes;  /* of the payload */
    uint64_t time_ns;     /* when it arrived; of a tick, the time asked for */
    const char *bucket;   /* of an object, as are key and group; else "" */
    const char *key;
    const char *group;
} phr_event;

#define PHR_EV_OBJECT 1u      /* an object has arrived */
#define PHR_EV_SESSION_END 2u /* nothing else keeps this session open */
#define PHR_EV_TICK 3u        /* the time asked for by phr_tick_at has come */
#define PHR_EV_SESSION_GONE 4u /* this session has ended, and its objects are pending no more */

/* The payload of an object that tells of a failure, in an `on_failure` bucket. */
typedef struct phr_failure {
    uint32_t struct_size; /* sizeof(phr_failure) of the node */
    uint32_t attempt;     /* the last one, from 1 */
    int32_t status;       /* what the function returned; 0 where it did not return */
    int32_t signal;       /* what ended its process; 0 where none did */
    char function[64];    /* its name; the object's group as well */
    char message[1024];   /* the sentence that a caller would have read, cut to fit */
} phr_failure;

/* ========================================================================== the call table === */

/*
 * Private: use the calls further down. The table and everything that leads to it begin with their
 * sizes; the order of the members never changes, new ones are added at the end.
 */
typedef struct phr_api {
    size_t struct_size;
    uint32_t abi_major;
    uint32_t abi_minor;

    size_t (*input_count)(const phr_ctx *);
    const phr_object *(*input)(const phr_ctx *, size_t);
    const phr_object *(*input_named)(const phr_ctx *, const char *);
    const phr_object *(*request)(phr_ctx *);
    const char *(*request_header)(phr_ctx *, const char *);
    const char *(*request_header_of)(phr_ctx *, const phr_object *, const char *);

    const void *(*data)(const phr_object *);
    size_t (*size)(const phr_object *);
    const char *(*key)(const phr_object *);
    const char *(*bucket)(const phr_object *);
    const char *(*group)(const phr_object *);
    uint64_t (*object_session)(const phr_object *);
    uint64_t (*arrival_ns)(const phr_object *);
    size_t (*failed_input_count)(const phr_object *);
    const phr_object *(*failed_input)(const phr_object *, size_t);

    phr_object *(*create)(phr_ctx *, const char *, const char *, size_t);
    phr_object *(*create_for)(phr_ctx *, const char *, size_t);
    void *(*buffer)(phr_object *);
    phr_status (*truncate)(phr_object *, size_t);
    phr_status (*send)(phr_ctx *, phr_object *, const phr_send_options *);
    phr_status (*put)(phr_ctx *, const char *, const char *, const void *, size_t,
                      const phr_send_options *);
    phr_status (*forward)(phr_ctx *, const phr_object *, const char *, const char *,
                          const phr_send_options *);
    void (*discard)(phr_ctx *, phr_object *);

    phr_status (*respond)(phr_ctx *, phr_object *);
    phr_status (*respond_data)(phr_ctx *, const void *, size_t);
    phr_status (*respond_parts)(phr_ctx *, const phr_object *const *, size_t);
    phr_status (*respond_to)(phr_ctx *, const phr_object *, phr_object *);
    phr_status (*respond_session)(phr_ctx *, uint64_t, phr_object *);
    phr_status (*fail_session)(phr_ctx *, uint64_t, int, const char *);
    phr_status (*set_response_type)(phr_ctx *, const char *);
    phr_status (*set_response_status)(phr_ctx *, int);

    const phr_object *(*get)(phr_ctx *, const char *, const char *, uint64_t);
    const phr_object *(*load)(phr_ctx *, const char *, const char *);
    phr_status (*delete_object)(phr_ctx *, const char *, const char *);

    phr_status (*join)(phr_ctx *, const char *, const char *, const char *const *, size_t);
    phr_status (*redundant)(phr_ctx *, const char *, const char *, uint32_t, uint32_t);
    phr_status (*expect_sources)(phr_ctx *, const char *, const char *, uint32_t);
    phr_status (*close_source)(phr_ctx *, const char *, const char *);

    const char *(*app)(const phr_ctx *);
    const char *(*function)(const phr_ctx *);
    const char *(*trigger)(const phr_ctx *);
    const char *(*config)(const phr_ctx *, const char *);
    uint64_t (*session)(const phr_ctx *);
    uint64_t (*invocation)(const phr_ctx *);
    uint64_t (*deadline_ns)(const phr_ctx *);
    uint64_t (*now_ns)(const phr_ctx *);
    uint64_t (*wall_ns)(const phr_ctx *, uint64_t);
    uint32_t (*attempt)(const phr_ctx *);
    uint32_t (*parallelism)(const phr_ctx *);
    size_t (*parent_count)(const phr_ctx *);
    uint64_t (*parent)(const phr_ctx *, size_t);
    int (*cancelled)(const phr_ctx *);
    phr_status (*window)(const phr_ctx *, uint64_t *, uint64_t *);
    int (*arguments)(const phr_ctx *);

    void (*log_text)(const phr_ctx *, int, const char *, size_t);
    int (*fail_text)(phr_ctx *, int, const char *, size_t);
    phr_status (*last_status)(const phr_ctx *);
    const char *(*last_error)(const phr_ctx *);
    phr_status (*set_local)(phr_ctx *, void *, void (*)(void *));
    void *(*local)(const phr_ctx *);

    phr_status (*fire)(phr_trigger_ctx *, const char *, const uint64_t *, size_t);
    phr_status (*drop)(phr_trigger_ctx *, const uint64_t *, size_t);
    phr_status (*tick_at)(phr_trigger_ctx *, uint64_t);
    void **(*trigger_state)(phr_trigger_ctx *);
    const char *(*trigger_config)(phr_trigger_ctx *, const char *);
} phr_api;

/* How a phr_ctx, a phr_object and a phr_trigger_ctx begin. */
typedef struct phr_head {
    size_t struct_size;
    const phr_api *api;
} phr_head;

#define PHR_TABLE_(handle) (((const phr_head *)(const void *)(handle))->api)

/* ================================================================ functions and their marks == */

#define PHR_KIND_FUNCTION 1u
#define PHR_KIND_INIT 2u
#define PHR_KIND_TRIGGER 3u

typedef int (*phr_function_entry)(phr_ctx *ctx);
typedef int (*phr_trigger_entry)(phr_trigger_ctx *t, const phr_event *events, size_t count);

/*
 * What the macros below export beside each symbol S, under the name phr_abi_S: what S is, the ABI
 * it was compiled with, and where it begins.
 */
typedef struct phr_mark {
    uint32_t struct_size;
    uint16_t abi_major;
    uint16_t abi_minor;
    uint32_t kind; /* PHR_KIND_... */
    uint32_t reserved;
    phr_function_entry entry;  /* of a function or an initializer, else NULL */
    phr_trigger_entry trigger; /* of a trigger, else NULL */
} phr_mark;

#define PHR_MARK_(mark, label, kind, entry, trigger)                                               \
    PHR_EXTERN_ PHR_EXPORT_ const phr_mark mark label;                                             \
    const phr_mark mark = { sizeof(phr_mark), PHR_ABI_MAJOR, PHR_ABI_MINOR,                        \
                            kind, 0, entry, trigger };

/*
 * PHR_FUNCTION(name) { ... }
 *     Defines and exports int name(phr_ctx *ctx). The body returns PHR_OK; or 1 to 255, which
 *     fails this attempt; or PHR_PERMANENT(1..255), which fails the invocation; or a negative
 *     phr_status passed on, which fails this attempt with phr_last_error as its message.
 *
 * PHR_FUNCTION_AS(c_name, "symbol") { ... }
 *     The same, exported under another name than the C one: for names that clash with the C
 *     library's (log, accept).
 */
#define PHR_FUNCTION(name) PHR_FUNCTION_(name, , phr_abi_##name, )
#define PHR_FUNCTION_AS(c_name, symbol)                                                            \
    PHR_FUNCTION_(c_name, __asm__(symbol), phr_abi_##c_name, __asm__("phr_abi_" symbol))
#define PHR_FUNCTION_(name, label, mark, mark_label)                                               \
    PHR_EXTERN_ PHR_EXPORT_ int name(phr_ctx *ctx) label;                                          \
    PHR_MARK_(mark, mark_label, PHR_KIND_FUNCTION, name, NULL)                                     \
    int name(phr_ctx *ctx)

/*
 * PHR_INIT(symbol) { ... }
 *     Stands beside the function exported as `symbol` and runs once per function and process,
 *     before its first invocation there, without inputs. It may use phr_config, phr_set_local,
 *     phr_load, phr_log and phr_fail; another call is PHR_EPERM. What it returns is judged like a
 *     function's value: an error fails the attempt and replaces the process.
 */
#define PHR_INIT(symbol)                                                                           \
    PHR_EXTERN_ PHR_EXPORT_ int phr_init_##symbol(phr_ctx *ctx);                                   \
    PHR_MARK_(phr_abi_phr_init_##symbol, , PHR_KIND_INIT, phr_init_##symbol, NULL)                 \
    int phr_init_##symbol(phr_ctx *ctx)

/*
 * PHR_TRIGGER(name) { ... }
 *     Defines and exports int name(phr_trigger_ctx *t, const phr_event *events, size_t count): a
 *     custom trigger. It runs in a process of its own and is called with what has happened since
 *     its last call. What it answers by phr_fire, phr_drop and phr_tick_at takes effect together
 *     when it returns 0; when it returns anything else, crashes, or takes longer than its
 *     `timeout`, nothing does, and a fresh process is told of everything that is pending, oldest
 *     first: what it remembers must follow from the pending objects. Three failures in a row fail
 *     the sessions with pending objects.
 */
#define PHR_TRIGGER(name)                                                                          \
    PHR_EXTERN_ PHR_EXPORT_ int name(phr_trigger_ctx *t, const phr_event *events, size_t count);   \
    PHR_MARK_(phr_abi_##name, , PHR_KIND_TRIGGER, NULL, name)                                      \
    int name(phr_trigger_ctx *t, const phr_event *events, size_t count)

/* ================================================================================== inputs === */

/* How many objects triggered this invocation. 0 only for a join over no keys and for an empty
 * window; an external call has one, its body, with bucket "" and key "request". */
static inline size_t phr_input_count(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->input_count(ctx) : 0;
}

/* The i-th, in the order that the trigger defines; NULL past the end. */
static inline const phr_object *phr_input(const phr_ctx *ctx, size_t i)
{
    return ctx ? PHR_TABLE_(ctx)->input(ctx, i) : NULL;
}

/* The first with that key, or NULL. */
static inline const phr_object *phr_input_named(const phr_ctx *ctx, const char *key)
{
    return ctx ? PHR_TABLE_(ctx)->input_named(ctx, key) : NULL;
}

/* The payload, in shared memory and aligned to 64 bytes; a zero byte follows it. Never NULL for an
 * object, also when it is empty. */
static inline const void *phr_data(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->data(object) : NULL;
}

/* Bytes of the payload. */
static inline size_t phr_size(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->size(object) : 0;
}

/* Its key; automatic keys read "~I.N". */
static inline const char *phr_key(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->key(object) : "";
}

/* Its bucket; "" for a direct object and for the request. */
static inline const char *phr_bucket(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->bucket(object) : "";
}

/* Its group; "" for none. */
static inline const char *phr_group(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->group(object) : "";
}

/* The session that published it. */
static inline uint64_t phr_object_session(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->object_session(object) : 0;
}

/* When the scheduler took it in; 0 for an object not sent yet. */
static inline uint64_t phr_arrival_ns(const phr_object *object)
{
    return object ? PHR_TABLE_(object)->arrival_ns(object) : 0;
}

/* The body of the call that opened this session, in every function of an app with
 * `keep_request = true`; else NULL and PHR_ENOENT. To share a large input, send ranges and let the
 * receivers look at the whole: nothing is copied. */
static inline const phr_object *phr_request(phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->request(ctx) : NULL;
}

/* A header of the call that opened this session: Content-Type, traceparent or Pheromone-*, in any
 * case; NULL and PHR_ENOENT where it had none. */
static inline const char *phr_request_header(phr_ctx *ctx, const char *name)
{
    return ctx ? PHR_TABLE_(ctx)->request_header(ctx, name) : NULL;
}

/* The same of the call that opened an input's session; where that is not this one: [later]. */
static inline const char *phr_request_header_of(phr_ctx *ctx, const phr_object *input,
                                                const char *name)
{
    return ctx ? PHR_TABLE_(ctx)->request_header_of(ctx, input, name) : NULL;
}

/* ================================================================================= outputs === */

/* A writable object of `size` bytes. `bucket` NULL: a direct object for the function's `next`
 * functions, or for a response. `key` NULL: an automatic key. NULL on an error: an undeclared
 * bucket is PHR_ENOENT, one that the manifest's `sends` does not list PHR_EPERM, a size above
 * `object_size` PHR_ETOOBIG, a full store PHR_ENOMEM (after `create_wait`). */
static inline phr_object *phr_create(phr_ctx *ctx, const char *bucket, const char *key, size_t size)
{
    return ctx ? PHR_TABLE_(ctx)->create(ctx, bucket, key, size) : NULL;
}

/* A direct object for one function: one of `next`, or of `calls`; else PHR_EPERM. */
static inline phr_object *phr_create_for(phr_ctx *ctx, const char *function, size_t size)
{
    return ctx ? PHR_TABLE_(ctx)->create_for(ctx, function, size) : NULL;
}

/* Where to write. Never NULL for an unsent object; the byte after the buffer may be written, and
 * is zero once the object is sent. */
static inline void *phr_buffer(phr_object *object)
{
    return object ? PHR_TABLE_(object)->buffer(object) : NULL;
}

/* The final size, at most the size created; the memory beyond it is given back. */
static inline phr_status phr_truncate(phr_object *object, size_t size)
{
    return object ? PHR_TABLE_(object)->truncate(object, size) : PHR_EINVAL;
}

/* Publish: immutable from here on, and its triggers are evaluated, now or when `delay_ns` has
 * passed. What is delayed keeps its session open. `options` may be NULL. */
static inline phr_status phr_send_with(phr_ctx *ctx, phr_object *object,
                                       const phr_send_options *options)
{
    return ctx ? PHR_TABLE_(ctx)->send(ctx, object, options) : PHR_EINVAL;
}

/* Publish. A direct object without any `next` is PHR_EINVAL. */
static inline phr_status phr_send(phr_ctx *ctx, phr_object *object)
{
    return phr_send_with(ctx, object, NULL);
}

/* Publish as a member of a group. */
static inline phr_status phr_send_in_group(phr_ctx *ctx, phr_object *object, const char *group)
{
    phr_send_options options = PHR_SEND_OPTIONS;
    options.group = group;
    return phr_send_with(ctx, object, &options);
}

/* Publish into a bucket, and return only once it is on disk: what this has returned for, every
 * later phr_load sees, also after a crash of the node. It stays for its bucket's `retain` (where
 * the manifest gives none: for ever) or until it is deleted. PHR_EEXIST: there is one of this name,
 * and its bucket says `replace = false`; PHR_EIO: the disk has refused; PHR_ENOTSUP: the node keeps
 * nothing on disk. On an error the object is still yours. A direct object is PHR_EINVAL. */
static inline phr_status phr_send_durable(phr_ctx *ctx, phr_object *object)
{
    phr_send_options options = PHR_SEND_OPTIONS;
    options.flags = PHR_DURABLE;
    return phr_send_with(ctx, object, &options);
}

/* Create, copy, send. `data` may be NULL when `size` is 0. */
static inline phr_status phr_put_with(phr_ctx *ctx, const char *bucket, const char *key,
                                      const void *data, size_t size,
                                      const phr_send_options *options)
{
    return ctx ? PHR_TABLE_(ctx)->put(ctx, bucket, key, data, size, options) : PHR_EINVAL;
}

/* Create, copy, send, without options. */
static inline phr_status phr_put(phr_ctx *ctx, const char *bucket, const char *key,
                                 const void *data, size_t size)
{
    return phr_put_with(ctx, bucket, key, data, size, NULL);
}

/* Publish an input (or what phr_get or phr_request gave) again under another name, without copying
 * its payload. `bucket` NULL: direct. It has no group unless `options` gives it one. */
static inline phr_status phr_forward_with(phr_ctx *ctx, const phr_object *input, const char *bucket,
                                          const char *key, const phr_send_options *options)
{
    return ctx ? PHR_TABLE_(ctx)->forward(ctx, input, bucket, key, options) : PHR_EINVAL;
}

/* The same without options. */
static inline phr_status phr_forward(phr_ctx *ctx, const phr_object *input, const char *bucket,
                                     const char *key)
{
    return phr_forward_with(ctx, input, bucket, key, NULL);
}

/* Give an unsent object back. NULL and an object already sent are left alone. */
static inline void phr_discard(phr_ctx *ctx, phr_object *object)
{
    if (ctx != NULL && object != NULL)
        PHR_TABLE_(ctx)->discard(ctx, object);
}

/* =============================================================================== responses === */

/*
 * The first response of a session is its caller's answer; the session goes on. A further attempt's
 * response is PHR_OK and the first stands; a second one of the same attempt is PHR_EEXIST. In a
 * session without a caller all of them are PHR_ENOENT.
 */

/* Any unsent object, created with NULL and NULL as a rule. */
static inline phr_status phr_respond(phr_ctx *ctx, phr_object *object)
{
    return ctx ? PHR_TABLE_(ctx)->respond(ctx, object) : PHR_EINVAL;
}

/* Copies and responds. */
static inline phr_status phr_respond_data(phr_ctx *ctx, const void *data, size_t size)
{
    return ctx ? PHR_TABLE_(ctx)->respond_data(ctx, data, size) : PHR_EINVAL;
}

/* The body is these payloads in this order, not copied together, and not bound by `object_size`.
 * Each is an input, or what phr_get or phr_request gave. */
static inline phr_status phr_respond_parts(phr_ctx *ctx, const phr_object *const *inputs,
                                           size_t count)
{
    return ctx ? PHR_TABLE_(ctx)->respond_parts(ctx, inputs, count) : PHR_EINVAL;
}

/* Answers the session that `input` came from: one contributor out of a batch. An answer to a
 * session that has ended is dropped and counted. */
static inline phr_status phr_respond_to(phr_ctx *ctx, const phr_object *input, phr_object *object)
{
    return ctx ? PHR_TABLE_(ctx)->respond_to(ctx, input, object) : PHR_EINVAL;
}

/* Answers this session or any ancestor: see phr_parent. PHR_EINVAL for session 0. */
static inline phr_status phr_respond_session(phr_ctx *ctx, uint64_t session, phr_object *object)
{
    return ctx ? PHR_TABLE_(ctx)->respond_session(ctx, session, object) : PHR_EINVAL;
}

/* Fails one contributor (or this session), not the whole batch, with a status as a function returns
 * it and up to 1 KiB of message. PHR_EEXIST where this attempt has answered it. */
static inline phr_status phr_fail_session(phr_ctx *ctx, uint64_t session, int status,
                                          const char *message)
{
    return ctx ? PHR_TABLE_(ctx)->fail_session(ctx, session, status, message) : PHR_EINVAL;
}

/* Content type of the answers given after it, up to 255 bytes; NULL or "" for the default. */
static inline phr_status phr_set_response_type(phr_ctx *ctx, const char *type)
{
    return ctx ? PHR_TABLE_(ctx)->set_response_type(ctx, type) : PHR_EINVAL;
}

/* HTTP status of the answers given after it, 200 to 599. */
static inline phr_status phr_set_response_status(phr_ctx *ctx, int http)
{
    return ctx ? PHR_TABLE_(ctx)->set_response_status(ctx, http) : PHR_EINVAL;
}

/* ====================================================================== looking things up ==== */

/* An object of this session; where there is none yet, waits for it at most `timeout_ns` (0: not at
 * all; UINT64_MAX: as long as it takes), and never past phr_deadline_ns. `key` may be the text of
 * an automatic key. A direct object is not found, nor one of a bucket that keeps none.
 *
 * NULL and PHR_ENOENT where there is none, or, when waiting, as soon as nothing is left that could
 * publish it; PHR_ETIMEDOUT when the time has passed; PHR_EAGAIN where as many invocations of the
 * app wait as may (`waiters`); PHR_ENOMEM where there is no memory to hold it; PHR_ECANCELED once
 * the session has ended. While it waits, another process of the app may run in its place. */
static inline const phr_object *phr_get(phr_ctx *ctx, const char *bucket, const char *key,
                                        uint64_t timeout_ns)
{
    return ctx ? PHR_TABLE_(ctx)->get(ctx, bucket, key, timeout_ns) : NULL;
}

/* A durable or retained object, of whichever session (of several sessions' retained ones the last
 * to arrive). `key` may be the text of an automatic key. NULL and PHR_ENOENT where there is none;
 * PHR_ENOMEM where there is no memory to hold it; PHR_EIO where the disk cannot give it. */
static inline const phr_object *phr_load(phr_ctx *ctx, const char *bucket, const char *key)
{
    return ctx ? PHR_TABLE_(ctx)->load(ctx, bucket, key) : NULL;
}

/* Of an object of this session: release its bucket's hold (`keep`). Of a durable object, of
 * whichever session: delete it. */
static inline phr_status phr_delete(phr_ctx *ctx, const char *bucket, const char *key)
{
    return ctx ? PHR_TABLE_(ctx)->delete_object(ctx, bucket, key) : PHR_EINVAL;
}

/* ======================================================== steering triggers at run time ====== */

/*
 * What the manifest leaves open, said about a trigger of this session by its bucket and name. Each
 * call returns as soon as its message is on its way. PHR_ENOENT: there is no such bucket, or it
 * has no such trigger. PHR_EINVAL: the trigger is of another type, the manifest has said already
 * what the call says, or the numbers or keys are wrong. A further attempt's same call is the same
 * call, not another one.
 */

/* A dynamic_join: fire when all these keys are there, with their objects in this order, whichever
 * came first, the objects or the list; with no keys at once, without inputs. Lists are independent
 * of each other. A key twice in one list is PHR_EINVAL; keys may be the texts of automatic ones.
 * The strings are copied. */
static inline phr_status phr_join(phr_ctx *ctx, const char *bucket, const char *trigger,
                                  const char *const *keys, size_t count)
{
    return ctx ? PHR_TABLE_(ctx)->join(ctx, bucket, trigger, keys, count) : PHR_EINVAL;
}

/* A redundant trigger without `k` and `n` in the manifest: rounds of this session fire on the k-th
 * of n objects; until they are told, objects wait. 1 <= k <= n, else PHR_EINVAL. */
static inline phr_status phr_redundant(phr_ctx *ctx, const char *bucket, const char *trigger,
                                       uint32_t k, uint32_t n)
{
    return ctx ? PHR_TABLE_(ctx)->redundant(ctx, bucket, trigger, k, n) : PHR_EINVAL;
}

/* A dynamic_group with neither `sources` nor `after` in the manifest: fire its groups when so many
 * sources have closed; 0 closes it at once. */
static inline phr_status phr_expect_sources(phr_ctx *ctx, const char *bucket, const char *trigger,
                                            uint32_t sources)
{
    return ctx ? PHR_TABLE_(ctx)->expect_sources(ctx, bucket, trigger, sources) : PHR_EINVAL;
}

/* This invocation is a source of a dynamic_group without `after`, and closed once it has succeeded.
 * However often it says so, it counts once. */
static inline phr_status phr_close_source(phr_ctx *ctx, const char *bucket, const char *trigger)
{
    return ctx ? PHR_TABLE_(ctx)->close_source(ctx, bucket, trigger) : PHR_EINVAL;
}

/* ========================================================= custom triggers and failures ====== */

/* Fires one of the trigger's functions, or all of them (NULL), with these objects in this order.
 * They are pending no more, unless the manifest says keep = true. PHR_ENOENT: no such function in
 * the trigger's `function` or `functions`, or an object that is not pending. PHR_EINVAL: no
 * objects, one twice, or of several sessions in a trigger with scope = "session". With objects of a
 * session that has ended it is PHR_OK and does nothing. */
static inline phr_status phr_fire(phr_trigger_ctx *t, const char *function, const uint64_t *objects,
                                  size_t count)
{
    return t ? PHR_TABLE_(t)->fire(t, function, objects, count) : PHR_EINVAL;
}

/* Drops these objects: they are pending no more. Errors as of phr_fire; objects of several sessions
 * are no error. */
static inline phr_status phr_drop(phr_trigger_ctx *t, const uint64_t *objects, size_t count)
{
    return t ? PHR_TABLE_(t)->drop(t, objects, count) : PHR_EINVAL;
}

/* Has the trigger called with PHR_EV_TICK at this time (at once, where it is past). There is one
 * such time: another call replaces it, UINT64_MAX calls it off, and it is gone with the process. It
 * keeps no session open. */
static inline phr_status phr_tick_at(phr_trigger_ctx *t, uint64_t time_ns)
{
    return t ? PHR_TABLE_(t)->tick_at(t, time_ns) : PHR_EINVAL;
}

/* Where one pointer of the trigger's own is kept between calls: NULL in a fresh process, which must
 * build it anew from the objects that it is told of. */
static inline void **phr_trigger_state(phr_trigger_ctx *t)
{
    return t ? PHR_TABLE_(t)->trigger_state(t) : NULL;
}

/* A value of the trigger's `config`; NULL where there is none. */
static inline const char *phr_trigger_config(phr_trigger_ctx *t, const char *name)
{
    return t ? PHR_TABLE_(t)->trigger_config(t, name) : NULL;
}

/* How many inputs the failed invocation had, for an object of an `on_failure` bucket, also for one
 * that was forwarded; 0 for any other object. */
static inline size_t phr_failed_input_count(const phr_object *failure)
{
    return failure ? PHR_TABLE_(failure)->failed_input_count(failure) : 0;
}

/* The i-th of them, valid until the function returns, to be read, forwarded and answered with like
 * any input. NULL past the end, from another thread than the function's, and (with a status) where
 * the invocation holds as many objects as it may. The first call fetches all of them. */
static inline const phr_object *phr_failed_input(const phr_object *failure, size_t i)
{
    return failure ? PHR_TABLE_(failure)->failed_input(failure, i) : NULL;
}

/* ==================================================================== about the invocation === */

/* The app's name. */
static inline const char *phr_app(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->app(ctx) : NULL;
}

/* This function's name in the manifest. */
static inline const char *phr_function(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->function(ctx) : NULL;
}

/* The name of the trigger that fired; "" for a call and for a direct object. */
static inline const char *phr_trigger(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->trigger(ctx) : NULL;
}

/* A value of the manifest's `config`, as text; NULL where there is none. */
static inline const char *phr_config(const phr_ctx *ctx, const char *name)
{
    return ctx ? PHR_TABLE_(ctx)->config(ctx, name) : NULL;
}

/* The session's id. */
static inline uint64_t phr_session(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->session(ctx) : 0;
}

/* The invocation's id, the same for all its attempts. */
static inline uint64_t phr_invocation(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->invocation(ctx) : 0;
}

/* The nearer of the session's and this attempt's deadline; UINT64_MAX for none. */
static inline uint64_t phr_deadline_ns(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->deadline_ns(ctx) : UINT64_MAX;
}

/* CLOCK_MONOTONIC. From any thread. */
static inline uint64_t phr_now_ns(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->now_ns(ctx) : 0;
}

/* A monotonic time as nanoseconds since 1970, by today's clock. */
static inline uint64_t phr_wall_ns(const phr_ctx *ctx, uint64_t monotonic_ns)
{
    return ctx ? PHR_TABLE_(ctx)->wall_ns(ctx, monotonic_ns) : 0;
}

/* 1 for the first attempt. */
static inline uint32_t phr_attempt(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->attempt(ctx) : 0;
}

/* How many executors this app may have at once. */
static inline uint32_t phr_parallelism(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->parallelism(ctx) : 0;
}

/* The sessions whose objects were gathered into this one; 0 for any other. */
static inline size_t phr_parent_count(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->parent_count(ctx) : 0;
}

/* The i-th of them; 0 past the end. */
static inline uint64_t phr_parent(const phr_ctx *ctx, size_t i)
{
    return ctx ? PHR_TABLE_(ctx)->parent(ctx, i) : 0;
}

/* 1 once the session has ended under the function: return soon. From any thread. */
static inline int phr_cancelled(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->cancelled(ctx) : 0;
}

/* Start and end of the window that fired; of a batch, when its first and its last object arrived.
 * PHR_ENOENT outside of both. Either pointer may be NULL. */
static inline phr_status phr_window(const phr_ctx *ctx, uint64_t *start_ns, uint64_t *end_ns)
{
    return ctx ? PHR_TABLE_(ctx)->window(ctx, start_ns, end_ns) : PHR_EINVAL;
}

/* PHR_ARGUMENTS_...: the manifest's `arguments`. */
static inline int phr_arguments(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->arguments(ctx) : PHR_ARGUMENTS_VALUES;
}

/* ================================================================ errors, log, local state === */

/* The status of the last failed call of this invocation; PHR_OK where none has failed. */
static inline phr_status phr_last_status(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->last_status(ctx) : PHR_EINVAL;
}

/* Its whole sentence, until the next call that fails; "" where none has failed. */
static inline const char *phr_last_error(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->last_error(ctx) : "the phr_ctx is NULL";
}

/* Records a message for a failed attempt, up to 1 KiB, and returns `status`:
 *     return phr_fail(ctx, 3, "no table %s", name); */
PHR_PRINTF_(3, 4)
static inline int phr_fail(phr_ctx *ctx, int status, const char *format, ...)
{
    char message[PHR_MESSAGE_MAX];
    va_list arguments;
    int length;

    if (ctx == NULL || format == NULL)
        return status;
    va_start(arguments, format);
    length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0)
        length = 0;
    if ((size_t)length >= sizeof message)
        length = (int)sizeof message - 1;
    return PHR_TABLE_(ctx)->fail_text(ctx, status, message, (size_t)length);
}

/* A line (or several) of the log, tagged with app, function, session and invocation; at most
 * PHR_LOG_MAX - 1 bytes. From any thread. stdout and stderr are tagged in the same way. */
PHR_PRINTF_(3, 4)
static inline void phr_log(const phr_ctx *ctx, int level, const char *format, ...)
{
    char message[PHR_LOG_MAX];
    va_list arguments;
    int length;

    if (ctx == NULL || format == NULL)
        return;
    va_start(arguments, format);
    length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if ((size_t)length >= sizeof message)
        length = (int)sizeof message - 1;
    PHR_TABLE_(ctx)->log_text(ctx, level, message, (size_t)length);
}

/* Keeps one pointer per function and process: a loaded model, an open connection. The destructor
 * (which may be NULL) is called when another pointer takes its place and when the process leaves in
 * order. */
static inline phr_status phr_set_local(phr_ctx *ctx, void *pointer, void (*destructor)(void *))
{
    return ctx ? PHR_TABLE_(ctx)->set_local(ctx, pointer, destructor) : PHR_EINVAL;
}

/* That pointer; NULL where none was set. */
static inline void *phr_local(const phr_ctx *ctx)
{
    return ctx ? PHR_TABLE_(ctx)->local(ctx) : NULL;
}

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* PHEROMONE_H */
