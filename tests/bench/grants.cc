// What a grant copy costs beside the copy: lists of 512 whole pages through the dispatcher, as a
// guest's call brings them, alternate with memcpy of the same pages. In process: neither side has
// an exit. Hot: 32 pages on each side, again and again, by 32 references or by one for each element
// of the list; or 512 pages on each side, each by a reference of its own, which is what a backend's
// list names. Cold: no page comes twice within 96 MiB.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>

#include "tests/bench/pairs.h"
#include "tests/fakes/fake_ports.h"
#include "vmm/memory/page_walk.h"
#include "xenshim/hypercall/dispatcher.h"

namespace bench {
namespace {

using namespace xenshim;
using namespace xenshim::abi;

constexpr std::uint32_t kBatch = 512;
constexpr std::uint64_t kList = 0x100000;
constexpr std::uint64_t kSources = 0x1000, kDests = 0x4000, kSetPages = 0x3000;
constexpr std::uint64_t kTable = 0xf0000;
constexpr std::uint64_t kHotPages = 32;
constexpr std::uint16_t kDomid = 2;
constexpr std::uint32_t kFirstRef = 16;

// The caller's memory without paging.
class Access final : public GuestAccess {
  public:
    explicit Access(vmm::GuestMemory& memory) : linear_(memory, {}) {}
    bool read(vmm::Gva at, std::span<std::byte> to) override { return linear_.read(at, to); }
    bool write(vmm::Gva at, std::span<const std::byte> from) override {
        return linear_.write(at, from);
    }
    std::optional<vmm::Gpa> translate(vmm::Gva at) override {
        return linear_.translate(at, vmm::Access::kWrite);
    }

  private:
    vmm::LinearMemory linear_;
};

DomainConfig config() {
    DomainConfig out;
    out.profile = find_profile(kDefaultProfile);
    out.domid = kDomid;
    out.memory = {.current = 0x8011, .maximum = 0x8100, .highest_gfn = 0xfefff};
    return out;
}

enum class Kind { kCopy, kMemcpy, kMemcpyAgain };

// How many pages come again, and by how many references.
enum class Pages { kHot, kHotManyRefs, kOnceInAList, kCold };

struct Case {
    const char* name;
    Pages pages;
    std::uint16_t flags;  // which side is a grant
    std::uint32_t version;
    Limit limit;
};

class Bench {
  public:
    Bench() : domain_(ports_, ports_.memory, config()), access_(ports_.memory) {
        // Every page has memory and content.
        for (std::uint64_t gfn = kSources; gfn < kDests + kSetPages; ++gfn) {
            std::memset(page(gfn), static_cast<int>(gfn), vmm::kPageSize);
        }
    }

    bool run(const Case& c, unsigned rounds, bool verdict) {
        const bool cold = c.pages == Pages::kCold;
        const unsigned blocks = cold ? 4 : 12;
        // Frames as a guest with so many grants has them, where it sees them.
        for (std::uint32_t frame = 0; frame < (cold ? 64u : 8u); ++frame) {
            if (!domain_.grants().place_frame(frame, kTable + frame)) return false;
        }
        if (!domain_.grants().set_version(c.version)) return false;
        std::vector<Times> copies, plain, again;
        std::mt19937 random(rounds);
        std::array<Kind, 3> order = {Kind::kCopy, Kind::kMemcpy, Kind::kMemcpyAgain};
        for (unsigned round = 0; round < rounds + 1; ++round) {
            std::shuffle(order.begin(), order.end(), random);
            for (const Kind kind : order) {
                prepare(c);
                Times sum;
                for (unsigned block = 0; block < blocks; ++block) {
                    if (block != 0 && cold) prepare(c);
                    const Times begin = now();
                    if (kind == Kind::kCopy) {
                        if (!by_grants()) return false;
                    } else {
                        by_memcpy();
                    }
                    const Times took = now() - begin;
                    sum.cpu += took.cpu;
                    sum.wall += took.wall;
                }
                if (round == 0) continue;
                (kind == Kind::kCopy     ? copies
                 : kind == Kind::kMemcpy ? plain
                                         : again)
                    .push_back(sum);
            }
        }
        print({.name = c.name,
               .numerator = copies,
               .denominator = plain,
               .control = {plain, again},
               .limit = c.limit,
               .verdict = verdict});
        std::printf("    %.0f ns per page, memcpy %.0f\n",
                    median(of(copies, Clock::kCpu)) / blocks / kBatch,
                    median(of(plain, Clock::kCpu)) / blocks / kBatch);
        return true;
    }

  private:
    std::byte* page(std::uint64_t gfn) { return ports_.memory.page(gfn); }

    // The list, and the entries that it names.
    void prepare(const Case& c) {
        const bool cold = c.pages == Pages::kCold;
        if (cold) next_ = (next_ + kBatch) % kSetPages;
        const std::uint64_t again = c.pages == Pages::kOnceInAList ? kBatch : kHotPages;
        for (std::uint32_t i = 0; i < kBatch; ++i) {
            const std::uint64_t n = cold ? (next_ + i) % kSetPages : i % again;
            from_[i] = kSources + n;
            to_[i] = kDests + n;
            const bool source = (c.flags & GNTCOPY_source_gref) != 0;
            const auto ref =
                static_cast<std::uint32_t>(kFirstRef + (c.pages == Pages::kHotManyRefs ? i : n));
            give(c.version, ref, source ? from_[i] : to_[i]);
            list_[i] = {.source_u = source ? ref : from_[i],
                        .source_domid = DOMID_SELF,
                        .source_offset = 0,
                        .dest_u = source ? to_[i] : ref,
                        .dest_domid = DOMID_SELF,
                        .dest_offset = 0,
                        .len = vmm::kPageSize,
                        .flags = c.flags,
                        .status = 99};
        }
        std::memcpy(page(kList >> vmm::kPageShift), list_.data(), sizeof list_);
    }
    void give(std::uint32_t version, std::uint32_t ref, std::uint64_t gfn) {
        std::byte* table = ports_.own_page(kFirstGrantPage);
        if (version == 1) {
            const grant_entry_v1 e{GTF_permit_access, kDomid, static_cast<std::uint32_t>(gfn)};
            std::memcpy(table + ref * sizeof e, &e, sizeof e);
        } else {
            const grant_entry_v2 e{GTF_permit_access, kDomid, 0, 0, gfn};
            std::memcpy(table + ref * sizeof e, &e, sizeof e);
        }
    }
    bool by_grants() {
        const Request request{.number = HYPERVISOR_grant_table_op,
                              .args = {GNTTABOP_copy, kList, kBatch, 0, 0},
                              .width = Width::k64};
        const Reply reply = run_hypercall(domain_, access_, preemption_, 0, request);
        const auto* finish = std::get_if<Finish>(&reply);
        gnttab_copy<W64> last;
        std::memcpy(&last, page(kList >> vmm::kPageShift) + (kBatch - 1) * sizeof last,
                    sizeof last);
        return finish != nullptr && finish->result == 0 && last.status == GNTST_okay;
    }
    void by_memcpy() {
        for (std::uint32_t i = 0; i < kBatch; ++i) {
            std::memcpy(page(to_[i]), page(from_[i]), vmm::kPageSize);
        }
    }

    fakes::FakePorts ports_;
    Domain domain_;
    Access access_;
    std::atomic<std::uint32_t> requests_{0};
    Preemption preemption_{requests_, {.every = 0, .at = {}, .after_us = 1'000'000'000}};
    std::array<gnttab_copy<W64>, kBatch> list_{};
    std::array<std::uint64_t, kBatch> from_{}, to_{};
    std::uint64_t next_ = 0;
};

constexpr Limit kHot = {1.12, 1.30}, kCold = {1.04, 1.15};
constexpr Case kCases[] = {
    {"grant copy, from a grant, hot, over memcpy", Pages::kHot, GNTCOPY_source_gref, 1, kHot},
    {"grant copy, to a grant, hot, over memcpy", Pages::kHot, GNTCOPY_dest_gref, 1, kHot},
    {"grant copy, version 2, hot, over memcpy", Pages::kHot, GNTCOPY_source_gref, 2, kHot},
    {"from 512 grants of 512 pages, over memcpy", Pages::kOnceInAList, GNTCOPY_source_gref, 1,
     kHot},
    {"to 512 grants of 512 pages, over memcpy", Pages::kOnceInAList, GNTCOPY_dest_gref, 1, kHot},
    {"from 512 grants of 32 pages, over memcpy", Pages::kHotManyRefs, GNTCOPY_source_gref, 1, kHot},
    {"to 512 grants of 32 pages, over memcpy", Pages::kHotManyRefs, GNTCOPY_dest_gref, 1, kHot},
    {"grant copy, from a grant, cold, over memcpy", Pages::kCold, GNTCOPY_source_gref, 1, kCold},
    {"grant copy, to a grant, cold, over memcpy", Pages::kCold, GNTCOPY_dest_gref, 1, kCold},
    {"grant copy, version 2, cold, over memcpy", Pages::kCold, GNTCOPY_source_gref, 2, kCold},
};

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    bool smoke = false;
    unsigned rounds = 300;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--smoke") {
            smoke = true;
        } else if (option == "--rounds" && i + 1 < argc) {
            rounds = static_cast<unsigned>(std::stoul(argv[++i]));
        } else {
            std::fprintf(stderr, "usage: bench_grants [--smoke] [--rounds N]\n");
            return 2;
        }
    }
    const auto bench = std::make_unique<bench::Bench>();
    for (const auto& c : bench::kCases) {
        if (!bench->run(c, smoke ? 5 : rounds, !smoke)) {
            std::fprintf(stderr, "bench_grants: %s: a copy failed\n", c.name);
            return 1;
        }
    }
    return 0;
}
