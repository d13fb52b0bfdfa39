/*
 * compat/cpp_function.hpp - run C++ functions written for the published Pheromone platform
 *
 * A function of that platform is
 *
 *     #include "cpp_function.hpp"
 *     extern "C" {
 *     int handle(UserLibraryInterface *library, int arg_size, char **arg_values) { ... return 0; }
 *     }
 *
 * Compiled with this header in place of the original, it exports the entry that a Pheromone
 * executor calls; in the manifest the function says `symbol = "handle"`. The manifest's
 * `arguments` decides what arg_values holds: payloads, keys, or keys and payloads in turn. All of
 * them end with a zero byte, lie in shared memory and must not be written.
 *
 *     c++ -std=c++17 -O2 -shared -fPIC -I include/compat -o f.so f.cpp
 *
 * What fails throws pheromone_compat::Error; what leaves handle as an exception fails the attempt
 * with its text. Objects belong to the library and live until handle returns.
 */
#ifndef PHEROMONE_COMPAT_CPP_FUNCTION_HPP
#define PHEROMONE_COMPAT_CPP_FUNCTION_HPP

#include "../pheromone.h"

#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using string = std::string;

/* Payload memory: one to be sent, or one that get_object found. */
class EpheObject {
public:
    virtual ~EpheObject() = default;

    /* Where the payload is. */
    virtual void *get_value() = 0;

    /* Copies the value in, and makes its size the object's. */
    virtual void set_value(const void *value, size_t value_size) = 0;

    /* The size to be sent, at most what was created. */
    virtual void update_size(size_t size) = 0;

    /* The size created, or set since. */
    virtual size_t get_size() = 0;
};

/* What a function may ask of the platform. */
class UserLibraryInterface {
public:
    virtual ~UserLibraryInterface() = default;

    /* For the function's `next` functions, or as output. */
    virtual EpheObject *create_object(size_t size = 1024 * 1024) = 0;

    /* For one function: one of its `next` or `calls`. The flag has no meaning any more. */
    virtual EpheObject *create_object(string target_function, bool many_to_one_trigger = true,
                                      size_t size = 1024 * 1024) = 0;

    /* For a bucket. */
    virtual EpheObject *create_object(string bucket, string key, size_t size = 1024 * 1024) = 0;

    /* Publishes. With `output` it answers the client who waits or, when nobody waits, persists the
     * object under its key. */
    virtual void send_object(EpheObject *object, bool output = false) = 0;

    /* An object of this session, or, not from the store of ephemeral objects, a durable one;
     * nullptr where there is none. */
    virtual EpheObject *get_object(string bucket, string key, bool from_ephe_store = true) = 0;

    /* A key that no other invocation makes, and every attempt of this one makes again. */
    virtual string gen_unique_key() = 0;

    /* Bytes of arg_values[index]; 0 past the end. */
    virtual size_t get_size_of_arg(int index) = 0;
};

extern "C" int handle(UserLibraryInterface *library, int arg_size, char **arg_values);

namespace __attribute__((visibility("hidden"))) pheromone_compat {

/* A call of the platform that failed, with the platform's sentence. */
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

class Object final : public EpheObject {
public:
    /* An object to be sent. */
    Object(phr_ctx *ctx, phr_object *object)
        : ctx_(ctx), unsent_(object), data_(phr_buffer(object)), size_(phr_size(object)),
          created_(size_)
    {
    }

    /* An object to be read. */
    Object(phr_ctx *ctx, const phr_object *object)
        : ctx_(ctx), data_(const_cast<void *>(phr_data(object))), size_(phr_size(object))
    {
    }

    void *get_value() override { return data_; }
    size_t get_size() override { return size_; }

    void set_value(const void *value, size_t value_size) override
    {
        update_size(value_size);
        if (value_size > 0)
            std::memcpy(data_, value, value_size);
    }

    void update_size(size_t size) override
    {
        if (unsent_ == nullptr)
            throw Error("an object that was sent, or was found by get_object, cannot be changed");
        if (size > created_)
            throw Error("an object created with " + std::to_string(created_) +
                        " bytes cannot hold " + std::to_string(size) +
                        ": give create_object the larger size");
        size_ = size;
    }

    void send(bool output)
    {
        if (unsent_ == nullptr)
            throw Error("send_object: the object was sent before, or was found by get_object");
        check(phr_truncate(unsent_, size_));
        phr_status status = PHR_OK;
        if (output) {
            status = phr_respond(ctx_, unsent_);
            if (status == PHR_ENOENT)
                status = phr_send_durable(ctx_, unsent_);
        } else {
            status = phr_send(ctx_, unsent_);
        }
        check(status);
        unsent_ = nullptr;
    }

private:
    void check(phr_status status)
    {
        if (status != PHR_OK)
            throw Error(phr_last_error(ctx_));
    }

    phr_ctx *ctx_;
    phr_object *unsent_ = nullptr;
    void *data_;
    size_t size_;
    size_t created_ = 0;
};

class Library final : public UserLibraryInterface {
public:
    explicit Library(phr_ctx *ctx) : ctx_(ctx)
    {
        const int style = phr_arguments(ctx);
        for (size_t i = 0; i < phr_input_count(ctx); i++) {
            const phr_object *input = phr_input(ctx, i);
            if (input == nullptr)
                throw Error(phr_last_error(ctx));
            if (style != PHR_ARGUMENTS_VALUES)
                add(phr_key(input), std::strlen(phr_key(input)));
            if (style != PHR_ARGUMENTS_KEYS)
                add(phr_data(input), phr_size(input));
        }
        values_.push_back(nullptr);
    }

    EpheObject *create_object(size_t size) override
    {
        return adopt(phr_create(ctx_, nullptr, nullptr, size));
    }

    EpheObject *create_object(string target_function, bool, size_t size) override
    {
        return adopt(phr_create_for(ctx_, target_function.c_str(), size));
    }

    EpheObject *create_object(string bucket, string key, size_t size) override
    {
        return adopt(phr_create(ctx_, bucket.c_str(), key.c_str(), size));
    }

    void send_object(EpheObject *object, bool output) override
    {
        if (object == nullptr)
            throw Error("send_object: the object is a null pointer");
        static_cast<Object *>(object)->send(output);
    }

    EpheObject *get_object(string bucket, string key, bool from_ephe_store) override
    {
        const phr_object *found = from_ephe_store
                                      ? phr_get(ctx_, bucket.c_str(), key.c_str(), 0)
                                      : phr_load(ctx_, bucket.c_str(), key.c_str());
        if (found == nullptr && phr_last_status(ctx_) == PHR_ENOENT)
            return nullptr;
        return adopt(found);
    }

    string gen_unique_key() override
    {
        return std::to_string(phr_invocation(ctx_)) + "-" + std::to_string(unique_keys_++);
    }

    size_t get_size_of_arg(int index) override
    {
        const bool there = index >= 0 && static_cast<size_t>(index) < sizes_.size();
        return there ? sizes_[static_cast<size_t>(index)] : 0;
    }

    int arg_size() const { return static_cast<int>(sizes_.size()); }
    char **arg_values() { return values_.data(); }

private:
    void add(const void *value, size_t size)
    {
        values_.push_back(const_cast<char *>(static_cast<const char *>(value)));
        sizes_.push_back(size);
    }

    template <typename Made> EpheObject *adopt(Made *object)
    {
        if (object == nullptr)
            throw Error(phr_last_error(ctx_));
        objects_.push_back(std::make_unique<Object>(ctx_, object));
        return objects_.back().get();
    }

    phr_ctx *ctx_;
    std::vector<char *> values_;
    std::vector<size_t> sizes_;
    std::vector<std::unique_ptr<Object>> objects_;
    size_t unique_keys_ = 0;
};

/* The entry that the executor calls. */
inline int enter(phr_ctx *ctx)
{
    try {
        Library library(ctx);
        const int status = handle(&library, library.arg_size(), library.arg_values());
        if (status < 0 || status > 255)
            return phr_fail(ctx, 1, "handle returned %d", status);
        return status;
    } catch (const std::exception &error) {
        return phr_fail(ctx, 1, "%s", error.what());
    } catch (...) {
        return phr_fail(ctx, 1, "handle threw something that is no std::exception");
    }
}

} // namespace pheromone_compat

extern "C" {
/* Weak, so that every source file of a library may include this header; not inline, because an
 * inline variable is one object for all libraries of a process. */
extern __attribute__((visibility("default"), weak)) const phr_mark phr_abi_handle;
const phr_mark phr_abi_handle = {
    sizeof(phr_mark), PHR_ABI_MAJOR, PHR_ABI_MINOR, PHR_KIND_FUNCTION, 0,
    pheromone_compat::enter, nullptr,
};
}

#endif /* PHEROMONE_COMPAT_CPP_FUNCTION_HPP */
