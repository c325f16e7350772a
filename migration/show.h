// A State as JSON, for people and their scripts (`xenolith inspect`): the fields by their names, in
// the order of their ids. Numbers that JSON's readers would round, beyond 2^53, are text in
// hexadecimal; bytes are hexadecimal digits.
#pragma once

#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "vmm/base/saved.h"

namespace migration {

namespace detail {

inline std::string hex_digits(std::span<const std::byte> bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    std::string out;
    for (const std::byte b : bytes) {
        out += kDigits[std::to_integer<unsigned>(b) >> 4];
        out += kDigits[std::to_integer<unsigned>(b) & 15];
    }
    return out;
}

template <class T>
nlohmann::ordered_json number(T value) {
    constexpr std::uint64_t kExact = std::uint64_t{1} << 53;
    if constexpr (std::is_signed_v<T>) {
        return static_cast<std::int64_t>(value);
    } else {
        if (value <= kExact) return static_cast<std::uint64_t>(value);
        char text[24];
        std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
        return text;
    }
}

}  // namespace detail

template <class T>
nlohmann::ordered_json show(const T& value) {
    using nlohmann::ordered_json;
    namespace kind = vmm::saved::detail;
    if constexpr (vmm::saved::Aggregate<T>) {
        ordered_json out = ordered_json::object();
        std::apply([&](const auto&... field) { ((out[field.name] = show(field.value)), ...); },
                   T::fields(value));
        return out;
    } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
        return value;
    } else if constexpr (std::is_enum_v<T>) {
        return detail::number(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_integral_v<T>) {
        return detail::number(value);
    } else if constexpr (kind::is_optional<T>) {
        return value ? show(*value) : ordered_json(nullptr);
    } else if constexpr (kind::is_bytes<T>) {
        return detail::hex_digits(value);
    } else if constexpr (kind::is_map<T>) {
        // Pairs: keys of objects would have to be text.
        ordered_json out = ordered_json::array();
        for (const auto& [key, mapped] : value) {
            out.push_back({{"key", show(key)}, {"value", show(mapped)}});
        }
        return out;
    } else {
        ordered_json out = ordered_json::array();
        for (const auto& element : value) {
            out.push_back(show(element));
        }
        return out;
    }
}

// What a reader of files knows of one section.
struct Kind {
    vmm::saved::Section section{};
    // The JSON of a record's bytes, or why they are none.
    std::function<vmm::Expected<nlohmann::ordered_json, std::string>(
        std::span<const std::byte> bytes, std::uint32_t version)>
        show;
};

template <vmm::saved::State T>
Kind kind_of() {
    return {
        .section = T::kSection,
        .show = [](std::span<const std::byte> bytes,
                   std::uint32_t version) -> vmm::Expected<nlohmann::ordered_json, std::string> {
            return migration::show(TRY(vmm::saved::decode<T>(bytes, version)));
        }};
}

}  // namespace migration
