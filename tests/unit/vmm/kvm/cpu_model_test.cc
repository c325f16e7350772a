// What a CPU can do for a guest: as text, in common with another, and taken away from leaves.
#include "vmm/kvm/cpu_model.h"

#include <gtest/gtest.h>

namespace vmm::kvm {
namespace {

using Names = std::vector<std::string>;

std::vector<CpuidLeaf> leaves() {
    return {
        {.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
        {.function = 1, .eax = 0x800f12, .ebx = 0x010800, .ecx = 0x89202001, .edx = 0x178bfbff},
        {.function = 7, .index = 0, .indexed = true, .ebx = 0x00002028, .ecx = 8},
        {.function = 0xd, .index = 0, .indexed = true, .eax = 0x207, .ebx = 576, .ecx = 840},
        {.function = 0xd, .index = 1, .indexed = true, .eax = 3, .ebx = 832, .ecx = 0x800},
        {.function = 0xd, .index = 2, .indexed = true, .eax = 256, .ebx = 576},
        {.function = 0xd, .index = 9, .indexed = true, .eax = 8, .ebx = 832},
        {.function = 0xd, .index = 11, .indexed = true, .eax = 16, .ecx = 1},
        {.function = 0x40000000, .eax = 0x40000005, .ebx = 0x566e6558},
        {.function = 0x80000001, .ecx = 0x40000021, .edx = 0x2dd3fbff},
        {.function = 0x80000008, .eax = 0x3030, .ebx = 0},
    };
}

CpuModel model() {
    return CpuModel::of(CpuidState::of(leaves()));
}

CpuModel parsed(const std::string& text) {
    auto cpu = CpuModel::parse(text);
    EXPECT_TRUE(cpu) << cpu.error();
    return cpu ? *std::move(cpu) : CpuModel();
}

// `text` without one word of it.
std::string without(std::string text, const std::string& word) {
    const std::size_t at = text.find(" " + word);
    EXPECT_NE(at, std::string::npos) << word;
    return text.erase(at, word.size() + 1);
}

const CpuidLeaf& leaf(const std::vector<CpuidLeaf>& all, std::uint32_t function,
                      std::uint32_t index = 0) {
    for (const CpuidLeaf& l : all) {
        if (l.function == function && l.index == index) return l;
    }
    ADD_FAILURE() << "there is no such leaf";
    return all.front();
}

TEST(CpuModel, IsAShortText) {
    EXPECT_EQ(model().to_text(),
              "vendor AuthenticAMD\n"
              "address_bits 48 48\n"
              "features fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36\n"
              "features clflush mmx fxsr sse sse2 pni cx16 x2apic tsc_deadline_timer hypervisor\n"
              "features bmi1 avx2 pku xsaveopt xsavec lahf_lm abm cpuid-80000001.0-ecx-30\n"
              "features syscall nx mmxext pdpe1gb rdtscp lm\n"
              "xsave x87 sse avx@576+256 pkru@832+8\n");
}

TEST(CpuModel, ComesBackFromItsText) {
    EXPECT_EQ(parsed(model().to_text()).to_text(), model().to_text());
    EXPECT_EQ(parsed(model().to_text()).missing_from(model()), Names{});
    EXPECT_EQ(model().missing_from(parsed(model().to_text())), Names{});
    const CpuModel odd = parsed(
        "vendor   Shanghai  \naddress_bits 40 48\r\n#features sse\n\n"
        "\tfeatures  fpu # sse\nxsave component-40@4096+64");
    EXPECT_EQ(odd.vendor(), "  Shanghai  ");
    EXPECT_EQ(odd.features(), Names{"fpu"});
    EXPECT_EQ(odd.xsave(), Names{"component-40@4096+64"});
    EXPECT_EQ(parsed(odd.to_text()).to_text(), odd.to_text());
}

TEST(CpuModel, ATextThatIsNoneIsRefusedByItsLine) {
    const std::pair<const char*, const char*> wrong[] = {
        {"", "it names no vendor"},
        {"vendor GenuineIntel", "it has no address_bits"},
        {"vendor", "line 1: a vendor has 12 letters"},
        {"vendor GenuineIntel x", "line 1: 'x' is too much"},
        {"\n\naddress_bits 48", "line 3: linear addresses have 48 or 57 bits"},
        {"address_bits 53 48", "line 1: physical addresses have 36 to 52 bits"},
        {"address_bits -1 48", "line 1: physical addresses have 36 to 52 bits"},
        {"address_bits 48 48 48", "line 1: '48' is too much"},
        {"features fpu av\x1bx", "line 1: there is no feature 'av?x'"},
        {"features -", "line 1: there is no feature '-'"},
        {"features cpuid-1.0-ecx-27", "line 1: there is no feature 'cpuid-1.0-ecx-27'"},
        {"xsave avx", "line 1: 'avx' is not NAME@OFFSET+SIZE"},
        {"xsave avx@+", "line 1: 'avx@+' is not NAME@OFFSET+SIZE"},
        {"xsave avx@576+256x", "line 1: 'avx@576+256x' is not NAME@OFFSET+SIZE"},
        {"xsave sse@1+2", "line 1: 'sse@1+2' is not NAME@OFFSET+SIZE"},
        {"xsave avy@576+256", "line 1: xsave has no component 'avy'"},
        {"feature fpu", "line 1: 'feature' is not vendor, address_bits, features or xsave"},
    };
    for (const auto& [text, why] : wrong) {
        const auto cpu = CpuModel::parse(text);
        ASSERT_FALSE(cpu) << text;
        EXPECT_EQ(cpu.error(), why) << text;
    }
}

TEST(CpuModel, SaysWhatAnotherLacks) {
    std::string less = without(without(model().to_text(), "avx2"), "pdpe1gb");
    less.replace(less.find("48 48"), 5, "40 48");
    less.replace(less.find("pkru@832"), 8, "pkru@900");
    EXPECT_EQ(
        model().missing_from(parsed(less)),
        (Names{"avx2", "pdpe1gb", "xsave of pkru at its place", "physical addresses of 48 bits"}));
    EXPECT_EQ(parsed(without(model().to_text(), "pkru@832+8")).missing_from(model()), Names{});
}

TEST(CpuModel, HasInCommonWhatBothHave) {
    CpuModel one = parsed(without(without(model().to_text(), "avx2"), "pkru@832+8"));
    const CpuModel other = parsed(without(model().to_text(), "cx16"));
    ASSERT_TRUE(one.intersect(other));
    EXPECT_EQ(one.to_text(),
              parsed(without(without(without(model().to_text(), "avx2"), "cx16"), "pkru@832+8"))
                  .to_text());
    const auto strangers =
        one.intersect(parsed("vendor GenuineIntel\naddress_bits 48 48\nfeatures fpu"));
    ASSERT_FALSE(strangers);
    EXPECT_EQ(strangers.error(), "no guest goes from a CPU of AuthenticAMD to one of GenuineIntel");
}

TEST(CpuModel, TakesNothingAwayOfItself) {
    auto limited = leaves();
    model().limit(limited);
    EXPECT_TRUE(CpuidState::of(limited) == CpuidState::of(leaves()));
}

TEST(CpuModel, TakesAwayWhatItHasNot) {
    std::string less = model().to_text();
    for (const char* word : {"avx2", "mmx", "pku", "pkru@832+8", "xsavec"}) {
        less = without(less, word);
    }
    less.replace(less.find("48 48"), 5, "40 48");
    auto limited = leaves();
    parsed(less).limit(limited);
    const auto all = leaves();
    EXPECT_EQ(leaf(limited, 1).edx, leaf(all, 1).edx & ~(1u << 23));
    EXPECT_EQ(leaf(limited, 1).ecx, leaf(all, 1).ecx);  // osxsave is no feature
    EXPECT_EQ(leaf(limited, 7).ebx, 0x2008u);           // nor is zero_fcs_fds
    EXPECT_EQ(leaf(limited, 7).ecx, 0u);
    // What repeats leaf 1 does so still; one that is like it, mmxext, is another.
    EXPECT_EQ(leaf(limited, 0x80000001).edx, leaf(all, 0x80000001).edx & ~(1u << 23));
    EXPECT_EQ(leaf(limited, 0x80000008).eax, 0x3028u);
    EXPECT_EQ(leaf(limited, 0xd).eax, 7u);
    EXPECT_EQ(leaf(limited, 0xd).ecx, 832u);
    EXPECT_EQ(leaf(limited, 0xd, 1).eax, 1u);
    EXPECT_EQ(leaf(limited, 0xd, 1).ecx, 0x800u);
    EXPECT_EQ(leaf(limited, 0xd, 2).eax, 256u);
    EXPECT_EQ(leaf(limited, 0xd, 9).eax, 0u);
    EXPECT_EQ(leaf(limited, 0xd, 9).ebx, 0u);
    EXPECT_EQ(leaf(limited, 0xd, 11).eax, 16u);  // a supervisor's
    EXPECT_EQ(leaf(limited, 0x40000000).eax, 0x40000005u);
    EXPECT_EQ(CpuModel::of(CpuidState::of(limited)).to_text(), parsed(less).to_text());
}

// No more than there is, whatever is asked for.
TEST(CpuModel, AddsNothing) {
    const CpuModel more = parsed(model().to_text() + "features avx512f\nxsave opmask@1088+64\n");
    auto limited = leaves();
    more.limit(limited);
    EXPECT_TRUE(CpuidState::of(limited) == CpuidState::of(leaves()));
}

}  // namespace
}  // namespace vmm::kvm
