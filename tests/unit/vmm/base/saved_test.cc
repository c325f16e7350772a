// States to bytes and back: each kind of member, versions, and bytes that are not a state's.
#include "vmm/base/saved.h"

#include <limits>

#include <gtest/gtest.h>

#include "tests/fakes/saved_checks.h"

namespace vmm::saved {
namespace {

enum class Colour : std::uint16_t { kRed = 1, kBlue = 0x1234 };

struct Inner {
    std::int32_t depth = -1;
    std::optional<std::uint8_t> tag;
    bool operator==(const Inner&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [depth, tag] = self;
        return std::tuple{field(1, "depth", depth), field(2, "tag", tag)};
    }
};

struct Whole {
    static constexpr Section kSection{"test.whole", 3};
    bool on = false;
    Colour colour = Colour::kRed;
    std::uint64_t wide = 0;
    std::array<std::uint16_t, 3> triple{};
    std::string name;
    std::vector<std::byte> bytes;
    std::vector<Inner> inner;
    std::map<std::uint32_t, std::string> names;
    Inner one;
    std::uint8_t late = 7;
    bool operator==(const Whole&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [on, colour, wide, triple, name, bytes, inner, names, one, late] = self;
        return std::tuple{field(1, "on", on),       field(2, "colour", colour),
                          field(3, "wide", wide),   field(4, "triple", triple),
                          field(5, "name", name),   field(6, "bytes", bytes),
                          field(7, "inner", inner), field(9, "names", names),
                          field(10, "one", one),    field(12, "late", late, Since{3})};
    }
};

Whole example() {
    return {.on = true,
            .colour = Colour::kBlue,
            .wide = 0x0123'4567'89ab'cdef,
            .triple = {1, 2, 0xffff},
            .name = "a name",
            .bytes = {std::byte{0}, std::byte{0xff}},
            .inner = {{.depth = std::numeric_limits<int>::min(), .tag = 9}, {}},
            .names = {{1, "one"}, {0xffff'ffff, ""}},
            .one = {.depth = 5, .tag = std::nullopt},
            .late = 1};
}

TEST(Saved, EveryKindOfMember) {
    fakes::expect_saved(example(), "test.whole");
    fakes::expect_saved(Whole{}, "test.whole-empty");
}

// A file of version 2 has no field of version 3.
TEST(Saved, AnOlderVersionLeavesWhatCameLater) {
    auto bytes = encode(example());
    const std::size_t late = 2 + 4 + 1;
    bytes.resize(bytes.size() - late);
    bytes[0] = std::byte{9};  // one field less
    const auto old = decode<Whole>(bytes, 2);
    ASSERT_TRUE(old) << old.error();
    Whole expected = example();
    expected.late = 7;
    EXPECT_EQ(*old, expected);
    EXPECT_FALSE(decode<Whole>(bytes, 3));
    EXPECT_FALSE(decode<Whole>(encode(example()), 2));
}

struct Small {
    static constexpr Section kSection{"test.small", 1};
    bool on = false;
    std::vector<std::uint32_t> list;
    std::map<std::uint8_t, std::uint8_t> map;
    bool operator==(const Small&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [on, list, map] = self;
        return std::tuple{field(1, "on", on), field(2, "list", list), field(3, "map", map)};
    }
};

std::string failure(std::vector<int> values) {
    std::vector<std::byte> bytes;
    for (const int value : values) {
        bytes.push_back(static_cast<std::byte>(value));
    }
    const auto state = decode<Small>(bytes, 1);
    return state ? "taken" : state.error();
}

TEST(Saved, AFailureNamesTheFieldAndTheByte) {
    EXPECT_EQ(failure({}), "byte 0: it ends after 0 of 2 bytes");
    EXPECT_EQ(failure({2, 0}), "byte 2: another number of fields");
    EXPECT_EQ(failure({3, 0, 1, 0, 1, 0, 0, 0, 2}), "on, byte 9: neither true nor false");
    EXPECT_EQ(failure({3, 0, 2, 0}), "on, byte 4: another field stands here");
    EXPECT_EQ(failure({3, 0, 1, 0, 2, 0, 0, 0, 1, 0}), "on, byte 9: 1 bytes are left over");
    EXPECT_EQ(failure({3, 0, 1, 0, 9, 0, 0, 0, 1}),
              "on, byte 8: it says that it has 9 bytes, and 1 are left");
}

TEST(Saved, CountsAreHostile) {
    // 2^32-1 elements in 4 bytes.
    EXPECT_EQ(
        failure({3, 0, 1, 0, 1, 0, 0, 0, 1, 2, 0, 8, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0}),
        "list, byte 23: it ends after 0 of 4 bytes");
    // A map has its keys in order, each once: there is one encoding of a state.
    const std::vector<int> head = {3, 0, 1, 0, 1, 0, 0, 0, 1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0};
    const auto map = [&](std::vector<int> rest) {
        auto all = head;
        for (const int value : {3, 0, 8, 0, 0, 0, 2, 0, 0, 0}) {
            all.push_back(value);
        }
        all.insert(all.end(), rest.begin(), rest.end());
        return failure(all);
    };
    EXPECT_EQ(map({1, 0, 2, 0}), "taken");
    EXPECT_EQ(map({2, 0, 1, 0}), "map, byte 32: a key out of order");
    EXPECT_EQ(map({2, 0, 2, 0}), "map, byte 32: a key out of order");
}

}  // namespace
}  // namespace vmm::saved
