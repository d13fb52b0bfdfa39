/* Uses every call, macro and constant of pheromone.h once. It is compiled as C11 and as C++17 with
 * warnings as errors, and never run. */
#include <pheromone.h>

static int closed;

static void close_connection(void *connection)
{
    closed += connection != NULL;
}

PHR_INIT(everything)
{
    return phr_set_local(ctx, &closed, close_connection);
}

PHR_FUNCTION(everything)
{
    const char *const keys[] = { "a", "b" };
    const phr_object *parts[2];
    const phr_object *in = phr_input(ctx, 0);
    phr_send_options options = PHR_SEND_OPTIONS;
    phr_object *out = phr_create(ctx, "bucket", "key", phr_size(in));
    phr_object *direct = phr_create_for(ctx, "other", 64);
    uint64_t start_ns = 0;
    uint64_t end_ns = 0;
    uint64_t numbers = 0;
    const char *text = "";
    phr_status status = PHR_OK;
    size_t i;

    if (out == NULL)
        return phr_last_status(ctx);
    ((char *)phr_buffer(out))[0] = *(const char *)phr_data(in);
    status |= phr_truncate(out, 1);
    status |= phr_send(ctx, out);
    status |= phr_send_in_group(ctx, direct, "group");
    status |= phr_send_durable(ctx, direct);
    options.group = phr_group(in);
    options.function = "other";
    options.delay_ns = 1000;
    options.flags = PHR_DURABLE;
    status |= phr_send_with(ctx, direct, &options);
    status |= phr_put(ctx, "bucket", NULL, "text", 4);
    status |= phr_put_with(ctx, "bucket", NULL, "text", 4, &options);
    status |= phr_forward(ctx, in, "bucket", phr_key(in));
    status |= phr_forward_with(ctx, in, NULL, NULL, &options);
    phr_discard(ctx, out);

    status |= phr_set_response_type(ctx, "text/plain");
    status |= phr_set_response_status(ctx, 201);
    status |= phr_respond(ctx, out);
    status |= phr_respond_data(ctx, "text", 4);
    parts[0] = in;
    parts[1] = phr_input_named(ctx, "key");
    status |= phr_respond_parts(ctx, parts, 2);
    status |= phr_respond_to(ctx, in, out);
    status |= phr_respond_session(ctx, phr_session(ctx), out);
    status |= phr_fail_session(ctx, phr_session(ctx), 1, "message");

    parts[0] = phr_get(ctx, "bucket", "key", 0);
    parts[1] = phr_load(ctx, "bucket", "key");
    status |= phr_delete(ctx, "bucket", "key");
    status |= phr_join(ctx, "bucket", "trigger", keys, 2);
    status |= phr_redundant(ctx, "bucket", "trigger", 2, 3);
    status |= phr_expect_sources(ctx, "bucket", "trigger", 2);
    status |= phr_close_source(ctx, "bucket", "trigger");

    for (i = 0; i < phr_input_count(ctx); i++)
        numbers += phr_object_session(phr_input(ctx, i)) + phr_arrival_ns(phr_input(ctx, i));
    for (i = 0; i < phr_failed_input_count(in); i++)
        numbers += phr_size(phr_failed_input(in, i));
    for (i = 0; i < phr_parent_count(ctx); i++)
        numbers += phr_parent(ctx, i);
    numbers += phr_size(phr_request(ctx));
    text = phr_request_header(ctx, "Content-Type");
    text = phr_request_header_of(ctx, in, "traceparent");
    text = phr_bucket(in);
    text = phr_app(ctx);
    text = phr_function(ctx);
    text = phr_trigger(ctx);
    text = phr_config(ctx, "model");
    numbers += phr_invocation(ctx) + phr_deadline_ns(ctx) + phr_now_ns(ctx);
    numbers += phr_wall_ns(ctx, phr_now_ns(ctx)) + phr_attempt(ctx) + phr_parallelism(ctx);
    numbers += phr_cancelled(ctx) != 0;
    numbers += phr_arguments(ctx) == PHR_ARGUMENTS_KEYS_AND_VALUES;
    status |= phr_window(ctx, &start_ns, &end_ns);
    phr_log(ctx, PHR_DEBUG, "%s %d", text, phr_local(ctx) != NULL);
    phr_log(ctx, PHR_INFO, "%s", phr_strerror(status));
    phr_log(ctx, PHR_WARN, "%s", phr_last_error(ctx));
    phr_log(ctx, PHR_ERROR, "%d", numbers == PHR_ARGUMENTS_VALUES + PHR_ARGUMENTS_KEYS);
    if (status != PHR_OK)
        return PHR_PERMANENT(7);
    return phr_fail(ctx, 3, "%d statuses",
                    PHR_EINVAL + PHR_ENOMEM + PHR_ENOENT + PHR_EEXIST + PHR_EAGAIN + PHR_ETIMEDOUT +
                        PHR_EPERM + PHR_ECANCELED + PHR_EIO + PHR_ETOOBIG + PHR_ENOTSUP);
}

PHR_FUNCTION_AS(everything_log, "log")
{
    return ctx == NULL;
}

PHR_TRIGGER(decide)
{
    phr_failure failure;
    void **state = phr_trigger_state(t);
    size_t i;

    failure.struct_size = sizeof failure;
    for (i = 0; i < count; i++) {
        if (events[i].kind == PHR_EV_OBJECT)
            phr_fire(t, "everything", &events[i].object, 1);
        if (events[i].kind == PHR_EV_SESSION_END)
            phr_drop(t, &events[i].object, 1);
        if (events[i].kind == PHR_EV_TICK)
            phr_tick_at(t, events[i].time_ns + 1);
    }
    *state = NULL;
    return phr_trigger_config(t, "name") == NULL && failure.struct_size == 0;
}
