// Expected<T, E>: a value or the reason why there is none. The names are those of C++23's
// std::expected, so that it can be swapped in when the toolchain has it.
//
// Two kinds of failure use it: host-side failures (Result<T>, with an Error that the operator
// reads) and guest mistakes (GuestResult<T> in xenshim/abi/errno.h, with an errno that the guest
// reads). Neither is an exception; exceptions end inside vmm/cli.
#pragma once

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace vmm {

template <class E>
struct Failure {
    E error;
};
template <class E>
Failure(E) -> Failure<E>;

template <class T, class E>
class [[nodiscard]] Expected {
  public:
    using value_type = T;
    // NOLINTNEXTLINE(google-explicit-constructor): `return value;` is the point.
    Expected(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    template <class F>
    requires std::is_convertible_v<F, E>
    // NOLINTNEXTLINE(google-explicit-constructor): so is `return Failure{error};`.
    Expected(Failure<F> failure) : state_(std::in_place_index<1>, std::move(failure.error)) {}

    bool has_value() const { return state_.index() == 0; }
    explicit operator bool() const { return has_value(); }
    T& operator*() & { return *std::get_if<0>(&state_); }
    const T& operator*() const& { return *std::get_if<0>(&state_); }
    T&& operator*() && { return std::move(*std::get_if<0>(&state_)); }
    T* operator->() { return std::get_if<0>(&state_); }
    const T* operator->() const { return std::get_if<0>(&state_); }
    const E& error() const { return *std::get_if<1>(&state_); }
    T value_or(T other) const { return has_value() ? **this : std::move(other); }

  private:
    std::variant<T, E> state_;
};

template <class E>
class [[nodiscard]] Expected<void, E> {
  public:
    using value_type = void;
    Expected() = default;
    template <class F>
    requires std::is_convertible_v<F, E>
    // NOLINTNEXTLINE(google-explicit-constructor): see above.
    Expected(Failure<F> failure) : error_(std::move(failure.error)) {}

    bool has_value() const { return !error_.has_value(); }
    explicit operator bool() const { return has_value(); }
    void operator*() const {}
    const E& error() const { return *error_; }

  private:
    std::optional<E> error_;
};

// Whose fault a host-side failure is decides the exit status of `xenolith` (docs/xenolith.1).
enum class Fault {
    kUser,      // an option, a file or an image that we refuse: exit status 2
    kInternal,  // ours: exit status 3
    kHost,      // this host cannot do it: exit status 4
};

// A host-side failure: one line for the operator that names the file, key, option or call.
struct Error {
    Fault fault = Fault::kInternal;
    std::string what;
};

template <class T>
using Result = Expected<T, Error>;

inline Failure<Error> user_error(std::string what) {
    return Failure{Error{Fault::kUser, std::move(what)}};
}
inline Failure<Error> host_error(std::string what) {
    return Failure{Error{Fault::kHost, std::move(what)}};
}
inline Failure<Error> internal_error(std::string what) {
    return Failure{Error{Fault::kInternal, std::move(what)}};
}
// A host call failed: `doing` says which, errno says why.
inline Failure<Error> errno_error(const std::string& doing, Fault fault = Fault::kInternal,
                                  int code = errno) {
    return Failure{Error{fault, doing + ": " + std::strerror(code)}};
}

}  // namespace vmm

// Unwraps a result, or returns its failure from the enclosing function.
#define TRY(expr)                                       \
    __extension__({                                     \
        auto try_result_ = (expr);                      \
        if (!try_result_) {                             \
            return ::vmm::Failure{try_result_.error()}; \
        }                                               \
        *std::move(try_result_);                        \
    })
