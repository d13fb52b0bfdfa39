/*
 * What stands around the one function that `pheromone invoke` runs. The app has one executor, so
 * all of this is one process, and what it keeps in static memory survives from call to call:
 *
 *   load     keeps the body of a call as an input; its key and group are headers of the call
 *   start    publishes what was loaded into the bucket named by a header, all in one session
 *   record   keeps a copy of each object that the function has published
 *   describe answers with what object number N of those is: four lengths and when it
 *            arrived, then the texts
 *   fetch    answers with its payload
 *
 * Beyond the last object describe answers nothing.
 */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* A copy of an object, in private memory. */
struct copy {
    char *texts[4]; /* of a record: function, bucket, key, group; of an input the last two */
    void *data;
    size_t size;
    uint64_t arrival_ns;
};

struct list {
    struct copy *copies;
    size_t count;
};

static struct list inputs;
static struct list records;

/* A further element, all zero; NULL when memory is out. */
static struct copy *list_grow(struct list *list)
{
    struct copy *copies = realloc(list->copies, (list->count + 1) * sizeof *copies);
    if (copies == NULL)
        return NULL;
    list->copies = copies;
    memset(&copies[list->count], 0, sizeof *copies);
    return &copies[list->count++];
}

/* Keeps the payload; 0 when memory is out. */
static int copy_payload(struct copy *copy, const phr_object *object)
{
    copy->size = phr_size(object);
    copy->data = malloc(copy->size + 1);
    if (copy->data == NULL)
        return 0;
    memcpy(copy->data, phr_data(object), copy->size);
    return 1;
}

static int out_of_memory(phr_ctx *ctx)
{
    return phr_fail(ctx, PHR_PERMANENT(1), "out of memory for a copy of an object");
}

/* The number in a call's body, an index of a record; or NULL. */
static struct copy *record_named(phr_ctx *ctx)
{
    size_t index = strtoull(phr_data(phr_input(ctx, 0)), NULL, 10);
    return index < records.count ? &records.copies[index] : NULL;
}

PHR_FUNCTION(pheromone_load)
{
    const char *key = phr_request_header(ctx, "Pheromone-Key");
    const char *group = phr_request_header(ctx, "Pheromone-Group");
    struct copy *copy = list_grow(&inputs);

    if (copy == NULL || !copy_payload(copy, phr_input(ctx, 0)))
        return out_of_memory(ctx);
    copy->texts[2] = strdup(key == NULL ? "" : key);
    copy->texts[3] = strdup(group == NULL ? "" : group);
    return copy->texts[2] == NULL || copy->texts[3] == NULL ? out_of_memory(ctx) : PHR_OK;
}

PHR_FUNCTION(pheromone_start)
{
    const char *bucket = phr_request_header(ctx, "Pheromone-Bucket");

    for (size_t i = 0; i < inputs.count; i++) {
        struct copy *copy = &inputs.copies[i];
        phr_object *object = phr_create(ctx, bucket, copy->texts[2], copy->size);
        if (object == NULL)
            return phr_last_status(ctx);
        memcpy(phr_buffer(object), copy->data, copy->size);
        phr_status status = phr_send_in_group(ctx, object, copy->texts[3]);
        if (status != PHR_OK)
            return status;
    }
    return PHR_OK;
}

PHR_FUNCTION(pheromone_record)
{
    for (size_t i = 0; i < phr_input_count(ctx); i++) {
        const phr_object *object = phr_input(ctx, i);
        const char *texts[4] = {
            phr_function(ctx), phr_bucket(object), phr_key(object), phr_group(object),
        };
        struct copy *copy = list_grow(&records);
        if (copy == NULL || !copy_payload(copy, object))
            return out_of_memory(ctx);
        copy->arrival_ns = phr_arrival_ns(object);
        for (int text = 0; text < 4; text++)
            if ((copy->texts[text] = strdup(texts[text])) == NULL)
                return out_of_memory(ctx);
    }
    return PHR_OK;
}

PHR_FUNCTION(pheromone_ignore)
{
    (void)ctx;
    return PHR_OK;
}

PHR_FUNCTION(pheromone_describe)
{
    struct copy *copy = record_named(ctx);
    uint64_t numbers[5];
    size_t size = sizeof numbers;

    if (copy == NULL)
        return PHR_OK;
    numbers[4] = copy->arrival_ns;
    for (int text = 0; text < 4; text++) {
        numbers[text] = strlen(copy->texts[text]);
        size += numbers[text];
    }
    phr_object *answer = phr_create(ctx, NULL, NULL, size);
    if (answer == NULL)
        return phr_last_status(ctx);
    char *to = phr_buffer(answer);
    memcpy(to, numbers, sizeof numbers);
    to += sizeof numbers;
    for (int text = 0; text < 4; text++) {
        memcpy(to, copy->texts[text], numbers[text]);
        to += numbers[text];
    }
    return phr_respond(ctx, answer);
}

PHR_FUNCTION(pheromone_fetch)
{
    struct copy *copy = record_named(ctx);
    if (copy == NULL)
        return PHR_OK;
    return phr_respond_data(ctx, copy->data, copy->size);
}
