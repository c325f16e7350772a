// Saved state: how a component says what of it a guest could notice after it was moved, and how
// that becomes bytes and comes back.
//
// A component's State is an aggregate with a section name, a version and one fields(), which binds
// every member by a structured binding and names each once:
//
//     struct CounterState {
//         static constexpr saved::Section kSection{"legacy.counter", 2};
//         std::uint16_t count = 0;
//         bool running = false;
//         bool operator==(const CounterState&) const = default;
//         static constexpr auto fields(auto& self) {
//             auto& [count, running] = self;
//             return std::tuple{saved::field(1, "count", count),
//                               saved::field(2, "running", running, saved::Since{2})};
//         }
//     };
//
// A member that is added and not bound, or bound and not named, does not compile. Ids are never
// used again, and ascend; what came with a later version says since which. A saved type is never a
// runtime type: what is derived is worked out again by the component's adopt().
//
// The bytes (docs/save-format.md), little-endian and without padding:
//   bool               one byte, 0 or 1
//   integer, enum      its size
//   std::array         its elements
//   vector, string     a 32-bit count, then the elements; a map likewise, of key and value,
//   ascending optional           a bool, then the value when there is one aggregate          a
//   16-bit count of fields, then for each in the order of ids: the 16-bit id,
//                      the value's 32-bit length, the value
// There is one encoding of a state: what decode() takes, encode() makes again. Nothing is skipped:
// an unknown id, a missing one, bytes left over are refused. A reader takes the versions up to its
// own; fields of later ones keep what a new State has there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "vmm/base/result.h"

namespace vmm::saved {

struct Section {
    const char* name;
    std::uint32_t version;
};

// The first version of the section that has the field.
struct Since {
    std::uint32_t version = 1;
};

template <class T>
struct Field {
    std::uint16_t id;
    const char* name;
    T& value;
    Since since;
};

template <class T>
constexpr Field<T> field(std::uint16_t id, const char* name, T& value, Since since = {}) {
    return {id, name, value, since};
}

template <class T>
concept Aggregate = requires(T& value) {
    T::fields(value);
};
template <class T>
concept State = Aggregate<T> && requires {
    { T::kSection } -> std::convertible_to<Section>;
};

// What a component without state says: silence is not enough where a State is asked for.
struct NoState {};

class Encoder {
  public:
    void integer(std::uint64_t value, std::size_t bytes);
    void raw(std::span<const std::byte> bytes);
    // A 32-bit length of what follows, to be known at close().
    std::size_t open();
    void close(std::size_t opened);
    std::vector<std::byte> take() { return std::move(bytes_); }

  private:
    std::vector<std::byte> bytes_;
};

// Hostile bytes in. After the first failure there is nothing but zeroes.
class Decoder {
  public:
    explicit Decoder(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::uint64_t integer(std::size_t bytes);
    std::span<const std::byte> raw(std::size_t bytes);
    std::size_t left() const { return end() - at_; }
    bool ok() const { return failure_.empty(); }
    // Why: the fields on the way to it, the byte, and what is wrong.
    const std::string& failure() const { return failure_; }
    void fail(const std::string& what);

    void enter(const char* name) { path_.push_back(name); }
    void leave() { path_.pop_back(); }
    // A field's bytes: they must be used up when they are closed.
    void open(std::size_t length);
    void close();

  private:
    std::size_t end() const { return ends_.empty() ? bytes_.size() : ends_.back(); }

    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;
    std::vector<std::size_t> ends_;
    std::vector<const char*> path_;
    std::string failure_;
};

namespace detail {

// How many members an aggregate has: as many as it can be made from.
struct Anything {
    template <class T>
    operator T() const;  // NOLINT(google-explicit-constructor): the point
};
template <class T, std::size_t... I>
constexpr bool makes(std::index_sequence<I...>) {
    return requires {
        T{(static_cast<void>(I), Anything{})...};
    };
}
template <class T, std::size_t N = 64>
constexpr std::size_t members() {
    if constexpr (N == 0 || makes<T>(std::make_index_sequence<N>{})) {
        return N;
    } else {
        return members<T, N - 1>();
    }
}

template <class T>
consteval bool every_member_is_named() {
    using Fields = decltype(T::fields(std::declval<T&>()));
    return std::tuple_size_v<Fields> == members<T>();
}

template <class T>
inline constexpr bool is_array = false;
template <class T, std::size_t N>
inline constexpr bool is_array<std::array<T, N>> = true;
template <class T>
inline constexpr bool is_list = false;
template <class T>
inline constexpr bool is_list<std::vector<T>> = true;
template <>
inline constexpr bool is_list<std::string> = true;
template <class T>
inline constexpr bool is_map = false;
template <class K, class V>
inline constexpr bool is_map<std::map<K, V>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_bytes = false;
template <>
inline constexpr bool is_bytes<std::vector<std::byte>> = true;
template <>
inline constexpr bool is_bytes<std::string> = true;
template <std::size_t N>
inline constexpr bool is_bytes<std::array<std::byte, N>> = true;
template <class T>
inline constexpr bool is_unsupported = true;

template <class T>
void put(Encoder& out, const T& value) {
    if constexpr (Aggregate<T>) {
        static_assert(every_member_is_named<T>(), "fields() leaves a member out");
        std::apply(
            [&](const auto&... field) {
                out.integer(sizeof...(field), 2);
                (
                    [&] {
                        out.integer(field.id, 2);
                        const std::size_t opened = out.open();
                        put(out, field.value);
                        out.close(opened);
                    }(),
                    ...);
            },
            T::fields(value));
    } else if constexpr (std::is_enum_v<T>) {
        out.integer(static_cast<std::uint64_t>(static_cast<std::underlying_type_t<T>>(value)),
                    sizeof(T));
    } else if constexpr (std::is_integral_v<T> || std::is_same_v<T, std::byte>) {
        out.integer(static_cast<std::uint64_t>(value), sizeof(T));
    } else if constexpr (is_optional<T>) {
        out.integer(value.has_value() ? 1 : 0, 1);
        if (value) put(out, *value);
    } else if constexpr (is_map<T>) {
        out.integer(value.size(), 4);
        for (const auto& [key, mapped] : value) {
            put(out, key);
            put(out, mapped);
        }
    } else if constexpr (is_array<T> || is_list<T>) {
        if constexpr (is_list<T>) out.integer(value.size(), 4);
        if constexpr (is_bytes<T>) {
            out.raw(std::as_bytes(std::span(value)));
        } else {
            for (const auto& element : value) {
                put(out, element);
            }
        }
    } else {
        static_assert(!is_unsupported<T>, "there is no encoding of this type");
    }
}

template <class T>
void get(Decoder& in, std::uint32_t version, T& value) {
    if constexpr (Aggregate<T>) {
        static_assert(every_member_is_named<T>(), "fields() leaves a member out");
        std::apply(
            [&](const auto&... field) {
                const std::size_t expected =
                    (0u + ... + (field.since.version <= version ? 1u : 0u));
                if (in.integer(2) != expected) in.fail("another number of fields");
                (
                    [&] {
                        if (field.since.version > version || !in.ok()) return;
                        in.enter(field.name);
                        if (in.integer(2) != field.id) in.fail("another field stands here");
                        in.open(in.integer(4));
                        get(in, version, field.value);
                        in.close();
                        in.leave();
                    }(),
                    ...);
            },
            T::fields(value));
    } else if constexpr (std::is_same_v<T, bool>) {
        const std::uint64_t byte = in.integer(1);
        if (byte > 1) in.fail("neither true nor false");
        value = byte == 1;
    } else if constexpr (std::is_enum_v<T> || std::is_integral_v<T>) {
        value = static_cast<T>(in.integer(sizeof(T)));
    } else if constexpr (is_optional<T>) {
        bool there = false;
        get(in, version, there);
        value.reset();
        if (there) get(in, version, value.emplace());
    } else if constexpr (is_map<T>) {
        value.clear();
        for (std::uint64_t left = in.integer(4); left != 0 && in.ok(); --left) {
            typename T::key_type key{};
            get(in, version, key);
            if (!value.empty() && !(value.rbegin()->first < key)) in.fail("a key out of order");
            get(in, version, value[key]);
        }
    } else if constexpr (is_bytes<T>) {
        std::size_t size = 0;
        if constexpr (is_array<T>) {
            size = value.size();
        } else {
            size = in.integer(4);
        }
        const auto from = in.raw(size);
        if constexpr (is_list<T>) value.resize(from.size());
        if (!from.empty()) std::memcpy(value.data(), from.data(), from.size());
    } else if constexpr (is_array<T>) {
        for (auto& element : value) {
            get(in, version, element);
        }
    } else if constexpr (is_list<T>) {
        value.clear();
        // Not reserved: the count is hostile, what follows is as long as it is.
        for (std::uint64_t left = in.integer(4); left != 0 && in.ok(); --left) {
            typename T::value_type element{};
            get(in, version, element);
            value.push_back(std::move(element));
        }
    } else {
        static_assert(!is_unsupported<T>, "there is no encoding of this type");
    }
}

}  // namespace detail

template <State T>
std::vector<std::byte> encode(const T& state) {
    Encoder out;
    detail::put(out, state);
    return out.take();
}

// `version` is the one that the bytes were made with. The failure names the field and the byte.
template <State T>
Expected<T, std::string> decode(std::span<const std::byte> bytes, std::uint32_t version) {
    T state{};
    Decoder in(bytes);
    if (version == 0 || version > T::kSection.version) {
        in.fail("version " + std::to_string(version) + " is not known, up to " +
                std::to_string(T::kSection.version) + " are");
    } else {
        detail::get(in, version, state);
        if (in.ok() && in.left() != 0) in.fail(std::to_string(in.left()) + " bytes are left over");
    }
    if (!in.ok()) return Failure{in.failure()};
    return state;
}

}  // namespace vmm::saved
