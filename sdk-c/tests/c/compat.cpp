// A function as it is written for the published platform; compiled, and run by the executor's
// tests.
#include "cpp_function.hpp"

extern "C" {
int handle(UserLibraryInterface *library, int arg_size, char **arg_values)
{
    string joined;
    for (int i = 0; i < arg_size; i++)
        joined += string(arg_values[i], library->get_size_of_arg(i)) + ";";

    EpheObject *named = library->create_object(string("bucket"), string("key"), joined.size() + 10);
    named->set_value(joined.data(), joined.size());
    library->send_object(named);

    EpheObject *keyed = library->create_object("bucket", library->gen_unique_key(), 8);
    std::memcpy(keyed->get_value(), "12345678", keyed->get_size());
    keyed->update_size(4);
    library->send_object(keyed);

    EpheObject *target = library->create_object("next", false, 16);
    target->update_size(0);
    library->send_object(target);

    EpheObject *found = library->get_object("bucket", "elsewhere");
    EpheObject *answer = library->create_object();
    answer->set_value(found ? "found" : "none", found ? 5 : 4);
    library->send_object(answer, true);
    return 0;
}
}
