// Components as units, and their states as people see them.
#include "migration/unit.h"

#include <gtest/gtest.h>

#include "migration/show.h"

namespace migration {
namespace {

namespace saved = vmm::saved;

struct CounterState {
    static constexpr saved::Section kSection{"test.counter", 2};
    std::uint64_t count = 0;
    std::optional<std::string> label;
    bool operator==(const CounterState&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [count, label] = self;
        return std::tuple{saved::field(1, "count", count), saved::field(2, "label", label)};
    }
};

class Counter {
  public:
    CounterState snapshot() const { return state; }
    vmm::Expected<void, std::string> adopt(const CounterState& from) {
        if (from.count > 100) return vmm::Failure{std::string("count is above 100")};
        state = from;
        return {};
    }
    CounterState state;
};

TEST(Unit, CarriesAComponentOver) {
    Counter from, to;
    from.state = {.count = 42, .label = "x"};
    const Unit source = unit_of<CounterState>(from, 3);
    EXPECT_STREQ(source.section.name, "test.counter");
    EXPECT_EQ(source.section.version, 2u);
    EXPECT_EQ(source.instance, 3u);
    const auto bytes = source.save();
    ASSERT_TRUE(bytes);
    const Unit target = unit_of<CounterState>(to);
    ASSERT_TRUE(target.load(*bytes, 2));
    EXPECT_EQ(to.state, from.state);
}

TEST(Unit, SaysWhatItRefuses) {
    Counter from, to;
    from.state.count = 101;
    const auto bytes = unit_of<CounterState>(from).save();
    ASSERT_TRUE(bytes);
    const Unit target = unit_of<CounterState>(to);
    const auto refused = target.load(*bytes, 2);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error(), "count is above 100");
    const auto cut = target.load(std::span(*bytes).first(bytes->size() - 1), 2);
    ASSERT_FALSE(cut);
    EXPECT_EQ(cut.error().substr(0, 6), "label,");
    EXPECT_EQ(to.state, CounterState{});
}

TEST(Unit, PassesOnThatItCannotBeSaved) {
    const Unit unit = make_unit<CounterState>(
        0, []() -> vmm::Result<CounterState> { return vmm::internal_error("it will not say"); },
        [](const CounterState&) -> vmm::Expected<void, std::string> { return {}; });
    const auto bytes = unit.save();
    ASSERT_FALSE(bytes);
    EXPECT_EQ(bytes.error().what, "it will not say");
}

struct Everything {
    static constexpr saved::Section kSection{"test.everything", 1};
    bool on = true;
    std::int16_t below = -2;
    std::uint64_t exact = std::uint64_t{1} << 53;
    std::uint64_t wide = (std::uint64_t{1} << 53) + 1;
    std::array<std::byte, 3> bytes{std::byte{0}, std::byte{0xa5}, std::byte{15}};
    std::vector<std::uint8_t> list{1, 2};
    std::map<std::uint32_t, std::string> map{{7, "seven"}};
    std::optional<std::uint32_t> nothing;
    CounterState inner{.count = 1, .label = "l"};
    bool operator==(const Everything&) const = default;
    static constexpr auto fields(auto& self) {
        auto& [on, below, exact, wide, bytes, list, map, nothing, inner] = self;
        return std::tuple{saved::field(1, "on", on),       saved::field(2, "below", below),
                          saved::field(3, "exact", exact), saved::field(4, "wide", wide),
                          saved::field(5, "bytes", bytes), saved::field(6, "list", list),
                          saved::field(7, "map", map),     saved::field(8, "nothing", nothing),
                          saved::field(9, "inner", inner)};
    }
};

TEST(Show, FieldsByTheirNames) {
    const Kind kind = kind_of<Everything>();
    EXPECT_STREQ(kind.section.name, "test.everything");
    const auto json = kind.show(saved::encode(Everything{}), 1);
    ASSERT_TRUE(json) << json.error();
    EXPECT_EQ(json->dump(),
              R"({"on":true,"below":-2,"exact":9007199254740992,"wide":"0x20000000000001",)"
              R"("bytes":"00a50f","list":[1,2],"map":[{"key":7,"value":"seven"}],)"
              R"("nothing":null,"inner":{"count":1,"label":"l"}})");
    EXPECT_FALSE(kind.show(saved::encode(Everything{}), 2));
}

}  // namespace
}  // namespace migration
