// Arguments that another vCPU rewrites while a call looks at them. What the call makes of them is
// one of the values that stood there, and ThreadSanitizer sees the product's accesses beside the
// guest's: guest memory is the one thing that both touch without a lock, by copies of their own.
#include <atomic>
#include <numeric>
#include <thread>

#include <gtest/gtest.h>

#include "tests/fakes/test_domain.h"

namespace xenshim {
namespace {

using namespace abi;
using fakes::BothWidths;
using fakes::TestDomain;

class Rewritten : public BothWidths {
  protected:
    // The guest's own stores, as its CPU makes them: relaxed words.
    static void store(TestDomain& d, vmm::Gva at, std::uint32_t value) {
        std::uint32_t* word = d.ports.memory.word<std::uint32_t>(vmm::Gpa{at.value});
        ASSERT_NE(word, nullptr);
        std::atomic_ref(*word).store(value, std::memory_order_relaxed);
    }
    // Runs `calls` while another thread goes on with `guest_writes`.
    template <class Calls, class Writes>
    static void race(Calls&& calls, Writes&& guest_writes) {
        std::atomic<bool> stop{false}, started{false};
        std::thread writer([&] {
            for (std::uint32_t round = 0; !stop; ++round) {
                guest_writes(round);
                started = true;
            }
        });
        while (!started) {
            std::this_thread::yield();
        }
        calls();
        stop = true;
        writer.join();
    }
    // A reservation of so many pages from gfn 0x1000 on.
    struct Put {
        std::vector<std::uint64_t> gfns;
        vmm::Gva list, arg;
    };
    Put put_reservation(std::uint64_t count) {
        Put put{.gfns = std::vector<std::uint64_t>(count), .list = {}, .arg = {}};
        std::iota(put.gfns.begin(), put.gfns.end(), 0x1000);
        put.list = guest.put_words(put.gfns);
        put.arg = guest.put_wide<xen_memory_reservation>({.extent_start = put.list.value,
                                                          .nr_extents = count,
                                                          .extent_order = 0,
                                                          .mem_flags = 0,
                                                          .domid = DOMID_SELF});
        return put;
    }
    static constexpr unsigned kCalls = 3000;
};

XENOLITH_BOTH_WIDTHS(Rewritten);

// A list of extents whose gfns change between valid and hopeless, and whose count changes.
TEST_P(Rewritten, ExtentsAndTheirStructure) {
    const Put put = put_reservation(16);
    const vmm::Gva list = put.list, arg = put.arg;
    const vmm::Gva count = arg + (guest.wide() ? 8 : 4);
    const auto before = guest.domain.physmap().accounts();
    race(
        [&] {
            for (unsigned i = 0; i < kCalls; ++i) {
                const std::uint32_t op =
                    i % 2 == 0 ? XENMEM_decrease_reservation : XENMEM_populate_physmap;
                const auto done = guest.result(HYPERVISOR_memory_op, op, arg.value);
                ASSERT_GE(done, 0);
                ASSERT_LE(done, 20);
            }
        },
        [&](std::uint32_t round) {
            store(guest, list + (round % 16) * guest.word_bytes(),
                  round % 3 == 0 ? 0x6'0000 : 0x1000 + round % 16);
            store(guest, count, 8 + round % 12);
        });
    const auto after = guest.domain.physmap().accounts();
    EXPECT_LE(after.current, before.maximum);
    EXPECT_GE(after.current, before.current - 16);
}

// A list of calls: each entry is copied once, whatever becomes of it meanwhile.
TEST_P(Rewritten, ListsOfCalls) {
    constexpr std::uint32_t kEntries = 8;
    const std::uint64_t bytes = guest.wide() ? 64 : 32;
    const vmm::Gva list = guest.reserve(kEntries * bytes);
    for (std::uint32_t i = 0; i < kEntries; ++i) {
        guest.poke_wide<multicall_entry>(list + i * bytes,
                                         {.op = HYPERVISOR_xen_version, .result = 0, .args = {}});
    }
    race(
        [&] {
            for (unsigned i = 0; i < kCalls; ++i) {
                ASSERT_EQ(guest.result(HYPERVISOR_multicall, list.value, kEntries), 0);
            }
        },
        [&](std::uint32_t round) {
            const vmm::Gva entry = list + (round % kEntries) * bytes;
            store(guest, entry, round % 2 == 0 ? HYPERVISOR_xen_version : HYPERVISOR_multicall);
            store(guest, entry + 2 * guest.word_bytes(), round % 8);
        });
}

// A parameter whose index changes between one that may be set and ones that may not.
TEST_P(Rewritten, Params) {
    const vmm::Gva arg = guest.put(xen_hvm_param{
        .domid = DOMID_SELF, .pad = 0, .index = HVM_PARAM_VM_GENERATION_ID_ADDR, .value = 5});
    race(
        [&] {
            for (unsigned i = 0; i < kCalls; ++i) {
                const auto result = guest.result(HYPERVISOR_hvm_op, HVMOP_set_param, arg.value);
                ASSERT_TRUE(result == 0 || result == -XEN_EPERM || result == -XEN_EINVAL) << result;
            }
        },
        [&](std::uint32_t round) {
            constexpr std::uint32_t kIndexes[] = {HVM_PARAM_VM_GENERATION_ID_ADDR,
                                                  HVM_PARAM_STORE_PFN, 13, 63, 0xffff'ffff};
            store(guest, arg + 4, kIndexes[round % std::size(kIndexes)]);
        });
    // What the guest may not set was not set, whichever index was looked at first.
    EXPECT_EQ(guest.domain.params().peek(HVM_PARAM_STORE_PFN), 0u);
    EXPECT_EQ(guest.domain.params().peek(63), 0u);
}

// Two vCPUs that give and take the same pages: none is counted twice.
TEST_P(Rewritten, TwoVcpusOnTheSamePages) {
    const Put put = put_reservation(24);
    const vmm::Gva arg = put.arg;
    const auto work = [&](unsigned vcpu) {
        fakes::FakeAccess access(guest.ports.memory);
        const std::atomic<std::uint32_t> wanted{0};
        Preemption preemption(wanted, {.every = 5, .at = {}});
        for (unsigned i = 0; i < 200; ++i) {
            Request r = guest.request(
                HYPERVISOR_memory_op,
                {i % 2 == 0 ? XENMEM_decrease_reservation : XENMEM_populate_physmap, arg.value});
            for (;;) {
                const Reply reply = run_hypercall(guest.domain, access, preemption, vcpu, r);
                const auto* again = std::get_if<Reissue>(&reply);
                if (again == nullptr) break;
                r.args = again->args;
            }
        }
    };
    std::thread second([&] { work(1); });
    work(0);
    second.join();
    // What there is can be given back, once, and the account follows. (It has grown meanwhile: a
    // page that is replaced goes on being counted.)
    auto& physmap = guest.domain.physmap();
    std::uint64_t current = physmap.accounts().current;
    for (const auto gfn : put.gfns) {
        const bool there = physmap.has_ram(gfn);
        EXPECT_EQ(physmap.decrease(gfn), there);
        EXPECT_EQ(physmap.accounts().current, current -= there ? 1 : 0);
        EXPECT_FALSE(physmap.has_ram(gfn));
    }
}

}  // namespace
}  // namespace xenshim
