/*
 * A box blur of a PPM image (binary, P6, up to 255 a channel), in 4 x 4 tiles.
 *
 * `cut` sends sixteen small objects that say which rectangle each is. `blur` computes one rectangle
 * from the image in the request, which it sees whole: the pixels around its tile are simply there.
 * `join` copies the tiles into their places. `whole` computes the same image in one go and in the
 * plainest way, to compare with.
 *
 * A blurred channel is the rounded mean of that channel over the square of 2 * radius + 1 pixels
 * around it, as far as that lies within the image.
 */
#include <pheromone.h>

#include <stdlib.h>
#include <string.h>

/* COLUMNS * ROWS tiles: as many as app.toml's `keys = ["tile-{0..15}"]`. */
#define COLUMNS 4
#define ROWS 4
#define CHANNELS 3
/* Keeps every sum below 2^32: (2 * 1000 + 1)^2 * 255 is about 10^9. */
#define RADIUS_MAX 1000
/* Keeps every size below 2^40. */
#define SIDE_MAX 65535

struct image {
    const unsigned char *pixels; /* rows from the top, CHANNELS bytes a pixel */
    size_t width;
    size_t height;
    unsigned max; /* of a channel */
};

struct rectangle {
    uint32_t left;
    uint32_t top;
    uint32_t width;
    uint32_t height;
};

/* ----------------------------------------------------------------------------- reading PPM --- */

/* The next number of a PPM header, past white space and comments; 0 where there is none. */
static size_t header_number(const char **at)
{
    for (;;) {
        *at += strspn(*at, " \t\r\n");
        if (**at != '#')
            break;
        *at += strcspn(*at, "\n");
    }
    size_t number = 0;
    for (; **at >= '0' && **at <= '9'; ++*at)
        if (number <= SIDE_MAX)
            number = number * 10 + (size_t)(**at - '0');
    return number;
}

/* Payloads are followed by a zero byte, so reading the header as a string ends. */
static int read_ppm(phr_ctx *ctx, const phr_object *object, struct image *image)
{
    const char *text = phr_data(object);
    const char *at = text + 2;

    if (phr_size(object) < 2 || memcmp(text, "P6", 2) != 0)
        return phr_fail(ctx, PHR_PERMANENT(1), "this is no binary PPM: it does not begin with P6");
    image->width = header_number(&at);
    image->height = header_number(&at);
    image->max = (unsigned)header_number(&at);
    if (image->width < 1 || image->width > SIDE_MAX || image->height < 1
        || image->height > SIDE_MAX || image->max < 1 || image->max > 255)
        return phr_fail(ctx, PHR_PERMANENT(2),
                        "the image must have 1 to %d pixels a side and 1 to 255 a channel",
                        SIDE_MAX);
    size_t header = (size_t)(at - text) + 1; /* one white space ends it */
    size_t wanted = image->width * image->height * CHANNELS;
    if (phr_size(object) < header || phr_size(object) - header < wanted)
        return phr_fail(ctx, PHR_PERMANENT(3), "the image is cut short: %zu bytes of pixels wanted",
                        wanted);
    image->pixels = (const unsigned char *)text + header;
    return PHR_OK;
}

static int read_radius(phr_ctx *ctx, size_t *radius)
{
    const char *text = phr_config(ctx, "radius");
    long value = text == NULL ? 1 : strtol(text, NULL, 10);
    if (value < 0 || value > RADIUS_MAX)
        return phr_fail(ctx, PHR_PERMANENT(4), "radius must be 0 to %d, not %s", RADIUS_MAX, text);
    *radius = (size_t)value;
    return PHR_OK;
}

/* ----------------------------------------------------------------------------------- tiles --- */

/* Where the index-th of `count` parts of `length` begins. */
static uint32_t part_begin(size_t length, size_t index, size_t count)
{
    return (uint32_t)(length * index / count);
}

static struct rectangle tile_of(const struct image *image, size_t tile)
{
    size_t column = tile % COLUMNS, row = tile / COLUMNS;
    struct rectangle place;
    place.left = part_begin(image->width, column, COLUMNS);
    place.top = part_begin(image->height, row, ROWS);
    place.width = part_begin(image->width, column + 1, COLUMNS) - place.left;
    place.height = part_begin(image->height, row + 1, ROWS) - place.top;
    return place;
}

PHR_FUNCTION(cut)
{
    struct image image;
    int status = read_ppm(ctx, phr_input(ctx, 0), &image);

    for (size_t tile = 0; status == PHR_OK && tile < COLUMNS * ROWS; tile++) {
        char key[32];
        struct rectangle place = tile_of(&image, tile);
        snprintf(key, sizeof key, "tile-%zu", tile);
        status = phr_put(ctx, "tiles", key, &place, sizeof place);
    }
    return status;
}

static size_t at_least_zero(size_t from, size_t back)
{
    return from > back ? from - back : 0;
}

static size_t at_most(size_t value, size_t limit)
{
    return value < limit ? value : limit;
}

/*
 * Two passes: columns are summed up over 2 * radius + 1 rows, one row slid in and one out, then the
 * sums over as many columns, in the same way. The work per pixel does not depend on the radius.
 */
static void blur_tile(const struct image *image, const struct rectangle *place, size_t radius,
                      uint32_t *column_sums, unsigned char *to)
{
    size_t first = at_least_zero(place->left, radius);
    size_t last = at_most(place->left + place->width + radius, image->width);
    size_t top = 0, bottom = 0; /* rows in the column sums: top up to bottom */
    size_t values = (last - first) * CHANNELS;
    const size_t stride = image->width * CHANNELS;

    memset(column_sums, 0, values * sizeof *column_sums);
    top = bottom = at_least_zero(place->top, radius);
    for (size_t y = place->top; y < place->top + (size_t)place->height; y++) {
        for (; bottom < at_most(y + radius + 1, image->height); bottom++)
            for (size_t i = 0; i < values; i++)
                column_sums[i] += image->pixels[bottom * stride + first * CHANNELS + i];
        for (; top < at_least_zero(y, radius); top++)
            for (size_t i = 0; i < values; i++)
                column_sums[i] -= image->pixels[top * stride + first * CHANNELS + i];

        uint32_t sums[CHANNELS] = { 0 };
        size_t left = first, right = first;
        for (size_t x = place->left; x < place->left + (size_t)place->width; x++) {
            for (; right < at_most(x + radius + 1, image->width); right++)
                for (size_t c = 0; c < CHANNELS; c++)
                    sums[c] += column_sums[(right - first) * CHANNELS + c];
            for (; left < at_least_zero(x, radius); left++)
                for (size_t c = 0; c < CHANNELS; c++)
                    sums[c] -= column_sums[(left - first) * CHANNELS + c];
            uint32_t count = (uint32_t)((right - left) * (bottom - top));
            for (size_t c = 0; c < CHANNELS; c++)
                *to++ = (unsigned char)((sums[c] + count / 2) / count);
        }
    }
}

PHR_FUNCTION(blur)
{
    const phr_object *request = phr_request(ctx);
    const phr_object *tile = phr_input(ctx, 0);
    struct image image;
    struct rectangle place;
    size_t radius;

    if (request == NULL)
        return phr_last_status(ctx);
    int status = read_ppm(ctx, request, &image);
    if (status == PHR_OK)
        status = read_radius(ctx, &radius);
    if (status != PHR_OK)
        return status;
    memcpy(&place, phr_data(tile), sizeof place);

    phr_object *blurred = phr_create(ctx, "blurred", phr_key(tile),
                                     (size_t)place.width * place.height * CHANNELS);
    if (blurred == NULL)
        return phr_last_status(ctx);
    uint32_t *column_sums = malloc((place.width + 2 * radius + 1) * CHANNELS * sizeof *column_sums);
    if (column_sums == NULL)
        return phr_fail(ctx, 5, "out of memory");
    blur_tile(&image, &place, radius, column_sums, phr_buffer(blurred));
    free(column_sums);
    return phr_send(ctx, blurred);
}

/* ------------------------------------------------------------------------------- responses --- */

/* An object for an image of this size, its header written; `pixels` is where the rest goes. */
static phr_object *create_ppm(phr_ctx *ctx, const struct image *image, unsigned char **pixels)
{
    char header[64];
    int length = snprintf(header, sizeof header, "P6\n%zu %zu\n%u\n", image->width, image->height,
                          image->max);
    phr_object *object = phr_create(ctx, NULL, NULL,
                                    (size_t)length + image->width * image->height * CHANNELS);
    if (object != NULL) {
        memcpy(phr_buffer(object), header, (size_t)length);
        *pixels = (unsigned char *)phr_buffer(object) + length;
        phr_set_response_type(ctx, "image/x-portable-pixmap");
    }
    return object;
}

PHR_FUNCTION(join)
{
    const phr_object *request = phr_request(ctx);
    struct image image;
    unsigned char *pixels;

    if (request == NULL)
        return phr_last_status(ctx);
    int status = read_ppm(ctx, request, &image);
    if (status != PHR_OK)
        return status;
    phr_object *joined = create_ppm(ctx, &image, &pixels);
    if (joined == NULL)
        return phr_last_status(ctx);
    for (size_t tile = 0; tile < phr_input_count(ctx); tile++) {
        struct rectangle place = tile_of(&image, tile);
        const unsigned char *from = phr_data(phr_input(ctx, tile));
        size_t row_bytes = (size_t)place.width * CHANNELS;
        for (size_t y = 0; y < place.height; y++)
            memcpy(pixels + ((place.top + y) * image.width + place.left) * CHANNELS,
                   from + y * row_bytes, row_bytes);
    }
    return phr_respond(ctx, joined);
}

/* The mean around one pixel, summed up afresh. */
static unsigned char mean_around(const struct image *image, size_t x, size_t y, size_t channel,
                                 size_t radius)
{
    uint32_t sum = 0, count = 0;
    for (size_t v = at_least_zero(y, radius); v < at_most(y + radius + 1, image->height); v++)
        for (size_t u = at_least_zero(x, radius); u < at_most(x + radius + 1, image->width); u++) {
            sum += image->pixels[(v * image->width + u) * CHANNELS + channel];
            count++;
        }
    return (unsigned char)((sum + count / 2) / count);
}

PHR_FUNCTION(whole)
{
    struct image image;
    size_t radius;
    unsigned char *pixels;
    int status = read_ppm(ctx, phr_input(ctx, 0), &image);

    if (status == PHR_OK)
        status = read_radius(ctx, &radius);
    if (status != PHR_OK)
        return status;
    phr_object *blurred = create_ppm(ctx, &image, &pixels);
    if (blurred == NULL)
        return phr_last_status(ctx);
    for (size_t y = 0; y < image.height; y++)
        for (size_t x = 0; x < image.width; x++)
            for (size_t c = 0; c < CHANNELS; c++)
                *pixels++ = mean_around(&image, x, y, c, radius);
    return phr_respond(ctx, blurred);
}
