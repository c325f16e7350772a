// Walks a State aggregate through its fields(), so that tests reach every member without naming
// any: a member that is added later is tested as well.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace devices::legacy::testing {

using Rng = std::mt19937_64;

template <class T>
concept HasFields = requires(T& t) {
    T::fields(t);
};

template <std::integral T>
void randomise(T& value, Rng& rng) {
    value = static_cast<T>(rng());
    if (rng() % 4 == 0) value = static_cast<T>(rng() % 8);  // small values are the likely ones
}
inline void randomise(bool& value, Rng& rng) {
    value = rng() % 2 != 0;
}
template <HasFields T>
void randomise(T& state, Rng& rng);
template <class T, std::size_t N>
void randomise(std::array<T, N>& values, Rng& rng) {
    for (T& value : values)
        randomise(value, rng);
}
template <class T>
void randomise(std::vector<T>& values, Rng& rng) {
    values.resize(rng() % 80);
    for (T& value : values)
        randomise(value, rng);
}
template <HasFields T>
void randomise(T& state, Rng& rng) {
    std::apply([&](auto... field) { (randomise(field.value, rng), ...); }, T::fields(state));
}

// One member anywhere in it.
template <class T>
void randomise_one(T& value, Rng& rng) {
    randomise(value, rng);
}
template <class T, std::size_t N>
void randomise_one(std::array<T, N>& values, Rng& rng) {
    randomise_one(values[rng() % N], rng);
}
template <class T>
void randomise_one(std::vector<T>& values, Rng& rng) {
    if (values.empty() || rng() % 8 == 0) {
        randomise(values, rng);
    } else {
        randomise_one(values[rng() % values.size()], rng);
    }
}
template <HasFields T>
void randomise_one(T& state, Rng& rng) {
    std::apply(
        [&](auto... field) {
            std::size_t left = rng() % sizeof...(field);
            ((left-- == 0 ? randomise_one(field.value, rng) : void()), ...);
        },
        T::fields(state));
}

// `component` was given `state`: it is as that says, or says why not and is as it was.
template <class Component, class State>
bool adopts_whole_or_not(Component& component, const State& state) {
    const State before = component.snapshot();
    const auto taken = component.adopt(state);
    return component.snapshot() == (taken ? state : before) && (taken || !taken.error().empty());
}

// Ids and names are unique among the fields of one aggregate.
template <HasFields T>
bool fields_are_distinct() {
    T state;
    std::vector<unsigned> ids;
    std::vector<std::string> names;
    std::apply(
        [&](auto... field) {
            (ids.push_back(field.id), ...);
            (names.emplace_back(field.name), ...);
        },
        T::fields(state));
    for (std::size_t i = 0; i < ids.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (ids[i] == ids[j] || names[i] == names[j]) return false;
        }
    }
    return true;
}

}  // namespace devices::legacy::testing
