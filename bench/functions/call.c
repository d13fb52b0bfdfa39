/* Answers with what it is sent. */
#include "stamps.h"

PHR_FUNCTION(answers)
{
    const phr_object *in = phr_input(ctx, 0);
    return phr_respond_parts(ctx, &in, 1);
}
