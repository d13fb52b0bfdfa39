/*
 * compat.cpp - a function written for the published platform: counts the words of its arguments
 * into a bucket, or answers with what it was given.
 */
#include "cpp_function.hpp"

#include <sstream>

extern "C" {
int handle(UserLibraryInterface *library, int arg_size, char **arg_values)
{
    if (arg_size == 2 && string(arg_values[0]) == "count") {
        const char *text = static_cast<const char *>(arg_values[1]);
        EpheObject *answer = library->create_object(size_t(64));
        const string count = std::to_string(library->get_size_of_arg(1)) + " " + text;

        answer->set_value(count.c_str(), count.size());
        library->send_object(answer, true);
        return 0;
    }
    const string request(arg_values[0], library->get_size_of_arg(0));
    if (request == "fail")
        library->create_object(string("no such bucket"), string("key"), 8);
    EpheObject *object = library->create_object(string("counts"), string("count"));
    object->set_value(request.data(), request.size());
    library->send_object(object);
    EpheObject *found = library->get_object("counts", "count");
    if (found == nullptr || found->get_size() != request.size())
        return 2;
    if (library->get_object("counts", "absent") != nullptr)
        return 3;
    if (library->gen_unique_key() == library->gen_unique_key())
        return 4;
    return 0;
}
}
