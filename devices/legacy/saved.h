// How the State aggregates of this folder name their members: an id that is never reused, a name
// for people, and the member itself. fields() binds every member by a structured binding, so that
// one which is added and not named does not compile.
#pragma once

namespace devices::legacy::saved {

struct Section {
    const char* name;
    unsigned version;
};

template <class T>
struct Field {
    unsigned id;
    const char* name;
    T& value;
};

template <class T>
constexpr Field<T> field(unsigned id, const char* name, T& value) {
    return {id, name, value};
}

}  // namespace devices::legacy::saved
