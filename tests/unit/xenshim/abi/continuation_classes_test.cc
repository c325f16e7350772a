// Every class of continuation, under every profile and at both widths, against formulas written a
// second time from xen-abi.md 2.3: nothing here asks the profile what it thinks.
#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "tests/sweep/era.h"
#include "xenshim/abi/continuation.h"
#include "xenshim/abi/numbers.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::abi {
namespace {

using tests::Era;

// The guest's memory, as far as its argument structure goes.
using Memory = std::map<std::uint64_t, std::uint8_t>;

std::uint64_t peek(const Memory& memory, std::uint64_t at, unsigned bytes) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) {
        const auto found = memory.find(at + i);
        value |= std::uint64_t{found == memory.end() ? std::uint8_t{0} : found->second} << 8 * i;
    }
    return value;
}
void poke(Memory& memory, std::uint64_t at, unsigned bytes, std::uint64_t value) {
    for (unsigned i = 0; i < bytes; ++i) {
        memory[at + i] = static_cast<std::uint8_t>(value >> 8 * i);
    }
}

struct Frozen {
    std::uint64_t number = 0;
    std::array<std::uint64_t, 5> args{};
    Memory memory{};
    bool operator==(const Frozen&) const = default;
};

// An operation and its formula: what `at` becomes when `units` are done in all since the first
// entry. Nothing: it never continues in this era.
struct Row {
    const char* name;
    std::uint64_t number;
    std::uint64_t sub_op;
    std::uint64_t step;
    bool (*continues)(const Era& era);
    void (*formula)(const Era& era, bool wide, std::uint64_t units, Frozen& at);
};

void shifted(const Era& era, bool, std::uint64_t units, Frozen& at) {
    const std::uint64_t op = at.args[0];
    at.args[0] = op + (units << era.memory_shift());
}
void extents(const Era& era, bool wide, std::uint64_t units, Frozen& at) {
    shifted(era, wide, units, at);
    if (era.handle_moves()) {
        const unsigned word = wide ? 8 : 4;
        poke(at.memory, at.args[1], word, peek(at.memory, at.args[1], word) + units * word);
    }
}
void add(Frozen& at, std::uint64_t offset, unsigned bytes, std::uint64_t by) {
    poke(at.memory, at.args[1] + offset, bytes, peek(at.memory, at.args[1] + offset, bytes) + by);
}
void range(const Era& era, bool wide, std::uint64_t units, Frozen& at) {
    if (!era.range_in_struct()) return shifted(era, wide, units, at);
    add(at, 2, 2, 0 - units);
    add(at, 8, wide ? 8 : 4, units);
    add(at, wide ? 16 : 12, wide ? 8 : 4, units);
}
void exchange(const Era&, bool wide, std::uint64_t units, Frozen& at) {
    add(at, wide ? 64 : 40, wide ? 8 : 4, units);
}
template <unsigned kPointer, unsigned k32, unsigned k64>
void batch(const Era&, bool wide, std::uint64_t units, Frozen& at) {
    at.args[kPointer] += units * (wide ? k64 : k32);
    at.args[kPointer + 1] -= units;
}
void hvm_memory(const Era& era, bool, std::uint64_t units, Frozen& at) {
    if (era.hvm_memory() == Era::HvmMemory::kUnshifted) {
        at.args[0] += units;  // which has its low eight bits clear
        return;
    }
    add(at, 8, 8, units);
    add(at, 16, 8, 0 - units);
}
void again(const Era&, bool, std::uint64_t, Frozen&) {}
void reset(const Era&, bool, std::uint64_t, Frozen& at) {
    at.args[0] = 14;
}

constexpr auto always = [](const Era&) { return true; };
constexpr auto grants = [](const Era& e) { return e.grants_continue(); };
constexpr auto device = [](const Era& e) {
    return e.hvm_memory() == Era::HvmMemory::kStruct ||
           e.hvm_memory() == Era::HvmMemory::kUnshifted;
};
constexpr auto xenserver_private = [](const Era& e) {
    return e.xenserver && e.product >= 65 && e.product < 80;
};

constexpr Row kRows[] = {
    {"increase_reservation", 12, 0, 1, always, extents},
    {"decrease_reservation", 12, 1, 1, always, extents},
    {"populate_physmap", 12, 6, 1, always, extents},
    {"add_to_physmap", 12, 7, 1, [](const Era& e) { return e.has_range(); }, range},
    {"exchange", 12, 11, 1, always, exchange},
    {"add_to_physmap_batch", 12, 23, 1, [](const Era& e) { return e.has_batch(); }, shifted},
    {"acquire_resource", 12, 28, 1, [](const Era& e) { return e.release >= 415; }, shifted},
    {"translate_gpfn_list", 12, 0x28, 1, xenserver_private, shifted},
    {"release_mfn_list", 12, 0x39, 1, xenserver_private, shifted},
    {"map_grant_ref", 20, 0, 1, grants, batch<1, 32, 32>},
    {"unmap_grant_ref", 20, 1, 32, grants, batch<1, 24, 24>},
    {"grant copy", 20, 5, 1, grants, batch<1, 24, 40>},
    {"swap_grant_ref", 20, 11, 1, [](const Era& e) { return e.has_grant_swap(); },
     batch<1, 12, 12>},
    {"multicall", 13, 0, 1, [](const Era& e) { return e.has_multicall(); }, batch<0, 32, 64>},
    {"vcpu_op", 24, 10, 1, always, again},
    {"set_param", 34, 0, 1, always, again},
    {"flush_tlbs", 34, 5, 1, always, again},
    {"modified_memory", 34, 7, 256, device, hvm_memory},
    {"set_mem_type", 34, 8, 256, device, hvm_memory},
    {"dm_op", 41, 3, 1, [](const Era& e) { return e.has_dm_op(); }, again},
    {"event reset", 32, 10, 64, [](const Era& e) { return e.reset_continues(); }, reset},
};

class Everywhere : public testing::TestWithParam<Width> {
  protected:
    bool wide() const { return GetParam() == Width::k64; }
    std::uint64_t mask() const { return wide() ? UINT64_MAX : UINT32_MAX; }

    // A call of the row's operation, on a structure of noise.
    Frozen first(const Row& row, std::mt19937_64& random) const {
        Frozen at{.number = row.number, .args = {}};
        for (auto& arg : at.args) {
            arg = random() & mask();
        }
        // Nothing of a structure or a list of 400 runs over the end of the address space here;
        // that it wraps there at 32 bits is ContinuationAt32Bits' to say.
        const std::uint64_t pointer = random() & (mask() >> 2);
        if (row.number == HYPERVISOR_multicall) {
            at.args[0] = pointer;
            at.args[1] = 400;
        } else {
            at.args[0] = row.sub_op;
            at.args[1] = pointer;
            if (row.number == HYPERVISOR_grant_table_op) at.args[2] = 400;
        }
        for (std::uint64_t i = 0; i < 80; ++i) {
            at.memory[pointer + i] = static_cast<std::uint8_t>(random());
        }
        return at;
    }
    Request request(const Frozen& at) const {
        return {.number = at.number, .args = at.args, .width = GetParam()};
    }
    // The engine's answer, carried out.
    Frozen carry_out(const Profile& profile, const Frozen& at, std::uint64_t units) const {
        const Encoded encoded = encode_continuation(profile, request(at), {.units_done = units});
        Frozen next{.number = encoded.registers.number,
                    .args = encoded.registers.args,
                    .memory = at.memory};
        for (const StructChange& change : encoded.struct_changes()) {
            poke(next.memory, change.at, change.bytes,
                 peek(next.memory, change.at, change.bytes) + change.delta);
        }
        return next;
    }
    // Whether a handler counts its units from the operation's start.
    static bool from_start(const Profile& profile, const Request& r) {
        const auto kind = continuation_rule(profile, r).kind;
        return kind == ContinuationClass::kShiftedCursor ||
               kind == ContinuationClass::kUnshiftedCursor;
    }
};

INSTANTIATE_TEST_SUITE_P(, Everywhere, testing::Values(Width::k32, Width::k64),
                         [](const auto& p) { return p.param == Width::k64 ? "W64" : "W32"; });

TEST_P(Everywhere, OneStopIsTheFormula) {
    std::mt19937_64 random(1);
    for (const Profile& profile : profiles()) {
        const Era era(profile.name);
        for (const Row& row : kRows) {
            if (!row.continues(era)) continue;
            for (std::uint64_t done = 0; done < 400; done += row.step * 7) {
                const Frozen at = first(row, random);
                Frozen expected = at;
                row.formula(era, wide(), done, expected);
                ASSERT_EQ(carry_out(profile, at, done), expected)
                    << profile.name << ", " << row.name << " before unit " << done;
            }
        }
    }
}

// However the way is cut, what the guest holds depends on how far it is alone.
TEST_P(Everywhere, ManyStopsAreOne) {
    std::mt19937_64 random(2);
    for (const Profile& profile : profiles()) {
        const Era era(profile.name);
        for (const Row& row : kRows) {
            if (!row.continues(era)) continue;
            for (unsigned round = 0; round < 5; ++round) {
                const Frozen start = first(row, random);
                Frozen at = start;
                std::uint64_t done = 0;
                const bool counts = continuation_rule(profile, request(at)).kind ==
                                    ContinuationClass::kPointerAndCount;
                while (done < 300 * row.step) {
                    const std::uint64_t more = (1 + random() % 40) * row.step;
                    const bool whole = from_start(profile, request(at));
                    if (counts && done + more > 399) break;
                    done += more;
                    at = carry_out(profile, at, whole ? done : more);
                    Frozen expected = start;
                    row.formula(era, wide(), done, expected);
                    ASSERT_EQ(at, expected)
                        << profile.name << ", " << row.name << " before unit " << done;
                    // The continuation is a call of the same kind.
                    ASSERT_EQ(continuation_rule(profile, request(at)).kind,
                              continuation_rule(profile, request(start)).kind);
                }
            }
        }
    }
}

// What continues nowhere in an era has no rule there, whatever stands in the other arguments.
TEST_P(Everywhere, NothingElseContinues) {
    for (const Profile& profile : profiles()) {
        const Era era(profile.name);
        for (const std::uint64_t number : {12ull, 20ull, 32ull, 34ull}) {
            // Below every cursor, and below the shift that memory_op has.
            const std::uint64_t ops = number == 12 ? std::uint64_t{1} << era.memory_shift() : 64;
            for (std::uint64_t op = 0; op < ops; ++op) {
                if (number == 32 && op == 14) continue;  // a reset that goes on
                bool known = false;
                bool impossible = false;
                for (const Row& row : kRows) {
                    if (row.number != number || row.sub_op != op) continue;
                    known = row.continues(era);
                    // Swap came after the rule for batches; it does not exist there at all.
                    impossible = number == 20 && op == 11 && !era.has_grant_swap();
                }
                if (impossible) continue;
                const Request r{.number = number, .args = {op, 0x1000, 5}, .width = GetParam()};
                EXPECT_EQ(continuation_rule(profile, r).kind != ContinuationClass::kNone, known)
                    << profile.name << ", hypercall " << number << ", op " << op;
            }
        }
    }
}

// The reset's own continuation goes on as itself.
TEST_P(Everywhere, AResetThatGoesOnStaysOne) {
    for (const Profile& profile : profiles()) {
        if (!Era(profile.name).reset_continues()) continue;
        const Request r{.number = 32, .args = {14, 0x1000, 2, 3, 4}, .width = GetParam()};
        const Reissue next = encode_continuation(profile, r, {.units_done = 64}).registers;
        EXPECT_EQ(next.number, r.number);
        EXPECT_EQ(next.args, r.args);
    }
}

// dm_op's structure lies behind a list of buffers; its handler says where, and it has no member
// that this engine moves.
TEST_P(Everywhere, DmOpChangesNoRegister) {
    const Profile& profile = *find_profile("xen-4.17");
    const Request r{.number = 41, .args = {1, 2, 0x1000, 4, 5}, .width = GetParam()};
    const Encoded encoded =
        encode_continuation(profile, r, {.units_done = 256, .structure = 0x2000});
    EXPECT_EQ(encoded.registers.args, r.args);
}

// No profile's rule names a unit that its handler could not stop before.
TEST_P(Everywhere, StepsAreTheReferences) {
    for (const Profile& profile : profiles()) {
        const Era era(profile.name);
        for (const Row& row : kRows) {
            if (!row.continues(era)) continue;
            const Request r{.number = row.number, .args = {row.sub_op}, .width = GetParam()};
            // While the structure was advanced, each page was a unit.
            const bool every_page = row.step == 256 && !profile.since(4, 5);
            EXPECT_EQ(continuation_rule(profile, r).granularity, every_page ? 1 : row.step)
                << profile.name << ", " << row.name;
        }
    }
}

}  // namespace
}  // namespace xenshim::abi
