// Sub-op registers taken apart, under the profiles as they are: the worked examples of xen-abi.md
// 2.11, and every profile against the rules of 2.4 written a second time.
#include <random>

#include <gtest/gtest.h>

#include "tests/sweep/era.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"
#include "xenshim/abi/profile.h"

namespace xenshim::abi {
namespace {

using tests::Era;

const Profile& profile(std::string_view name) {
    const Profile* found = find_profile(name);
    EXPECT_NE(found, nullptr) << name;
    return *found;
}

Command memory(std::string_view name, std::uint64_t command, Width width = Width::k64) {
    return decode_memory_op(profile(name), width, command);
}
Command hvm(std::string_view name, std::uint64_t command) {
    return decode_hvm_op(profile(name), command);
}
Command grant(std::string_view name, std::uint64_t command) {
    return decode_grant_table_op(profile(name), command);
}

// ---- 2.11 (a): written by 3.3, read by its successors -------------------------------------------

TEST(WorkedExamples, AWidening) {
    struct Row {
        std::uint64_t op, start, command;
        Command seen;
    };
    constexpr Row kRows[] = {
        {1, 0, 0x01, {1, 0}},     {1, 1, 0x11, {17, 0}}, {1, 2, 0x21, {33, 0}},
        {1, 3, 0x31, {49, 0}},    {1, 4, 0x41, {1, 1}},  {1, 5, 0x51, {17, 1}},
        {1, 100, 0x641, {1, 25}}, {6, 1, 0x16, {22, 0}}, {6, 2, 0x26, {38, 0}},
        {6, 3, 0x36, {54, 0}},    {6, 4, 0x46, {6, 1}},  {0, 1, 0x10, {16, 0}},
        {0, 4, 0x40, {0, 1}},     {8, 2, 0x28, {40, 0}},
    };
    for (const Row& row : kRows) {
        for (const char* source : {"xen-3.0.3", "xen-3.3"}) {
            EXPECT_EQ(encode_memory_op(profile(source), {row.op, row.start}), row.command);
            EXPECT_EQ(memory(source, row.command), (Command{row.op, row.start}));
        }
        for (const char* destination : {"xen-3.4", "xen-4.0", "xen-4.8", "xen-4.17", "xen-4.22",
                                        "xenserver-6.5", "xenserver-7.5", "xenserver-8.0"}) {
            for (const Width width : {Width::k32, Width::k64}) {
                EXPECT_EQ(memory(destination, row.command, width), row.seen)
                    << destination << " 0x" << std::hex << row.command;
            }
        }
    }
}

// ---- 2.11 (b): the way back ---------------------------------------------------------------------

TEST(WorkedExamples, BNarrowing) {
    struct Row {
        std::uint64_t op, start, command;
        Command seen;
    };
    constexpr Row kRows[] = {
        {1, 0x155, 0x5541, {1, 0x554}}, {1, 10, 0x281, {1, 40}}, {6, 10, 0x286, {6, 40}},
        {23, 2, 0x97, {7, 9}},          {17, 0, 0x11, {1, 1}},
    };
    for (const Row& row : kRows) {
        EXPECT_EQ(encode_memory_op(profile("xen-4.17"), {row.op, row.start}), row.command);
        EXPECT_EQ(memory("xen-3.3", row.command), row.seen);
    }
}

// ---- 2.11 (c): hvm_op's mask --------------------------------------------------------------------

TEST(WorkedExamples, CLegacyDriversUnderEachMask) {
    // The candidates masked every value, and made Windows crash.
    EXPECT_EQ(hvm("xen-4.5-rc", 0x102), (Command{2, 0x100}));
    EXPECT_EQ(hvm("xen-4.5-rc", 0x103), (Command{3, 0x100}));
    // The release only looks below a cursor where there can be one.
    for (const char* name : {"xen-4.4", "xen-4.5", "xen-4.7", "xen-4.8", "xen-4.9", "xen-4.17",
                             "xenserver-6.2", "xenserver-7.1", "xenserver-7.5", "xenserver-8.0"}) {
        EXPECT_EQ(hvm(name, 0x102), (Command{0x102, 0})) << name;
        EXPECT_EQ(hvm(name, 0x103), (Command{0x103, 0})) << name;
    }
}

TEST(WorkedExamples, CCursorsOfModifiedMemoryAndSetMemType) {
    for (const char* name :
         {"xen-4.5-rc", "xen-4.5", "xen-4.6", "xen-4.7", "xen-4.8", "xenserver-7.1"}) {
        EXPECT_EQ(hvm(name, 0x107), (Command{7, 0x100})) << name;
        EXPECT_EQ(hvm(name, 0x2408), (Command{8, 0x2400})) << name;
        EXPECT_EQ(encode_hvm_op(profile(name), {8, 0x2400}), 0x2408u) << name;
    }
    for (const char* name : {"xen-3.3", "xen-4.0", "xen-4.4", "xen-4.9", "xen-4.17",
                             "xenserver-6.5", "xenserver-7.5", "xenserver-8.0"}) {
        EXPECT_EQ(hvm(name, 0x107), (Command{0x107, 0})) << name;
        EXPECT_EQ(hvm(name, 0x2408), (Command{0x2408, 0})) << name;
    }
}

// ---- 2.11 (d): cache_flush ----------------------------------------------------------------------

TEST(WorkedExamples, DCacheFlushKeepsAGrantReference) {
    for (const char* name : {"xen-4.5-rc", "xen-4.5", "xen-4.8", "xen-4.17", "xenserver-7.1"}) {
        EXPECT_EQ(grant(name, 0x500c), (Command{12, 0x5000})) << name;
        EXPECT_EQ(encode_grant_table_op(profile(name), {12, 0x5000}), 0x500cu) << name;
        EXPECT_EQ(grant(name, 0x5005), (Command{0x5005, 0})) << name;  // no other has a cursor
    }
    for (const char* name : {"xen-3.3", "xen-4.0", "xen-4.4", "xenserver-6.5"}) {
        EXPECT_EQ(grant(name, 0x500c), (Command{0x500c, 0})) << name;
    }
}

// ---- 2.11 (e): access_op, whose cursor is not shifted -------------------------------------------

TEST(WorkedExamples, EAccessOpReadWithTheShiftedRule) {
    // A guest may not call it; common code takes its register apart like every other's.
    EXPECT_EQ(memory("xen-4.17", 21 | 0x40), (Command{21, 1}));
    EXPECT_EQ(memory("xen-4.5", 21 | 0x40), (Command{21, 1}));
}

// ---- every profile ------------------------------------------------------------------------------

TEST(EveryProfile, MemoryOpIsTakenApartAsItsEraDid) {
    std::mt19937_64 random(3);
    for (const Profile& p : profiles()) {
        const Era era(p.name);
        for (unsigned i = 0; i < 4000; ++i) {
            const std::uint64_t command = random() >> random() % 64;
            const std::uint64_t ops = std::uint64_t{1} << era.memory_shift();
            // A 32-bit caller's is an unsigned int. A 64-bit caller's was an int until 4.17, and
            // went on as an unsigned long.
            const std::uint64_t narrow = command % 0x1'0000'0000;
            std::uint64_t wide = command;
            if (era.release < 417) {
                wide = narrow >= 0x8000'0000 ? narrow + 0xffff'ffff'0000'0000 : narrow;
            }
            EXPECT_EQ(decode_memory_op(p, Width::k32, command),
                      (Command{narrow % ops, narrow / ops}))
                << p.name << " 0x" << std::hex << command;
            EXPECT_EQ(decode_memory_op(p, Width::k64, command), (Command{wide % ops, wide / ops}))
                << p.name << " 0x" << std::hex << command;
        }
    }
}

TEST(EveryProfile, HvmOpIsTakenApartAsItsEraDid) {
    std::mt19937_64 random(4);
    for (const Profile& p : profiles()) {
        const Era era(p.name);
        for (unsigned i = 0; i < 4000; ++i) {
            const std::uint64_t command =
                i < 0x400 ? i : (random() >> random() % 64 & ~0xffull) | random() % 16;
            const std::uint64_t low = command % 256;
            const bool legacy =
                era.xenserver && era.product < 80 && (command == 0x102 || command == 0x103);
            const bool apart =
                !legacy && (era.candidate || (era.hvm_memory() == Era::HvmMemory::kUnshifted &&
                                              (low == 7 || low == 8)));
            EXPECT_EQ(decode_hvm_op(p, command),
                      apart ? (Command{low, command - low}) : (Command{command, 0}))
                << p.name << " 0x" << std::hex << command;
        }
    }
}

TEST(EveryProfile, GrantTableOpIsTakenApartAsItsEraDid) {
    std::mt19937_64 random(5);
    for (const Profile& p : profiles()) {
        const Era era(p.name);
        for (unsigned i = 0; i < 4000; ++i) {
            const std::uint64_t command =
                (random() >> random() % 64 & ~0xfffull) | (i % 3 == 0 ? 12 : random() % 16);
            const std::uint64_t cut = command % 0x1'0000'0000;
            const bool apart = era.release >= 405 && cut % 4096 == 12;
            EXPECT_EQ(decode_grant_table_op(p, command),
                      apart ? (Command{12, cut - 12}) : (Command{cut, 0}))
                << p.name << " 0x" << std::hex << command;
        }
    }
}

// What an encoder writes, its own decoder reads: for all that fits its registers.
TEST(EveryProfile, ReadsWhatItWrites) {
    std::mt19937_64 random(6);
    for (const Profile& p : profiles()) {
        const Era era(p.name);
        for (unsigned i = 0; i < 2000; ++i) {
            const Command at{random() % (1u << era.memory_shift()),
                             random() % (0x8000'0000ull >> era.memory_shift())};
            EXPECT_EQ(decode_memory_op(p, Width::k64, encode_memory_op(p, at)), at) << p.name;
            EXPECT_EQ(decode_memory_op(p, Width::k32, encode_memory_op(p, at)), at) << p.name;
        }
    }
}

// xen-abi.md 2.7: what bits above an operation without cursor are told.
TEST(EveryProfile, StrayBitsAreRefusedAsTheirEraDid) {
    for (const Profile& p : profiles()) {
        const Era era(p.name);
        if (era.release <= 404) {
            EXPECT_EQ(p.memory_op_stray_bits, std::nullopt) << p.name;
        } else {
            EXPECT_EQ(p.memory_op_stray_bits, era.release < 408 ? XEN_ENOSYS : XEN_EINVAL)
                << p.name;
        }
    }
}

// 4f3c473d51: what cannot be continued is not begun.
TEST(EveryProfile, NamesNoMoreExtentsThanItsCursorCanCount) {
    for (const Profile& p : profiles()) {
        const Era era(p.name);
        const std::uint64_t most = era.release >= 403   ? 0x03ff'ffff
                                   : era.release >= 304 ? UINT64_MAX >> 6
                                                        : UINT64_MAX >> 4;
        EXPECT_EQ(p.memory_op_max_extents, most) << p.name;
    }
}

}  // namespace
}  // namespace xenshim::abi
