/* Pins what pheromone.h promises to code that is compiled against it: the exact type of every call,
 * the numbers, and how the structs are laid out. It is compiled as C11 and as C++17 with warnings
 * as errors, and never run: a line here changes only with the major ABI. */
#include <pheromone.h>

#if !defined(__cplusplus)
#define static_assert _Static_assert
#endif

/* -------------------------------------------------------------------------------- status codes */

static_assert(sizeof(phr_status) == sizeof(int), "a phr_status is an int");
static_assert(PHR_OK == 0, "success is 0");
static_assert(PHR_EINVAL < 0 && PHR_ENOMEM < 0 && PHR_ENOENT < 0 && PHR_EEXIST < 0 &&
                  PHR_EAGAIN < 0 && PHR_ETIMEDOUT < 0 && PHR_EPERM < 0 && PHR_ECANCELED < 0 &&
                  PHR_EIO < 0 && PHR_ETOOBIG < 0 && PHR_ENOTSUP < 0,
              "errors are negative");
static_assert(PHR_PERMANENT(1) == 0x101 && PHR_PERMANENT(255) == 0x1ff, "0x100 | status");

typedef const char *(*text_of_status)(phr_status);
typedef phr_status (*status_of)(const phr_ctx *);
typedef const char *(*text_of)(const phr_ctx *);

/* -------------------------------------------------------------------------------------- inputs */

typedef size_t (*count_of)(const phr_ctx *);
typedef const phr_object *(*nth)(const phr_ctx *, size_t);
typedef const phr_object *(*named)(const phr_ctx *, const char *);
typedef const void *(*data_of)(const phr_object *);
typedef size_t (*size_of)(const phr_object *);
typedef const char *(*name_of)(const phr_object *);
typedef uint64_t (*number_of_object)(const phr_object *);
typedef const phr_object *(*request_of)(phr_ctx *);
typedef const char *(*header_of)(phr_ctx *, const char *);
typedef const char *(*header_of_input)(phr_ctx *, const phr_object *, const char *);

/* ------------------------------------------------------------------------------------- outputs */

typedef phr_object *(*create)(phr_ctx *, const char *, const char *, size_t);
typedef phr_object *(*create_for)(phr_ctx *, const char *, size_t);
typedef void *(*buffer_of)(phr_object *);
typedef phr_status (*truncate_to)(phr_object *, size_t);
typedef phr_status (*send_one)(phr_ctx *, phr_object *);
typedef phr_status (*send_in_group)(phr_ctx *, phr_object *, const char *);
typedef phr_status (*send_with)(phr_ctx *, phr_object *, const phr_send_options *);
typedef phr_status (*put)(phr_ctx *, const char *, const char *, const void *, size_t);
typedef phr_status (*put_with)(phr_ctx *, const char *, const char *, const void *, size_t,
                               const phr_send_options *);
typedef phr_status (*forward)(phr_ctx *, const phr_object *, const char *, const char *);
typedef phr_status (*forward_with)(phr_ctx *, const phr_object *, const char *, const char *,
                                   const phr_send_options *);
typedef void (*discard)(phr_ctx *, phr_object *);

static_assert(offsetof(phr_send_options, struct_size) == 0, "options begin with their size");
static_assert(offsetof(phr_send_options, flags) == 8 && offsetof(phr_send_options, reserved) == 12,
              "two words of 32 bits");
static_assert(offsetof(phr_send_options, group) == 16 &&
                  offsetof(phr_send_options, function) == 24 &&
                  offsetof(phr_send_options, delay_ns) == 32 && sizeof(phr_send_options) == 40,
              "then two pointers and a number");

/* ----------------------------------------------------------------------------------- responses */

typedef phr_status (*respond_data)(phr_ctx *, const void *, size_t);
typedef phr_status (*respond_parts)(phr_ctx *, const phr_object *const *, size_t);
typedef phr_status (*respond_to)(phr_ctx *, const phr_object *, phr_object *);
typedef phr_status (*respond_session)(phr_ctx *, uint64_t, phr_object *);
typedef phr_status (*fail_session)(phr_ctx *, uint64_t, int, const char *);
typedef phr_status (*set_type)(phr_ctx *, const char *);
typedef phr_status (*set_status)(phr_ctx *, int);

/* ------------------------------------------------------------------- looking up, and steering */

typedef const phr_object *(*get)(phr_ctx *, const char *, const char *, uint64_t);
typedef const phr_object *(*load)(phr_ctx *, const char *, const char *);
typedef phr_status (*with_names)(phr_ctx *, const char *, const char *);
typedef phr_status (*join)(phr_ctx *, const char *, const char *, const char *const *, size_t);
typedef phr_status (*redundant)(phr_ctx *, const char *, const char *, uint32_t, uint32_t);
typedef phr_status (*expect_sources)(phr_ctx *, const char *, const char *, uint32_t);

/* ------------------------------------------------------------------ custom triggers, failures */

typedef phr_status (*fire)(phr_trigger_ctx *, const char *, const uint64_t *, size_t);
typedef phr_status (*drop)(phr_trigger_ctx *, const uint64_t *, size_t);
typedef phr_status (*tick_at)(phr_trigger_ctx *, uint64_t);
typedef void **(*trigger_state)(phr_trigger_ctx *);
typedef const char *(*trigger_config)(phr_trigger_ctx *, const char *);
typedef const phr_object *(*failed_input)(const phr_object *, size_t);

static_assert(offsetof(phr_event, struct_size) == 0 && offsetof(phr_event, kind) == 4 &&
                  offsetof(phr_event, object) == 8 && offsetof(phr_event, session) == 16 &&
                  offsetof(phr_event, size_bytes) == 24 && offsetof(phr_event, time_ns) == 32 &&
                  offsetof(phr_event, bucket) == 40 && offsetof(phr_event, key) == 48 &&
                  offsetof(phr_event, group) == 56 && sizeof(phr_event) == 64,
              "an event is one cache line");
static_assert(offsetof(phr_failure, struct_size) == 0 && offsetof(phr_failure, attempt) == 4 &&
                  offsetof(phr_failure, status) == 8 && offsetof(phr_failure, signal) == 12 &&
                  offsetof(phr_failure, function) == 16 && offsetof(phr_failure, message) == 80 &&
                  sizeof(phr_failure) == 1104,
              "a failure has texts of 64 and 1024 bytes");

/* ------------------------------------------------------------------------ about the invocation */

typedef const char *(*config_of)(const phr_ctx *, const char *);
typedef uint64_t (*number_of)(const phr_ctx *);
typedef uint64_t (*wall_ns)(const phr_ctx *, uint64_t);
typedef uint32_t (*small_number_of)(const phr_ctx *);
typedef uint64_t (*parent)(const phr_ctx *, size_t);
typedef int (*flag_of)(const phr_ctx *);
typedef phr_status (*window)(const phr_ctx *, uint64_t *, uint64_t *);
typedef int (*fail)(phr_ctx *, int, const char *, ...);
typedef void (*log_line)(const phr_ctx *, int, const char *, ...);
typedef phr_status (*set_local)(phr_ctx *, void *, void (*)(void *));
typedef void *(*local)(const phr_ctx *);

/* Every call with its type: one of another type does not initialize the member. */
struct calls {
    text_of_status strerror;
    status_of last_status;
    text_of last_error, app, function, trigger;
    count_of input_count, parent_count;
    nth input;
    named input_named;
    data_of data;
    size_of size, failed_input_count;
    name_of key, bucket, group;
    number_of_object object_session, arrival_ns;
    request_of request;
    header_of request_header;
    header_of_input request_header_of;
    create create_object;
    create_for create_for_function;
    buffer_of buffer;
    truncate_to truncate;
    send_one send, send_durable, respond;
    send_in_group send_grouped;
    send_with send_optioned;
    put put_object;
    put_with put_optioned;
    forward forward_object;
    forward_with forward_optioned;
    discard discard_object;
    respond_data respond_with_data;
    respond_parts respond_with_parts;
    respond_to respond_to_input;
    respond_session respond_to_session;
    fail_session fail_one_session;
    set_type set_response_type;
    set_status set_response_status;
    get get_object;
    load load_object;
    with_names delete_object, close_source;
    join join_keys;
    redundant set_redundant;
    expect_sources set_sources;
    fire fire_function;
    drop drop_objects;
    tick_at tick;
    trigger_state state;
    trigger_config own_config;
    failed_input nth_failed_input;
    config_of config;
    number_of session, invocation, deadline_ns, now_ns;
    wall_ns wall;
    small_number_of attempt, parallelism;
    parent nth_parent;
    flag_of cancelled;
    window window_of;
    fail fail_with;
    log_line log;
    set_local set;
    local get_local;
};

extern const struct calls calls;
const struct calls calls = {
    phr_strerror,
    phr_last_status,
    phr_last_error, phr_app, phr_function, phr_trigger,
    phr_input_count, phr_parent_count,
    phr_input,
    phr_input_named,
    phr_data,
    phr_size, phr_failed_input_count,
    phr_key, phr_bucket, phr_group,
    phr_object_session, phr_arrival_ns,
    phr_request,
    phr_request_header,
    phr_request_header_of,
    phr_create,
    phr_create_for,
    phr_buffer,
    phr_truncate,
    phr_send, phr_send_durable, phr_respond,
    phr_send_in_group,
    phr_send_with,
    phr_put,
    phr_put_with,
    phr_forward,
    phr_forward_with,
    phr_discard,
    phr_respond_data,
    phr_respond_parts,
    phr_respond_to,
    phr_respond_session,
    phr_fail_session,
    phr_set_response_type,
    phr_set_response_status,
    phr_get,
    phr_load,
    phr_delete, phr_close_source,
    phr_join,
    phr_redundant,
    phr_expect_sources,
    phr_fire,
    phr_drop,
    phr_tick_at,
    phr_trigger_state,
    phr_trigger_config,
    phr_failed_input,
    phr_config,
    phr_session, phr_invocation, phr_deadline_ns, phr_now_ns,
    phr_wall_ns,
    phr_attempt, phr_parallelism,
    phr_parent,
    phr_cancelled,
    phr_window,
    phr_fail,
    phr_log,
    phr_set_local,
    phr_local,
};

/* ------------------------------------------------------------------- functions and their marks */

static_assert(PHR_DEBUG < PHR_INFO && PHR_INFO < PHR_WARN && PHR_WARN < PHR_ERROR, "levels rise");

PHR_INIT(answers)
{
    int (*own)(phr_ctx *) = phr_init_answers;

    return own == NULL || ctx == NULL;
}

PHR_FUNCTION(answers)
{
    int (*own)(phr_ctx *) = answers;

    return own == NULL || ctx == NULL;
}

PHR_FUNCTION_AS(renamed, "accept")
{
    int (*own)(phr_ctx *) = renamed;

    return own == NULL || ctx == NULL;
}

PHR_TRIGGER(decides)
{
    int (*own)(phr_trigger_ctx *, const phr_event *, size_t) = decides;

    return own == NULL || t == NULL || events == NULL || count == 0;
}
