// The profile rows are ABI: once a VM was born under one, nothing about it may change.
#include "xenshim/abi/profile.h"

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "tests/golden/folder.h"
namespace xenshim::abi {
namespace {

constexpr std::uint64_t kUintMax = 0xffffffff;

const Profile& xen_417() {
    return *find_profile("xen-4.17");
}

// The rule of another release of Xen, made from the row that we have.
Profile with(unsigned shift, bool wide_command) {
    Profile p = xen_417();
    p.memory_op_shift = shift;
    p.memory_op_wide_command = wide_command;
    return p;
}

// One line per row, every member of it: tests/golden/profiles.tsv. A row that differs from it is
// another dialect under the same name; a new profile adds a line.
std::string line_of(const Profile& p) {
    std::ostringstream out;
    const auto number = [&](const char* name, std::uint64_t value) {
        out << '\t' << name << "=0x" << std::hex << value << std::dec;
    };
    out << p.name << '\t' << p.extraversion << '\t' << p.capabilities;
    number("ground", static_cast<unsigned>(p.ground));
    number("behaves_as", p.behaves_as);
    number("major", p.major);
    number("minor", p.minor);
    number("features", p.features);
    number("virt_start", p.virt_start);
    number("cpuid_hvm_flags", p.cpuid_hvm_flags);
    number("cpuid_max_leaf", p.cpuid_max_leaf);
    number("hypercalls", p.hypercalls);
    number("wide_numbers", p.wide_numbers);
    number("only_ring3_refused", p.only_ring3_refused);
    number("memory_op_shift", p.memory_op_shift);
    number("memory_op_max_extents", p.memory_op_max_extents);
    number("memory_op_wide_command", p.memory_op_wide_command);
    number("memory_op_moves_handle", p.memory_op_moves_handle);
    number("memory_op_stray_bits",
           p.memory_op_stray_bits ? static_cast<std::uint64_t>(*p.memory_op_stray_bits) : 0);
    number("physmap_range", static_cast<unsigned>(p.physmap_range));
    number("acquire_resource_continues", p.acquire_resource_continues);
    number("private_memory_ops", p.private_memory_ops);
    number("grant_batches_continue", p.grant_batches_continue);
    number("grant_op_bits", p.grant_op_bits);
    number("grant_frames", p.grant_frames);
    number("hvm_op_mask", static_cast<unsigned>(p.hvm_op_mask));
    number("hvm_memory_progress", static_cast<unsigned>(p.hvm_memory_progress));
    number("hvm_device_ops", p.hvm_device_ops);
    number("hvm_params", p.hvm_params);
    number("hides_console", p.hides_console);
    number("legacy_windows", p.legacy_windows);
    number("evtchn_reset_continues", p.evtchn_reset_continues);
    number("multicall_continues_inside", p.multicall_continues_inside);
    return out.str();
}

TEST(Profile, EveryRowIsPinned) {
    std::ifstream lines(golden::file("profiles.tsv"));
    std::string expected;
    for (const Profile& p : profiles()) {
        ASSERT_TRUE(std::getline(lines, expected)) << "no line for:\n" << line_of(p);
        EXPECT_EQ(line_of(p), expected);
    }
    EXPECT_FALSE(std::getline(lines, expected)) << expected;
}

// The row that was measured, against what was measured.
TEST(Profile, Xen417IsWhatWasMeasured) {
    const Profile& p = xen_417();
    EXPECT_EQ(p.ground, Ground::kMeasured);
    EXPECT_EQ(p.extraversion, ".7");
    EXPECT_EQ(p.features, 0x12305u);
    EXPECT_EQ(p.cpuid_hvm_flags, 0x58u);  // Xen's 0x5c without IOMMU_MAPPINGS
    EXPECT_EQ(p.cpuid_max_leaf, 5u);
    EXPECT_EQ(p.memory_op_max_extents, 0x03ff'ffffu);
    EXPECT_EQ(p.memory_op_stray_bits, XEN_EINVAL);
    EXPECT_EQ(p.hvm_params, 39u);
    // The slots that do not answer -ENOSYS there, and argo and xsm, which answer it themselves.
    std::set<unsigned> numbers;
    for (unsigned n = 0; n < 64; ++n) {
        if ((p.hypercalls >> n & 1) != 0) numbers.insert(n);
    }
    EXPECT_EQ(numbers, (std::set<unsigned>{7,  12, 13, 15, 17, 18, 20, 21, 24, 26, 27,
                                           29, 32, 33, 34, 35, 36, 39, 40, 41, 42, 49}));
}

TEST(Profile, TheDefaultExistsAndUnknownNamesDoNot) {
    EXPECT_NE(find_profile(kDefaultProfile), nullptr);
    EXPECT_EQ(find_profile(""), nullptr);
    EXPECT_EQ(find_profile("xen-4."), nullptr);
    EXPECT_EQ(find_profile("xen-4.17 "), nullptr);
    for (const Profile& p : profiles()) {
        EXPECT_EQ(find_profile(p.name), &p);
    }
}

// ---- memory_op's sub-op register
// ------------------------------------------------------------------

TEST(MemoryOpCommand, TheExampleOfTheReference) {
    // xen-abi.md 2.2: decrease_reservation stopped after 341 of 1000 extents.
    const Profile& p = xen_417();
    EXPECT_EQ(encode_memory_op(p, {.op = 1, .start = 341}), 0x5541u);
    for (const Width width : {Width::k32, Width::k64}) {
        EXPECT_EQ(decode_memory_op(p, width, 0x5541), (Command{1, 341}));
    }
}

TEST(MemoryOpCommand, RoundTripsForEveryOpAndManyCursors) {
    const Profile& p = xen_417();
    for (std::uint32_t op = 0; op < 64; ++op) {
        for (std::uint64_t start :
             {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{63}, std::uint64_t{64},
              std::uint64_t{0xffff}, std::uint64_t{0x10000}, kUintMax >> 6}) {
            const Command at{op, start};
            const std::uint64_t command = encode_memory_op(p, at);
            EXPECT_LE(command, kUintMax);  // fits a 32-bit caller's register
            EXPECT_EQ(decode_memory_op(p, Width::k32, command), at);
            EXPECT_EQ(decode_memory_op(p, Width::k64, command), at);
        }
    }
}

TEST(MemoryOpCommand, UpperHalfCountsForWideCallersOfXen417Only) {
    const std::uint64_t command = (std::uint64_t{1} << 32) | 1;
    EXPECT_EQ(decode_memory_op(xen_417(), Width::k64, command), (Command{1, 0x400'0000}));
    EXPECT_EQ(decode_memory_op(xen_417(), Width::k32, command), (Command{1, 0}));
    EXPECT_EQ(decode_memory_op(with(6, false), Width::k64, command), (Command{1, 0}));
}

TEST(MemoryOpCommand, Bit31IsSignExtendedBeforeXen417) {
    const std::uint64_t command = (std::uint64_t{1} << 31) | 6;
    EXPECT_EQ(decode_memory_op(xen_417(), Width::k64, command), (Command{6, 0x200'0000}));
    EXPECT_EQ(decode_memory_op(with(6, false), Width::k64, command),
              (Command{6, 0x3ff'ffff'fe00'0000}));
    // A 32-bit caller's is an unsigned int everywhere.
    EXPECT_EQ(decode_memory_op(with(6, false), Width::k32, command), (Command{6, 0x200'0000}));
}

// xen-abi.md 2.11 (a): a cursor written with 4 bits below it, read with 6.
TEST(MemoryOpCommand, WideningTheShiftMisreadsAsTheReferenceSays) {
    struct Row {
        std::uint32_t op;
        std::uint64_t start;
        std::uint64_t command;
        Command seen;
    };
    const Row rows[] = {{1, 0, 0x01, {1, 0}},     {1, 1, 0x11, {17, 0}}, {1, 2, 0x21, {33, 0}},
                        {1, 3, 0x31, {49, 0}},    {1, 4, 0x41, {1, 1}},  {1, 5, 0x51, {17, 1}},
                        {1, 100, 0x641, {1, 25}}, {6, 1, 0x16, {22, 0}}, {6, 2, 0x26, {38, 0}},
                        {6, 3, 0x36, {54, 0}},    {6, 4, 0x46, {6, 1}},  {0, 1, 0x10, {16, 0}},
                        {0, 4, 0x40, {0, 1}},     {8, 2, 0x28, {40, 0}}};
    for (const Row& r : rows) {
        EXPECT_EQ(encode_memory_op(with(4, false), {r.op, r.start}), r.command);
        EXPECT_EQ(decode_memory_op(xen_417(), Width::k64, r.command), r.seen) << r.command;
    }
}

// xen-abi.md 2.11 (b): the other way round.
TEST(MemoryOpCommand, NarrowingTheShiftMisreadsAsTheReferenceSays) {
    struct Row {
        std::uint32_t op;
        std::uint64_t start;
        std::uint64_t command;
        Command seen;
    };
    const Row rows[] = {{1, 0x155, 0x5541, {1, 0x554}},
                        {1, 10, 0x281, {1, 40}},
                        {6, 10, 0x286, {6, 40}},
                        {23, 2, 0x97, {7, 9}},
                        {17, 0, 0x11, {1, 1}}};
    for (const Row& r : rows) {
        EXPECT_EQ(encode_memory_op(xen_417(), {r.op, r.start}), r.command);
        EXPECT_EQ(decode_memory_op(with(4, false), Width::k64, r.command), r.seen) << r.command;
    }
}

// xen-abi.md 2.11 (e): an unshifted cursor, read with the shifted rule.
TEST(MemoryOpCommand, AccessOpsCursorIsNotOurs) {
    EXPECT_EQ(decode_memory_op(xen_417(), Width::k64, 21 | 0x40), (Command{21, 1}));
}

}  // namespace
}  // namespace xenshim::abi
