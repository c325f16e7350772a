// Finding the hypercalls of kernels that do not use the hypercall page (XSA-466). That the CPU's own
// instruction is as good as the page where KVM hands it to us: the *-direct cases of tests/guest.
#include "vmm/boot/call_sites.h"

#include <gtest/gtest.h>

#include "tests/unit/vmm/boot/elf_builder.h"

namespace vmm::boot {
namespace {

using namespace testing;

constexpr std::uint64_t kPhysical = 0x100'0000;
constexpr std::uint64_t kVirtual = 0xffff'ffff'8100'0000;

constexpr std::string_view kVmcall{"\x0f\x01\xc1", 3};
constexpr std::string_view kVmmcall{"\x0f\x01\xd9", 3};
constexpr std::string_view kEndbr{"\xf3\x0f\x1e\xfa", 4};

// 64 KiB of INT3 that the tests put functions into.
class Text {
  public:
    Text& put(std::size_t at, std::string_view code) {
        std::memcpy(code_.data() + at, code.data(), code.size());
        return *this;
    }
    Text& call_and_jump(std::size_t at, std::string_view call, std::size_t target,
                        bool endbr = false) {
        if (endbr) {
            put(at, kEndbr);
            at += kEndbr.size();
        }
        put(at, call).put(at + 3, "\xe9");
        poke(code_, at + 4,
             static_cast<std::int32_t>(static_cast<long>(target) - static_cast<long>(at) - 8));
        return *this;
    }
    Text& call_and_return(std::size_t at, std::string_view call, bool endbr = false) {
        if (endbr) {
            put(at, kEndbr);
            at += kEndbr.size();
        }
        return put(at, call).put(at + 3, "\xc3");
    }

    CallSiteSearch search(std::uint32_t flags = PF_R | PF_X, int bits = 64) const {
        return search_at(kVirtual, flags, bits);
    }
    CallSiteSearch search_at(std::uint64_t virtual_address, std::uint32_t flags = PF_R | PF_X,
                             int bits = 64) const {
        TestElf elf = small_kernel();
        elf.bits = bits;
        elf.segments = {{.physical = 0x10'0000, .data = bytes("data"), .flags = PF_R | PF_W},
                        {.physical = kPhysical,
                         .data = code_,
                         .flags = flags,
                         .virtual_address = virtual_address}};
        const ByteVector file = elf.build();
        const auto parsed = parse_elf(file, "image");
        EXPECT_TRUE(parsed);
        return find_call_sites(*parsed, file);
    }

  private:
    ByteVector code_ = ByteVector(0x10000, std::byte{0xcc});
};

CallSites sites(std::uint64_t vmcall, std::uint64_t vmmcall) {
    return {.vmcall = Gpa{kPhysical + vmcall}, .vmmcall = Gpa{kPhysical + vmmcall}};
}

TEST(CallSites, ThePairThatJumpsToTheReturnThunkIsFound) {
    const auto found = Text()
                           .call_and_jump(0x480, kVmmcall, 0x9000)
                           .call_and_jump(0x490, kVmcall, 0x9000)
                           .search();
    EXPECT_EQ(found.found, sites(0x490, 0x480));
    EXPECT_EQ(found.why_not, "");
}

TEST(CallSites, AnEndbrMayStandBeforeEither) {
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x9000, true)
                  .call_and_jump(0x4a0, kVmcall, 0x9000, true)
                  .search()
                  .found,
              sites(0x4a4, 0x484));
}

TEST(CallSites, TheThunkMayLieBeforeThem) {
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x40)
                  .call_and_jump(0x490, kVmcall, 0x40)
                  .search()
                  .found,
              sites(0x490, 0x480));
}

TEST(CallSites, A32BitKernelHasThemToo) {
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x40)
                  .call_and_jump(0x490, kVmcall, 0x40)
                  .search_at(0xc100'0000, PF_R | PF_X, 32)
                  .found,
              sites(0x490, 0x480));
}

TEST(CallSites, FunctionStartsAreCountedInVirtualAddresses) {
    Text text;
    text.call_and_jump(0x488, kVmmcall, 0x9000).call_and_jump(0x498, kVmcall, 0x9000);
    EXPECT_EQ(text.search().found, std::nullopt);
    EXPECT_EQ(text.search_at(kVirtual + 8).found, sites(0x498, 0x488));
}

TEST(CallSites, OthersWithAnotherTargetDoNotMatter) {
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x9000)
                  .call_and_jump(0x490, kVmcall, 0x9000)
                  .call_and_jump(0x600, kVmcall, 0x9010)
                  .call_and_jump(0x700, kVmmcall, 0x9020)
                  .search()
                  .found,
              sites(0x490, 0x480));
}

TEST(CallSites, OthersInTheMiddleOfAFunctionDoNotMatter) {
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x9000)
                  .call_and_jump(0x490, kVmcall, 0x9000)
                  .call_and_jump(0x601, kVmcall, 0x9000)
                  .call_and_jump(0x704, kVmmcall, 0x9000)
                  .search()
                  .found,
              sites(0x490, 0x480));
}

TEST(CallSites, NoneIsNoneAndSaysSo) {
    EXPECT_EQ(Text().search().found, std::nullopt);
    EXPECT_EQ(Text().search().why_not, "no pair of a VMCALL and a VMMCALL function");
    // One of the two is none.
    EXPECT_EQ(Text().call_and_jump(0x480, kVmmcall, 0x9000).search().found, std::nullopt);
    EXPECT_EQ(Text().call_and_jump(0x480, kVmcall, 0x9000).search().found, std::nullopt);
    EXPECT_EQ(Text().call_and_return(0x480, kVmcall).search().found, std::nullopt);
    // So are two with different ends.
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x9000)
                  .call_and_return(0x490, kVmcall)
                  .search()
                  .found,
              std::nullopt);
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x9000)
                  .call_and_jump(0x490, kVmcall, 0x9001)
                  .search()
                  .found,
              std::nullopt);
}

TEST(CallSites, AJumpOutOfTheImageIsNone) {
    EXPECT_EQ(Text()
                  .call_and_jump(0x480, kVmmcall, 0x20000)
                  .call_and_jump(0x490, kVmcall, 0x20000)
                  .search()
                  .found,
              std::nullopt);
}

TEST(CallSites, MoreThanOnePairIsAmbiguous) {
    Text text;
    text.call_and_jump(0x480, kVmmcall, 0x9000).call_and_jump(0x490, kVmcall, 0x9000);
    Text three = text;
    three.call_and_jump(0x4a0, kVmcall, 0x9000);
    EXPECT_EQ(three.search().found, std::nullopt);
    EXPECT_NE(three.search().why_not.find("2 pairs"), std::string::npos);
    Text four = text;
    four.call_and_jump(0x600, kVmmcall, 0x9100).call_and_jump(0x610, kVmcall, 0x9100);
    EXPECT_EQ(four.search().found, std::nullopt);
    EXPECT_NE(four.search().why_not.find("2 pairs"), std::string::npos);
}

TEST(CallSites, ThePairThatReturnsIsFoundWhenItIsTheOnlyOne) {
    EXPECT_EQ(
        Text().call_and_return(0x480, kVmmcall).call_and_return(0x490, kVmcall).search().found,
        sites(0x490, 0x480));
    EXPECT_EQ(Text()
                  .call_and_return(0x480, kVmmcall, true)
                  .call_and_return(0x4c0, kVmcall, true)
                  .search()
                  .found,
              sites(0x4c4, 0x484));
}

TEST(CallSites, ThePairThatReturnsYieldsToAPairThatJumps) {
    EXPECT_EQ(Text()
                  .call_and_return(0x480, kVmmcall)
                  .call_and_return(0x490, kVmcall)
                  .call_and_jump(0x600, kVmmcall, 0x9000)
                  .call_and_jump(0x610, kVmcall, 0x9000)
                  .search()
                  .found,
              sites(0x610, 0x600));
}

TEST(CallSites, ThePairThatReturnsMustBeNeighbours) {
    const auto far =
        Text().call_and_return(0x480, kVmmcall).call_and_return(0x600, kVmcall).search();
    EXPECT_EQ(far.found, std::nullopt);
    EXPECT_NE(far.why_not.find("too far apart"), std::string::npos);
}

TEST(CallSites, MoreThanOneThatReturnIsAmbiguous) {
    const auto three = Text()
                           .call_and_return(0x480, kVmmcall)
                           .call_and_return(0x490, kVmcall)
                           .call_and_return(0x8000, kVmcall)
                           .search();
    EXPECT_EQ(three.found, std::nullopt);
    EXPECT_NE(three.why_not.find("several"), std::string::npos);
}

TEST(CallSites, OnlyExecutableSegmentsAreSearched) {
    Text text;
    text.call_and_jump(0x480, kVmmcall, 0x9000).call_and_jump(0x490, kVmcall, 0x9000);
    EXPECT_EQ(text.search(PF_R | PF_W).found, std::nullopt);
}

TEST(CallSites, ASiteThatTheEndOfTheSegmentCutsOffIsNone) {
    for (std::size_t at = 0xfff8; at <= 0xfffe; ++at) {
        // Shifted so that `at` is a function's start.
        const std::uint64_t base = kVirtual + (16 - at % 16);
        Text text;
        text.put(at, std::string(kVmcall).substr(0, 0x10000 - at));
        if (at + 3 < 0x10000) text.put(at + 3, "\xe9");
        EXPECT_EQ(text.search_at(base).found, std::nullopt);
    }
}

TEST(CallSites, AnImageFullOfThemDoesNotKeepUsBusy) {
    Text text;
    for (std::size_t at = 0; at < 0x10000; at += 32) {
        text.call_and_jump(at, kVmmcall, 0).call_and_jump(at + 16, kVmcall, 0);
    }
    EXPECT_EQ(text.search().found, std::nullopt);
    EXPECT_NE(text.search().why_not.find("far too many"), std::string::npos);
}

}  // namespace
}  // namespace vmm::boot
