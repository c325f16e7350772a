// Random sequences of calls, valid and hostile, against the model (world.h) and the product: both
// widths, every profile, with and without forced preemption, alone and in multicalls, with and
// without a device model's privilege and the old drivers' quirks. After each call the answers are
// compared, and what was written back; after each sequence the whole worlds; at the end, whether
// every sub-op of the dispatcher's table came.
//
//   model [--calls N] [--seed N] [--sequence N] [--counts 1]
//
// Prints the seed, and with --counts how often each operation came and how it ended. On a
// difference: the seed, the sequence and the call, and both answers; --seed with --sequence
// repeats that one, and compares the whole worlds after each call.
#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "tests/fakes/test_domain.h"
#include "tests/model/world.h"
#include "tests/sweep/guest_cpu.h"
#include "xenshim/abi/operations.h"
#include "xenshim/abi/other_numbers.h"

namespace xenshim::tests {
namespace {

using namespace abi;
using fakes::FakePorts;
using fakes::TestDomain;
using model::World;

constexpr unsigned kCallsPerSequence = 200;
constexpr std::uint32_t kNoDeadline = 0xffff'ffff;

bool starts_with_ram(std::uint64_t gfn) {
    return gfn < FakePorts::kRamPages || gfn - FakePorts::kSpecialGfn < FakePorts::kSpecialPages ||
           gfn - FakePorts::kAcpiGfn < FakePorts::kAcpiPages;
}

// The gfns that calls speak of: few, so that they meet. RAM, special pages, nothing yet.
constexpr std::uint64_t kGfns[] = {0x1000,  0x1001,  0x1002,  0x1003,  0x1004,  0x1005,  0x1006,
                                   0x1007,  0x1008,  0x1009,  0x100a,  0x100b,  0x100c,  0x100d,
                                   0x100e,  0x100f,  0x7ffe,  0x7fff,  0x50000, 0x50001, 0x50002,
                                   0x50003, 0xfeff8, 0xfefff, 0xfc000, 0xffffe};
constexpr std::uint64_t kRangeFirst = 0x1000, kRangePages = 16;
// The same of grants: of both versions' first frame and the one behind it, and some far away.
constexpr std::uint32_t kRefs[] = {1,  3,   7,   8,   9,   10,  11,         12,
                                   20, 254, 255, 256, 511, 512, 0x7fffffff, 0xffffffff};
constexpr std::uint16_t kOwnId = TestDomain::kDomid;

// Which page of the product's an own page of the model's is.
constexpr std::uint32_t product_page(std::uint32_t own) {
    return own < model::kFirstStatusFrame ? own : own - model::kFirstStatusFrame + kFirstStatusPage;
}

// By operation, how often it ended how; and how often it was interrupted.
struct Tally {
    std::map<std::string, std::uint64_t> ends;
    std::uint64_t stops = 0;
};
using Tallies = std::map<std::string, Tally>;

// Which sub-ops were called, and which of them were there for somebody.
struct Reached {
    using SubOps = std::set<std::pair<std::uint64_t, std::uint64_t>>;  // with their hypercalls
    SubOps called, there;
};

class Sequence {
  public:
    Sequence(std::uint64_t seed, std::uint64_t number, FakePorts& ports, bool closely)
        : number_(number),
          closely_(closely),
          random_(seed * 0x9e37'79b9'7f4a'7c15 + number),
          profile_(pick_profile()),
          era_(profile_.name),
          width_(chance(2) ? Width::k64 : Width::k32),
          // Mostly as the profile has it.
          quirks_(chance(8)   ? QuirkMode::kXenServer
                  : chance(8) ? QuirkMode::kNone
                              : QuirkMode::kAuto),
          device_model_(chance(2)),
          ports_(ports),
          guest_(width_, options()),
          world_(era_, width_ == Width::k64,
                 {.limit_gfn = ports.limit_gfn,
                  .starts_with_ram = starts_with_ram,
                  .vcpus = 2,
                  .now_ns = ports.now_ns}) {
        cpu_.width = width_;
        cpu_.wide_numbers = era_.wide_numbers();
        world_.current = 0x8011;
        world_.maximum = 0x8100;
        world_.highest = 0xfefff;
        world_.vectors.resize(2);
        world_.areas = {{0, FakePorts::kRamPages * vmm::kPageSize, 1},
                        {0xfeff8000, 0x8000, 2},
                        {0xfc008000, 0x40, 3},
                        {0xfc000000, 0x1000, 3},
                        {0xfc001000, 0x7000, 3}};
        world_.old_drivers =
            quirks_ == QuirkMode::kAuto ? era_.legacy_windows() : quirks_ == QuirkMode::kXenServer;
        world_.device_model = device_model_;
        offer(false);
        offer(true);
    }
    ~Sequence() {
        std::vector<std::uint64_t> touched(std::begin(kGfns), std::end(kGfns));
        for (std::uint64_t page = 0; page < 32; ++page) {
            touched.push_back(kRangeFirst + page);
        }
        for (const auto& [gfn, cell] : world_.changed) {
            touched.push_back(gfn);
        }
        for (std::uint64_t at = TestDomain::kScratch; at < guest_.reserve(0, 1).value;
             at += vmm::kPageSize) {
            touched.push_back(at >> vmm::kPageShift);
        }
        ports_.reset(touched);
    }
    Sequence(const Sequence&) = delete;
    Sequence& operator=(const Sequence&) = delete;

    // The number of calls made; complaint() says whether all went well.
    unsigned run() {
        for (call_ = 0; call_ < kCallsPerSequence && complaint_.empty() && !world_.crashed;
             ++call_) {
            step();
            if (closely_ && complaint_.empty() && !world_.crashed) compare_worlds();
            if (closely_ && !complaint_.empty()) complaint_ += " (after " + last_ + ")";
        }
        if (world_.crashed == ports_.shutdowns.empty()) {
            complain("a crash", world_.crashed ? "is missing" : "that the model knows not of");
        }
        // Nobody looks at what a domain was that has ended.
        if (complaint_.empty() && !world_.crashed) compare_worlds();
        return call_;
    }
    const std::string& complaint() const { return complaint_; }
    const Tallies& tallies() const { return tallies_; }
    const Reached& reached() const { return reached_; }

  private:
    // A call as registers, what the model answers, and what to look at afterwards.
    struct Made {
        std::string name{};        // of the operation
        std::uint64_t sub_op = 0;  // its number, cursor and noise taken off
        std::string text;
        std::uint64_t number = 0;
        std::array<std::uint64_t, 5> args{};
        std::int64_t expected = 0;
        // What is wrong with what was written back; asked when all is over.
        std::function<std::string()> written = [] { return std::string(); };
        // What was written holds the progress where the call was interrupted.
        bool keeps_progress = false;
        // How it ends, for the tallies, where the answer does not say it.
        std::string end{};
        // Of a list of `unit` bytes each: where it may stop.
        struct Stops {
            std::uint64_t unit = 0, step = 1;
        } stops{};
    };

    // ---- chance ---------------------------------------------------------------------------------
    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    bool chance(unsigned one_in) { return below(one_in) == 0; }
    template <class T, std::size_t N>
    T pick(const T (&from)[N]) {
        return from[below(N)];
    }
    const Profile& pick_profile() { return profiles()[below(profiles().size())]; }
    TestDomain::Options options() {
        TestDomain::Options o;
        o.profile = &profile_;
        o.ports = &ports_;
        o.quirks = quirks_;
        o.device_model = device_model_;
        return o;
    }

    std::uint64_t a_gfn() {
        if (!chance(24)) return pick(kGfns);
        if (width_ == Width::k32) return pick({0xffff'ffffull, 0xffff'fffeull});
        return pick({ports_.limit_gfn, ports_.limit_gfn - 1 + ports_.limit_gfn});
    }
    std::uint16_t a_domid() {
        if (!chance(8)) return chance(2) ? std::uint16_t{0x7ff0} : TestDomain::kDomid;
        return pick({std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{3}, std::uint16_t{0x7ff1},
                     std::uint16_t{0x7ff4}, std::uint16_t{0xffff}});
    }
    // Where a structure is put; sometimes where nobody can read it.
    bool readable() { return !chance(24); }
    std::uint64_t word(std::uint64_t value) const {
        return width_ == Width::k64 ? value : value & UINT32_MAX;
    }
    // A cursor, mostly none.
    std::uint64_t command(std::uint32_t op, bool may_have_cursor = true) {
        std::uint64_t start = 0;
        if (may_have_cursor && chance(6)) {
            start = chance(4) ? random_() >> (6 + below(58)) : below(8);
        }
        std::uint64_t value = start << era_.memory_shift() | op;
        if (width_ == Width::k64 && chance(10)) value |= random_() << 32;
        return word(value);
    }
    static std::string hex(std::uint64_t value) {
        char text[24];
        std::snprintf(text, sizeof text, "0x%" PRIx64, value);
        return text;
    }

    // ---- what the guest says, byte by byte ------------------------------------------------------
    using Bytes = std::vector<std::uint8_t>;
    template <class T>
    static void put_at(Bytes& bytes, std::size_t at, T value) {
        std::memcpy(&bytes[at], &value, sizeof value);
    }
    void put_word(Bytes& bytes, std::size_t at, std::uint64_t value) {
        std::memcpy(&bytes[at], &value, guest_.word_bytes());
    }
    Bytes noise(std::size_t size) {
        Bytes bytes(size);
        for (auto& byte : bytes) {
            byte = static_cast<std::uint8_t>(random_());
        }
        return bytes;
    }
    void poke_bytes(vmm::Gva at, const Bytes& bytes) {
        EXPECT_TRUE(ports_.memory.write(vmm::Gpa{at.value}, std::as_bytes(std::span(bytes))));
    }
    std::function<std::string()> holds(vmm::Gva at, Bytes bytes) {
        return [this, at, bytes = std::move(bytes)] {
            Bytes there(bytes.size());
            EXPECT_TRUE(
                ports_.memory.read(vmm::Gpa{at.value}, std::as_writable_bytes(std::span(there))));
            for (std::size_t i = 0; i < bytes.size(); ++i) {
                if (there[i] == bytes[i]) continue;
                std::string where = " at ";
                return where.append(std::to_string(i)) + ": " + hex(there[i]) + " instead of " +
                       hex(bytes[i]);
            }
            return std::string();
        };
    }

    // ---- the calls ------------------------------------------------------------------------------
    // One entry each: whether its era has it, how often it comes, and how it is made.
    struct Kind {
        const char* name;
        bool (*exists)(const Era&);
        unsigned weight;
        Made (Sequence::*make)();
    };
    static std::span<const Kind> kinds() {
        static constexpr auto always = [](const Era&) { return true; };
        static constexpr Kind kKinds[] = {
            {"extents", always, 10, &Sequence::extents},
            {"add_to_physmap", always, 6, &Sequence::add_to_physmap},
            {"gmfn_range", always, 3, &Sequence::range},
            // (Until 3.3 its number is another's with a cursor.)
            {"add_to_physmap_batch", [](const Era& e) { return e.memory_shift() > 4; }, 6,
             &Sequence::batch},
            {"remove_from_physmap", always, 2, &Sequence::remove},
            {"exchange", always, 3, &Sequence::exchange},
            {"memory_map", always, 1, &Sequence::memory_map},
            {"set_memory_map", always, 1, &Sequence::set_memory_map},
            {"account", always, 2, &Sequence::account},
            {"another memory_op", always, 3, &Sequence::other_memory_op},
            {"set_param", always, 3, &Sequence::set_param},
            {"get_param", always, 3, &Sequence::get_param},
            {"set_evtchn_upcall_vector", always, 1, &Sequence::set_upcall_vector},
            {"get_mem_type", always, 2, &Sequence::get_mem_type},
            {"flush_tlbs", always, 1, &Sequence::flush_tlbs},
            {"guest_request_vm_event", always, 1, &Sequence::guest_request},
            {"pagetable_dying", always, 1, &Sequence::pagetable_dying},
            {"get_time", always, 1, &Sequence::get_time},
            {"xentrace", always, 1, &Sequence::xentrace},
            {"XenServer's hvm_op", always, 1, &Sequence::old_drivers_op},
            {"modified_memory", always, 2, &Sequence::modified_memory},
            {"set_mem_type", always, 3, &Sequence::set_mem_type},
            {"another hvm_op", always, 2, &Sequence::other_hvm_op},
            {"dm_op", always, 4, &Sequence::dm_op},
            {"copy", always, 8, &Sequence::grant_copy},
            {"map_grant_ref", always, 6, &Sequence::grant_map},
            {"unmap_grant_ref", always, 4, &Sequence::grant_unmap},
            {"swap_grant_ref", always, 2, &Sequence::grant_swap},
            {"setup_table", always, 2, &Sequence::setup_table},
            {"query_size", always, 1, &Sequence::query_size},
            {"set_version", always, 3, &Sequence::set_version},
            {"get_version", always, 1, &Sequence::get_version},
            {"another grant_table_op", always, 1, &Sequence::grant_refused},
        };
        return kKinds;
    }
    Made make_one() {
        for (;;) {
            const Kind& kind = kinds()[below(kinds().size())];
            if (!kind.exists(era_) || below(10) >= kind.weight) continue;
            Made made = (this->*kind.make)();
            if (made.name.empty()) made.name = kind.name;
            made.text = made.name + " " + made.text;
            return made;
        }
    }

    Made memory(std::uint64_t cmd, vmm::Gva at, std::int64_t expected, std::string text) {
        return {.sub_op = model::take_apart(world_, cmd).op,
                .text = "cmd " + hex(cmd) + " " + std::move(text),
                .number = HYPERVISOR_memory_op,
                .args = {cmd, at.value, random_(), random_(), random_()},
                .expected = expected};
    }

    Made extents() {
        const std::uint32_t op = pick({0u, 1u, 1u, 6u, 6u});
        model::Extents arg{.domid = a_domid()};
        for (std::uint64_t i = below(13); i > 0; --i) {
            arg.list.push_back(word(a_gfn()));
        }
        arg.count = arg.list.size();
        if (op == 0) {
            // As many as to reach the maximum now and then.
            if (chance(6)) arg.count = below(300);
        }
        if (chance(8)) arg.order = 1 + static_cast<std::uint32_t>(below(3));
        if (chance(30)) arg.order = pick({10u, 18u, 64u, 0xffff'ffffu});
        // 2 MiB, of RAM.
        if (!arg.list.empty() && op != 0 && chance(40)) {
            arg.order = 9;
            arg.list = {kRangeFirst + below(kRangePages)};
            arg.count = 1;
        }
        if (chance(20)) {
            arg.flags = pick({1u << 16, 12u, 20u, 0x1f000000u | 31u, 0x100u, 0x1u << 17, 0x20100u});
        }
        if (chance(40) && era_.release >= 403) arg.count = pick({0x0400'0000ull, 0xffff'ffffull});
        // A list whose rest lies where nothing is.
        const std::uint64_t listed = arg.list.size();
        vmm::Gva list = guest_.put_words(arg.list);
        const bool cut = op != 0 && !edge_used_ && chance(12);
        edge_used_ = edge_used_ || cut;
        if (cut) {
            arg.count = listed + 1 + below(5);
            const std::uint64_t bytes = listed * guest_.word_bytes();
            list = {TestDomain::kUnmapped - bytes};
            if (bytes != 0) make_edge(arg.list, list);
        } else if (arg.count > listed && op != 0) {
            // Far too many: refused before the list is looked at.
            arg.order = 0;
        }
        const bool seen = readable();
        const vmm::Gva at =
            seen ? guest_.put_wide<xen_memory_reservation>({.extent_start = list.value,
                                                            .nr_extents = arg.count,
                                                            .extent_order = arg.order,
                                                            .mem_flags = arg.flags,
                                                            .domid = arg.domid})
                 : guest_.unmapped();
        std::uint64_t cmd = command(op);
        if (era_.handle_moves()) cmd = op;  // whose list would begin elsewhere
        std::string text = std::to_string(arg.count) + " of order " + std::to_string(arg.order) +
                           " dom " + std::to_string(arg.domid) + " flags " + hex(arg.flags) +
                           (seen ? " [" : " unreadable [");
        for (const auto gfn : arg.list) {
            text += hex(gfn) + " ";
        }
        const auto seen_arg = seen ? std::optional(arg) : std::nullopt;
        Made made = memory(cmd, at, reservation(cmd, seen_arg), text + "]");
        made.name = op == 0 ? "increase" : op == 1 ? "decrease" : "populate";
        made.end = made.expected == static_cast<std::int64_t>(arg.count) ? "all" : "short";
        return made;
    }
    std::int64_t reservation(std::uint64_t cmd, const std::optional<model::Extents>& arg) {
        return model::reservation(world_, model::take_apart(world_, cmd), arg);
    }
    void make_edge_page() {
        const std::uint64_t gfn = (TestDomain::kUnmapped >> vmm::kPageShift) - 1;
        if (!edge_) edge_ = ports_.add_ram_page(gfn);
    }
    // The page before the unmapped one, as the list's home.
    void make_edge(const std::vector<std::uint64_t>& words, vmm::Gva at) {
        make_edge_page();
        for (std::size_t i = 0; i < words.size(); ++i) {
            if (width_ == Width::k64) {
                guest_.poke(at + i * 8, words[i]);
            } else {
                guest_.poke(at + i * 4, static_cast<std::uint32_t>(words[i]));
            }
        }
    }

    Made place(std::uint32_t op, const model::Place& arg, std::uint64_t cmd,
               std::int64_t (*model)(World&, const model::Cursor&,
                                     const std::optional<model::Place>&)) {
        const bool seen = readable();
        vmm::Gva at = guest_.unmapped();
        if (seen && op == XENMEM_add_to_physmap) {
            at = guest_.put_wide<xen_add_to_physmap>({.domid = arg.domid,
                                                      .size = arg.size,
                                                      .space = arg.space,
                                                      .idx = arg.idx,
                                                      .gpfn = arg.gfn});
        } else if (seen) {
            at = guest_.put_wide<xen_remove_from_physmap>({.domid = arg.domid, .gpfn = arg.gfn});
        }
        const auto seen_arg = seen ? std::optional(arg) : std::nullopt;
        return memory(cmd, at, model(world_, model::take_apart(world_, cmd), seen_arg),
                      "dom " + std::to_string(arg.domid) + " size " + std::to_string(arg.size) +
                          " space " + std::to_string(arg.space) + " idx " + hex(arg.idx) + " gfn " +
                          hex(arg.gfn) + (seen ? "" : " unreadable"));
    }

    Made add_to_physmap() {
        model::Place arg{.domid = a_domid(), .size = static_cast<std::uint16_t>(random_())};
        arg.space = pick({0u, 1u, 1u, 2u, 2u, 2u});
        if (chance(20)) arg.space = pick({6u, 0x7fff'ffffu});
        if (chance(20)) arg.space = pick({4u, 5u});
        if (chance(world_.old_drivers ? 6 : 40)) {
            arg.space = pick({4u, 0x8000'0000u, 0x8000'0001u});
        }
        const bool is_gmfn = arg.space == 2 || arg.space == 0x8000'0001;
        arg.idx = is_gmfn ? word(a_gfn()) : arg.space == 1 ? a_grant_frame() : (chance(8) ? 1 : 0);
        arg.gfn = word(chance(40) && width_ == Width::k64 ? UINT64_MAX : a_gfn());
        Made made =
            place(XENMEM_add_to_physmap, arg, command(XENMEM_add_to_physmap, era_.release >= 404),
                  model::add_to_physmap);
        made.name = "add_to_physmap, space " + hex(arg.space);
        return made;
    }
    std::uint64_t a_grant_frame() {
        const std::uint64_t frame =
            chance(8) ? pick({31ull, 32ull, 63ull, 64ull, 200ull, 0x7fff'fff0ull}) : below(4);
        return chance(3) ? frame | 0x8000'0000 : frame;
    }
    Made range() {
        model::Place arg{.domid = a_domid(),
                         .size = static_cast<std::uint16_t>(below(9)),
                         .space = 3,
                         .idx = kRangeFirst + below(kRangePages),
                         .gfn = kRangeFirst + below(kRangePages)};
        // Where a 32-bit structure keeps the progress a stop makes numbers wrap that else would
        // not: what comes of them depends on the stops, on Xen as well.
        const bool wraps = width_ == Width::k32 && era_.range_in_struct();
        if (chance(20) && !wraps) arg.idx = word(UINT64_MAX - below(4));
        if (chance(20) && !wraps && arg.size != 0) arg.gfn = word(UINT64_MAX - 1 - below(4));
        return place(XENMEM_add_to_physmap, arg,
                     command(XENMEM_add_to_physmap, era_.release >= 404), model::add_to_physmap);
    }
    Made remove() {
        const model::Place arg{.domid = a_domid(), .gfn = word(a_gfn())};
        return place(XENMEM_remove_from_physmap, arg, command(XENMEM_remove_from_physmap),
                     model::remove_from_physmap);
    }
    Made account() {
        const std::uint64_t cmd = command(pick({2u, 3u, 4u, 14u}));
        const std::uint16_t domid = a_domid();
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.put(domid) : guest_.unmapped();
        const auto seen_domid = seen ? std::optional(domid) : std::nullopt;
        return memory(cmd, at, model::account(world_, model::take_apart(world_, cmd), seen_domid),
                      "dom " + std::to_string(domid) + (seen ? "" : " unreadable"));
    }

    // add_to_physmap_batch; now and then with a list that ends where nothing is.
    Made batch() {
        model::Batch arg{.domid = a_domid()};
        arg.space = pick({std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{1}, std::uint16_t{2},
                          std::uint16_t{2}, std::uint16_t{2}});
        if (chance(16)) arg.space = static_cast<std::uint16_t>(3 + below(4));
        const std::uint64_t listed = below(9);
        std::vector<std::uint64_t> idxs, gfns;
        std::string text;
        for (std::uint64_t i = 0; i < listed; ++i) {
            idxs.push_back(word(arg.space == 2   ? a_gfn()
                                : arg.space == 1 ? a_grant_frame()
                                                 : (chance(8) ? 1 : 0)));
            gfns.push_back(word(chance(60) ? UINT64_MAX : a_gfn()));
            arg.pairs.push_back({idxs.back(), gfns.back()});
            text.append(hex(idxs.back())).append(" to ").append(hex(gfns.back())).append(", ");
        }
        std::uint64_t size = listed;
        enum { kNowhere, kInIdxs, kInGfns, kInErrors } cut = kNowhere;
        if (!edge_used_ && chance(10)) {
            cut = chance(3) ? kInIdxs : chance(2) ? kInGfns : kInErrors;
            edge_used_ = true;
            make_edge_page();
            size += 1 + below(4);
        }
        arg.size = static_cast<std::uint16_t>(size);
        arg.room = cut == kInErrors ? listed : size;
        // The other lists go on, all the same.
        if (cut == kInErrors) {
            for (std::uint64_t i = listed; i < size; ++i) {
                idxs.push_back(0);
                gfns.push_back(pick(kGfns));
                arg.pairs.push_back({idxs.back(), gfns.back()});
            }
        }
        const auto words_at = [&](const std::vector<std::uint64_t>& words, bool at_edge) {
            if (!at_edge) return guest_.put_words(words);
            const vmm::Gva at{TestDomain::kUnmapped - words.size() * guest_.word_bytes()};
            if (!words.empty()) make_edge(words, at);
            return at;
        };
        const vmm::Gva idxs_at = words_at(idxs, cut == kInIdxs);
        const vmm::Gva gfns_at = words_at(gfns, cut == kInGfns);
        Bytes before = noise(arg.room * 4), after = before;
        vmm::Gva errors_at = guest_.reserve(before.size() + 1);
        if (cut == kInErrors) errors_at = {TestDomain::kUnmapped - before.size()};
        if (!before.empty()) poke_bytes(errors_at, before);
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.put_wide<xen_add_to_physmap_batch>(
                                       {.domid = arg.domid,
                                        .space = arg.space,
                                        .size = arg.size,
                                        .u = static_cast<std::uint16_t>(random_()),
                                        .idxs = idxs_at.value,
                                        .gpfns = gfns_at.value,
                                        .errs = errors_at.value})
                                 : guest_.unmapped();
        const std::uint64_t cmd = command(XENMEM_add_to_physmap_batch);
        const model::Cursor cursor = model::take_apart(world_, cmd);
        std::map<std::uint64_t, model::Result> errors;
        const std::int64_t expected =
            !model::has_memory_op(world_, cursor.op)
                ? -XEN_ENOSYS
                : model::add_to_physmap_batch(world_, cursor,
                                              seen ? std::optional(arg) : std::nullopt, errors);
        for (const auto& [i, error] : errors) {
            put_at(after, i * 4, static_cast<std::int32_t>(error));
        }
        Made made = memory(cmd, at, expected,
                           "dom " + std::to_string(arg.domid) + " space " +
                               std::to_string(arg.space) + " size " + std::to_string(arg.size) +
                               (seen ? " [" : " unreadable [") + text + "]");
        made.name = "batch, space " + std::to_string(arg.space);
        if (!after.empty()) made.written = holds(errors_at, std::move(after));
        return made;
    }

    void put_reservation(Bytes& bytes, std::size_t at, const model::Extents& e, vmm::Gva list) {
        const std::size_t unit = guest_.word_bytes();
        put_word(bytes, at, list.value);
        put_word(bytes, at + unit, e.count);
        put_at(bytes, at + 2 * unit, e.order);
        put_at(bytes, at + 2 * unit + 4, e.flags);
        put_at(bytes, at + 2 * unit + 8, e.domid);
    }
    Made exchange() {
        model::Exchange arg;
        arg.in.domid = a_domid();
        arg.out.domid = chance(20) ? a_domid() : arg.in.domid;
        const auto an_order = [&] {
            return static_cast<std::uint32_t>(chance(12) ? pick({9u, 10u, 11u, 20u}) : below(3));
        };
        arg.in.order = an_order();
        arg.out.order = chance(2) ? arg.in.order : an_order();
        const unsigned least = std::min(arg.in.order, arg.out.order);
        // As many pages on both sides, mostly.
        const std::uint64_t chunks = below(4);
        arg.in.count = chunks << (arg.out.order - least);
        arg.out.count = chunks << (arg.in.order - least);
        if (chance(12)) arg.out.count = below(6);
        if (chance(24)) arg.in.count = word(random_());
        if (chance(20)) arg.out.flags = pick({0x100u, 1u << 17, 0x20100u, 20u});
        arg.done = chance(3) ? (chance(3) ? arg.in.count : below(arg.in.count + 2)) : 0;
        arg.done = word(arg.done);
        std::string text;
        const auto fill = [&](model::Extents& e) {
            if (e.count > 4096) return false;
            for (std::uint64_t i = 0; i < e.count; ++i) {
                e.list.push_back(word(a_gfn()));
            }
            return true;
        };
        // A list that is not there at all, or is far too long to be.
        vmm::Gva lists[2] = {guest_.unmapped(), guest_.unmapped()};
        for (const unsigned which : {0u, 1u}) {
            model::Extents& e = which == 0 ? arg.in : arg.out;
            if (readable() && fill(e)) lists[which] = guest_.put_words(e.list);
            text += std::to_string(e.count) + " of order " + std::to_string(e.order) + " dom " +
                    std::to_string(e.domid) + (e.list.empty() ? ", " : " " + hex(e.list[0]) + ", ");
        }
        const std::size_t bytes = width_ == Width::k64 ? 32 : 20;
        Bytes said = noise(2 * bytes + guest_.word_bytes());
        put_reservation(said, 0, arg.in, lists[0]);
        put_reservation(said, bytes, arg.out, lists[1]);
        put_word(said, 2 * bytes, arg.done);
        text += "done " + hex(arg.done);
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        if (seen) poke_bytes(at, said);
        const std::uint64_t cmd = command(XENMEM_exchange);
        std::optional<model::Exchange> seen_arg;
        if (seen) seen_arg = arg;
        const auto expected = model::exchange(world_, model::take_apart(world_, cmd), seen_arg);
        Made made = memory(cmd, at, expected, std::move(text));
        if (seen) {
            put_word(said, 2 * bytes, seen_arg->done);
            made.written = holds(at, std::move(said));
        }
        return made;
    }

    static void put_area(Bytes& bytes, std::size_t at, const model::Area& area) {
        put_at(bytes, at, area.base);
        put_at(bytes, at + 8, area.size);
        put_at(bytes, at + 16, area.type);
    }
    static constexpr std::size_t kAreaBytes = 20;
    Made memory_map() {
        const auto room = static_cast<std::uint32_t>(chance(8) ? random_() : below(8));
        const bool seen = readable(), has_buffer = !chance(6);
        Bytes before = noise(8 * kAreaBytes + 2048 * kAreaBytes * (chance(20) ? 1 : 0));
        // As many as there can be in the map.
        if (before.size() / kAreaBytes < world_.areas.size()) {
            before = noise((world_.areas.size() + 1) * kAreaBytes);
        }
        const vmm::Gva buffer = has_buffer ? guest_.reserve(before.size()) : guest_.unmapped();
        if (has_buffer) poke_bytes(buffer, before);
        Bytes said = noise(2 * guest_.word_bytes());
        put_at(said, 0, room);
        put_word(said, guest_.word_bytes(), buffer.value);
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        if (seen) poke_bytes(at, said);
        const std::uint64_t cmd = command(XENMEM_memory_map);
        std::uint32_t written = 0;
        const auto expected =
            model::memory_map(world_, model::take_apart(world_, cmd),
                              seen ? std::optional(room) : std::nullopt, has_buffer, written);
        for (std::uint32_t i = 0; i < written; ++i) {
            put_area(before, i * kAreaBytes, world_.areas[i]);
        }
        if (expected == 0) put_at(said, 0, written);
        Made made = memory(cmd, at, expected, "room " + hex(room));
        const auto nothing = [] { return std::string(); };
        made.written = [whole = seen ? holds(at, std::move(said)) : nothing,
                        list = has_buffer ? holds(buffer, std::move(before)) : nothing] {
            return whole() + list();
        };
        return made;
    }
    Made set_memory_map() {
        model::NewMap arg{.domid = a_domid(), .count = static_cast<std::uint32_t>(below(6))};
        if (chance(12)) arg.count = pick({128u, 129u, 1024u, 1025u, 0xffff'ffffu});
        vmm::Gva list = guest_.unmapped();
        if (arg.count == 0 || (readable() && arg.count <= 1024)) {
            arg.areas.emplace();
            Bytes bytes(arg.count * kAreaBytes);
            for (std::uint32_t i = 0; i < arg.count; ++i) {
                arg.areas->push_back({random_(), random_(), static_cast<std::uint32_t>(random_())});
                put_area(bytes, i * kAreaBytes, arg.areas->back());
            }
            list = guest_.reserve(bytes.size() + 1);
            if (!bytes.empty()) poke_bytes(list, bytes);
        }
        const std::size_t unit = guest_.word_bytes();
        Bytes said = noise(3 * unit);
        put_at(said, 0, arg.domid);
        put_at(said, unit, arg.count);
        put_word(said, 2 * unit, list.value);
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        if (seen) poke_bytes(at, said);
        const std::uint64_t cmd = command(XENMEM_set_memory_map);
        const auto expected = model::set_memory_map(world_, model::take_apart(world_, cmd),
                                                    seen ? std::optional(arg) : std::nullopt);
        return memory(cmd, at, expected,
                      "dom " + std::to_string(arg.domid) + " entries " + hex(arg.count));
    }

    // Those that do nothing for a guest, and numbers that nobody has.
    Made other_memory_op() {
        std::uint32_t op = pick({5u,  8u,  10u, 12u, 16u, 17u, 18u, 19u, 20u, 21u, 22u,
                                 24u, 25u, 26u, 27u, 28u, 29u, 40u, 41u, 57u, 62u, 63u});
        while (op >= 1u << era_.memory_shift()) {
            op = pick({5u, 8u, 10u, 12u});
        }
        const std::uint64_t cmd = command(op);
        const std::size_t unit = guest_.word_bytes();
        const bool wide = width_ == Width::k64;
        model::Other arg{.domid = a_domid()};
        arg.proper = !chance(4);
        Bytes said = noise(80);
        put_at(said, 0, arg.domid);
        const auto a_list = [&] {
            arg.list = chance(4)   ? model::Other::List::kUnreadable
                       : chance(3) ? model::Other::List::kNone
                                   : model::Other::List::kReadable;
            return arg.list == model::Other::List::kUnreadable ? guest_.unmapped()
                   : arg.list == model::Other::List::kNone     ? guest_.null()
                                                               : guest_.reserve(1021 * 4);
        };
        switch (op) {
            case XENMEM_machphys_mfn_list:
                arg.count = static_cast<std::uint32_t>(below(3));
                put_at(said, 0, arg.count);
                put_word(said, unit, a_list().value);
                break;
            case XENMEM_set_pod_target:
            case XENMEM_get_pod_target: put_at(said, 32, arg.domid); break;
            case XENMEM_access_op: put_at(said, 2, arg.domid); break;
            case XENMEM_claim_pages: {
                model::Extents none{.domid = arg.domid};
                vmm::Gva list = guest_.null();
                if (!arg.proper) {
                    const auto which = below(3);
                    if (which == 0) list = guest_.reserve(8);
                    if (which == 1) none.order = 1;
                    if (which == 2) none.flags = 1u << below(32);
                }
                none.count = word(random_());
                put_reservation(said, 0, none, list);
                break;
            }
            case XENMEM_get_vnumainfo:
                put_at(said, 2, std::uint16_t{arg.proper ? std::uint16_t{0} : std::uint16_t{8}});
                break;
            case XENMEM_reserved_device_memory_map:
                put_at(said, 0, arg.proper ? static_cast<std::uint32_t>(below(2)) : 2u);
                break;
            case XENMEM_acquire_resource:
                arg.count = static_cast<std::uint32_t>(chance(8) ? 1019 + below(4) : below(4));
                put_at(said, 8, arg.count);
                put_at(said, 12, arg.proper ? 0u : 1u);
                put_word(said, 24, a_list().value);
                break;
            default: break;
        }
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        if (seen) poke_bytes(at, said);
        const auto expected = model::other_memory_op(world_, model::take_apart(world_, cmd),
                                                     seen ? std::optional(arg) : std::nullopt);
        Made made =
            memory(cmd, at, expected,
                   "dom " + std::to_string(arg.domid) + (arg.proper ? "" : " improper") +
                       " count " + std::to_string(arg.count) + " list " +
                       std::to_string(static_cast<int>(arg.list)) + (seen ? "" : " unreadable"));
        made.name = "memory_op " + std::to_string(op);
        if (seen) {
            // Of what there is nothing, the number is told.
            if (expected == 0 && op == XENMEM_machphys_mfn_list) {
                put_at(said, wide ? 16 : 8, 0u);
            }
            if (expected == 0 && op == XENMEM_reserved_device_memory_map) put_at(said, 4, 0u);
            if (expected == 0 && op == XENMEM_acquire_resource && wide) put_at(said, 8, 32u);
            made.written = holds(at, std::move(said));
        }
        return made;
    }

    // Sometimes with bits above the operation, where some releases looked for a cursor.
    std::uint64_t hvm_command(std::uint32_t op) {
        const bool has_cursor = op == 7 || op == 8;
        if (!chance(has_cursor ? 4 : 30)) return op;
        const std::uint64_t more = pick({1ull << 8, 2ull << 8, 1ull << 12, 1ull << 31, 1ull << 32});
        return word(op | more | (chance(4) ? random_() & ~std::uint64_t{0xff} : 0));
    }
    // `apply` does it, from the cursor on; it is asked where the command leads to it.
    template <class Apply>
    Made hvm(std::uint32_t op, vmm::Gva at, std::string text, Apply apply) {
        const std::uint64_t command = hvm_command(op);
        std::uint64_t start = 0;
        const auto no = model::hvm_refusal(world_, command, op, start);
        return {.sub_op = op,
                .text = "cmd " + hex(command) + " " + std::move(text),
                .number = HYPERVISOR_hvm_op,
                .args = {command, at.value, random_(), random_(), random_()},
                .expected = no ? *no : apply(start)};
    }
    model::Param a_param() {
        model::Param p{.domid = a_domid(), .index = static_cast<std::uint32_t>(below(42))};
        if (chance(20)) p.index = static_cast<std::uint32_t>(random_());
        p.value = chance(2) ? below(10) : random_();
        // The crash of a TSS too small for a CPU ends a guest; one in a while is enough.
        if (p.index == HVM_PARAM_VM86_TSS_SIZED && !chance(4)) p.value |= std::uint64_t{104} << 32;
        return p;
    }
    static std::string text_of(const model::Param& p, bool seen) {
        return "index " + std::to_string(p.index) + " value " + hex(p.value) + " dom " +
               std::to_string(p.domid) + (seen ? "" : " unreadable");
    }
    vmm::Gva put_param(const model::Param& p, bool seen) {
        if (!seen) return guest_.unmapped();
        return guest_.put(xen_hvm_param{.domid = p.domid,
                                        .pad = static_cast<std::uint16_t>(random_()),
                                        .index = p.index,
                                        .value = p.value});
    }
    Made set_param() {
        const auto p = a_param();
        const bool seen = readable();
        return hvm(HVMOP_set_param, put_param(p, seen), text_of(p, seen), [&](std::uint64_t) {
            return model::set_param(world_, seen ? std::optional(p) : std::nullopt);
        });
    }
    Made get_param() {
        const auto p = a_param();
        const bool seen = readable();
        const vmm::Gva at = put_param(p, seen);
        std::uint64_t value = p.value;
        Made made = hvm(HVMOP_get_param, at, text_of(p, seen), [&](std::uint64_t) {
            return model::get_param(world_, seen ? std::optional(p) : std::nullopt, value);
        });
        if (seen) {
            made.written = [this, at, value, index = p.index] {
                const auto after = guest_.get<xen_hvm_param>(at);
                return std::string(after.value == value && after.index == index ? "" : "!");
            };
        }
        return made;
    }
    Made set_upcall_vector() {
        const auto vcpu = static_cast<std::uint32_t>(chance(6) ? random_() : below(3));
        const auto vector = static_cast<std::uint8_t>(random_());
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.put(xen_hvm_evtchn_upcall_vector{
                                       .vcpu = vcpu, .vector = vector, .pad = {}})
                                 : guest_.unmapped();
        return hvm(HVMOP_set_evtchn_upcall_vector, at,
                   "vcpu " + std::to_string(vcpu) + " vector " + std::to_string(vector),
                   [&](std::uint64_t) {
                       return model::set_upcall_vector(
                           world_, seen ? std::optional(vcpu) : std::nullopt, vector);
                   });
    }
    Made get_mem_type() {
        const std::uint16_t domid = a_domid();
        const std::uint64_t gfn = a_gfn();
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.put(xen_hvm_get_mem_type{
                                       .domid = domid, .mem_type = 0x7777, .pad = 0, .pfn = gfn})
                                 : guest_.unmapped();
        std::uint16_t type = 0x7777;
        Made made = hvm(HVMOP_get_mem_type, at, "dom " + std::to_string(domid) + " gfn " + hex(gfn),
                        [&](std::uint64_t) {
                            return model::get_mem_type(
                                world_, seen ? std::optional(domid) : std::nullopt, gfn, type);
                        });
        if (seen) {
            made.written = [this, at, type] {
                const bool same = guest_.get<xen_hvm_get_mem_type>(at).mem_type == type;
                return std::string(same ? "" : "!");
            };
        }
        return made;
    }
    Made flush_tlbs() {
        const vmm::Gva at = chance(2) ? guest_.null() : vmm::Gva{word(random_() | 1)};
        return hvm(HVMOP_flush_tlbs, at, hex(at.value),
                   [&](std::uint64_t) { return model::flush_tlbs(world_, at.value != 0); });
    }
    Made guest_request() {
        const vmm::Gva at = chance(2) ? guest_.null() : vmm::Gva{word(random_() | 1)};
        return hvm(HVMOP_guest_request_vm_event, at, hex(at.value),
                   [&](std::uint64_t) { return model::guest_request(world_, at.value != 0); });
    }
    Made pagetable_dying() {
        const std::uint16_t domid = a_domid();
        const bool seen = readable();
        const vmm::Gva at =
            seen ? guest_.put(xen_hvm_pagetable_dying{.domid = domid, .pad = {}, .gpa = random_()})
                 : guest_.unmapped();
        return hvm(HVMOP_pagetable_dying, at, "dom " + std::to_string(domid), [&](std::uint64_t) {
            return model::pagetable_dying(world_, seen ? std::optional(domid) : std::nullopt);
        });
    }
    Made get_time() {
        const bool seen = readable();
        const std::uint64_t before = random_();
        const vmm::Gva at = seen ? guest_.put(before) : guest_.unmapped();
        Made made = hvm(HVMOP_get_time, at, "",
                        [&](std::uint64_t) { return seen ? std::int64_t{0} : -XEN_EFAULT; });
        if (seen) {
            const std::uint64_t after = made.expected == 0 ? world_.machine.now_ns : before;
            made.written = [this, at, after] {
                return std::string(guest_.get<std::uint64_t>(at) == after ? "" : "!");
            };
        }
        return made;
    }
    Made xentrace() {
        model::Trace trace{.event = static_cast<std::uint16_t>(below(0x1000)),
                           .bytes = static_cast<std::uint16_t>(below(29))};
        if (chance(4)) trace.event = static_cast<std::uint16_t>(random_());
        if (chance(4)) trace.bytes = chance(2) ? 29 : static_cast<std::uint16_t>(random_());
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.put(xen_hvm_xentrace{
                                       .event = trace.event, .extra_bytes = trace.bytes, .extra{}})
                                 : guest_.unmapped();
        return hvm(HVMOP_xentrace, at,
                   "event " + hex(trace.event) + " bytes " + std::to_string(trace.bytes),
                   [&](std::uint64_t) {
                       return model::xentrace(world_, seen ? std::optional(trace) : std::nullopt);
                   });
    }
    // Their arguments are never read.
    Made old_drivers_op() {
        const std::uint64_t op = pick({std::uint64_t{0x102}, std::uint64_t{0x103}});
        const std::uint64_t command = word(chance(8) ? op | 1ull << 32 : op);
        // What it means without these drivers has arguments that are refused.
        const vmm::Gva at = guest_.unmapped();
        std::uint64_t start = 0;
        const auto to = static_cast<std::uint32_t>(command & 0xff);
        const auto no = model::hvm_refusal(world_, command, to, start);
        const auto expected = no ? *no : model::hvm_device_op(world_, to, std::nullopt, true);
        return {.sub_op = op,
                .text = hex(command),
                .number = HYPERVISOR_hvm_op,
                .args = {command, at.value, random_(), random_(), random_()},
                .expected = expected};
    }

    // ---- what device models ask for -------------------------------------------------------------
    // Long ones now and then, so that they can stop: every 256 pages, where not at each.
    model::Pages a_range() {
        model::Pages pages{.domid = a_domid()};
        pages.type =
            static_cast<std::uint32_t>(chance(12) ? pick({3u, 4u, 7u, 0xffffu}) : below(3));
        pages.first = chance(3) ? pick(kGfns) : kRangeFirst + below(kRangePages);
        pages.count = chance(6) ? 200 + below(600) : below(6);
        if (chance(30)) pages.first = random_();
        if (chance(30)) {
            // Far too many: past the end of all.
            pages.first = world_.highest - below(3);
            pages.count = chance(4) ? UINT64_MAX - below(4) : 4 + below(0xffff'fff0);
        } else if (chance(20)) {
            pages.first = world_.highest - below(3);
            pages.count = below(5);
        }
        return pages;
    }
    static std::string text_of(const model::Pages& pages, bool seen) {
        return "dom " + std::to_string(pages.domid) + " type " + hex(pages.type) + " " +
               hex(pages.count) + " pages from " + hex(pages.first) + (seen ? "" : " unreadable");
    }
    Made page_op(std::uint32_t op,
                 std::int64_t (*model)(World&, const std::optional<model::Pages>&, std::uint64_t)) {
        model::Pages pages = a_range();
        const bool seen = readable();
        // Shrunk in 4.5.
        Bytes said = noise(era_.release < 405 ? 24 : 16);
        put_at(said, 0, pages.domid);
        if (era_.release < 405) {
            put_at(said, 4, pages.type);
            put_at(said, 8, pages.first);
            put_at(said, 16, pages.count);
        } else {
            pages.type &= 0xffff;
            pages.count &= 0xffff'ffff;
            put_at(said, 2, static_cast<std::uint16_t>(pages.type));
            put_at(said, 4, static_cast<std::uint32_t>(pages.count));
            put_at(said, 8, pages.first);
        }
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        if (seen) poke_bytes(at, said);
        Made made = hvm(op, at, text_of(pages, seen), [&](std::uint64_t start) {
            return model(world_, seen ? std::optional(pages) : std::nullopt, start);
        });
        if (seen) made.written = holds(at, std::move(said));
        made.keeps_progress = era_.release < 405;
        return made;
    }
    Made modified_memory() { return page_op(HVMOP_modified_memory, model::hvm_modified_memory); }
    Made set_mem_type() { return page_op(HVMOP_set_mem_type, model::hvm_set_mem_type); }

    Made other_hvm_op() {
        const auto op = pick({2u, 3u, 4u, 6u, 12u, 13u, 14u, 16u, 17u, 18u, 19u, 20u, 21u, 22u, 25u,
                              26u, 27u, 0xffu, 0xffff'ffffu});
        const std::uint16_t domid = a_domid();
        const bool seen = readable();
        Bytes said = noise(80);
        put_at(said, 0, domid);
        bool in_range = true;
        const bool wrong = chance(4);
        const auto byte = [&](std::size_t at, std::uint64_t most) {
            const std::uint64_t value = wrong ? most + below(3) : below(most + 1);
            said[at] = static_cast<std::uint8_t>(value);
            in_range = in_range && value <= most;
        };
        if (op == HVMOP_set_pci_intx_level) {
            byte(2, 0);   // domain
            byte(3, 0);   // bus
            byte(4, 31);  // device
            byte(5, 3);   // pin
        } else if (op == HVMOP_set_isa_irq_level) {
            byte(2, 15);
        } else if (op == HVMOP_set_pci_link_route) {
            byte(2, 3);
            byte(3, 15);
        }
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        if (seen) poke_bytes(at, said);
        Made made = hvm(op, at, "dom " + std::to_string(domid), [&](std::uint64_t) {
            return model::hvm_device_op(world_, op, seen ? std::optional(domid) : std::nullopt,
                                        in_range);
        });
        made.name = "hvm_op " + std::to_string(op);
        if (seen) made.written = holds(at, std::move(said));
        return made;
    }

    Made dm_op() {
        model::DmOp arg{.domid = a_domid(), .buffers = 2, .op = pick({11u, 11u, 12u, 12u, 12u})};
        if (chance(12)) arg.buffers = pick({0u, 1u, 3u, 0xffff'ffffu});
        if (chance(12)) arg.op = pick({0u, 1u, 10u, 13u, 20u, 0xffff'ffffu});
        if (chance(20)) arg.pad = static_cast<std::uint32_t>(random_());
        arg.list = readable();
        arg.readable = readable();
        arg.size = chance(10) ? below(25) : 24;
        Bytes first = noise(24);
        put_at(first, 0, arg.op);
        put_at(first, 4, arg.pad);
        Bytes second;
        std::string text;
        if (arg.op == 12) {
            arg.pages = a_range();
            arg.pages.type &= 0xffff;
            arg.pages.count &= 0xffff'ffff;
            if (chance(20)) arg.type_pad = static_cast<std::uint16_t>(random_());
            put_at(first, 8, static_cast<std::uint32_t>(arg.pages.count));
            put_at(first, 12, static_cast<std::uint16_t>(arg.pages.type));
            put_at(first, 14, arg.type_pad);
            put_at(first, 16, arg.pages.first);
            text = text_of(arg.pages, true);
        } else {
            arg.extents = static_cast<std::uint32_t>(below(5));
            arg.opaque = static_cast<std::uint32_t>(chance(4) ? below(4) : 0);
            second.resize(arg.extents * 16);
            for (std::uint32_t i = 0; i < arg.extents; ++i) {
                const model::Pages pages = a_range();
                model::DmOp::Extent extent{.count = static_cast<std::uint32_t>(pages.count),
                                           .first = pages.first};
                if (extent.count == 0 && !chance(4)) extent.count = 1;
                if (chance(40)) extent.pad = 1;
                put_at(second, i * 16, extent.count);
                put_at(second, i * 16 + 4, extent.pad);
                put_at(second, i * 16 + 8, extent.first);
                arg.list_of_extents.push_back(extent);
                text += hex(extent.count) + " from " + hex(extent.first) + ", ";
            }
            if (chance(20)) arg.extents += 1 + static_cast<std::uint32_t>(below(3));
            put_at(first, 8, arg.extents);
            put_at(first, 12, arg.opaque);
            text += "in all " + std::to_string(arg.extents) + " from " + hex(arg.opaque);
        }
        arg.second_size = second.size();
        vmm::Gva second_at = guest_.reserve(std::max<std::size_t>(second.size(), 1));
        if (!second.empty()) {
            poke_bytes(second_at, second);
            if (!readable()) {
                arg.list_of_extents.clear();
                second_at = guest_.unmapped();
            }
        }
        const vmm::Gva at = arg.readable ? guest_.reserve(first.size()) : guest_.unmapped();
        if (arg.readable) poke_bytes(at, first);
        const std::size_t unit = guest_.word_bytes();
        Bytes buffers = noise(4 * unit);
        put_word(buffers, 0, at.value);
        put_word(buffers, unit, arg.size);
        put_word(buffers, 2 * unit, second_at.value);
        put_word(buffers, 3 * unit, arg.second_size);
        const vmm::Gva list = arg.list ? guest_.reserve(buffers.size()) : guest_.unmapped();
        if (arg.list) poke_bytes(list, buffers);
        std::uint64_t domid = arg.domid, count = arg.buffers;
        if (chance(4)) domid |= random_() << 16;
        const auto expected = model::dm_op(world_, arg);
        Made made{.name = "dm_op " + std::to_string(arg.op),
                  .text = "dom " + std::to_string(arg.domid) + " buffers " +
                          std::to_string(arg.buffers) + " size " + std::to_string(arg.size) +
                          (arg.list ? "" : " no list") + (arg.readable ? " " : " unreadable ") +
                          std::move(text),
                  .number = HYPERVISOR_dm_op,
                  .args = {word(domid), word(screened(count)), list.value, random_(), random_()},
                  .expected = expected};
        if (arg.readable) made.written = holds(at, std::move(first));
        made.keeps_progress = true;
        return made;
    }

    // ---- grants ---------------------------------------------------------------------------------
    // Domain 0 lets the guest copy a page.
    void offer(bool readonly) {
        offered_.push_back(std::make_unique<std::array<std::uint8_t, vmm::kPageSize>>());
        auto frame = std::make_shared<model::Frame>();
        for (std::size_t i = 0; i < frame->bytes.size(); i += 8) {
            const std::uint64_t content = random_();
            std::memcpy(&frame->bytes[i], &content, sizeof content);
        }
        *offered_.back() = frame->bytes;
        const std::uint32_t ref = guest_.domain.grants().offer(
            reinterpret_cast<std::byte*>(offered_.back()->data()), readonly);
        world_.grants.offers[ref] = {.frame = std::move(frame), .readonly = readonly};
    }

    // The guest gives access, takes it back, or writes what makes no sense.
    void write_entry() {
        const std::uint32_t ref = pick(kRefs);
        if (ref >= model::grant_entries(world_)) return;
        model::Entry entry{.flags = chance(3) ? std::uint16_t{1 | 4} : std::uint16_t{1},
                           .domid = kOwnId,
                           .frame = pick(kGfns)};
        const bool wide = world_.grants.version == 2;
        if (chance(4)) {
            entry.flags |= 0x100;  // a part
            entry.offset = static_cast<std::uint16_t>(below(4096));
            entry.length = static_cast<std::uint16_t>(below(4097 - entry.offset));
        } else if (wide && chance(4)) {
            entry.flags |= 3;  // transitive
            entry.offset = chance(4) ? a_domid() : std::uint16_t{0};
            entry.frame = pick({8u, 8u, 9u, 10u, 600u, 0xffff'ffffu});
        } else if (chance(6)) {
            entry.flags = static_cast<std::uint16_t>(random_());
            entry.domid = a_domid();
            entry.offset = static_cast<std::uint16_t>(random_());
            entry.length = static_cast<std::uint16_t>(random_());
            entry.frame = chance(2) ? a_gfn() : random_();
        } else if (chance(6)) {
            entry.flags |= static_cast<std::uint16_t>(1u << below(16));
        } else if (chance(6)) {
            entry.domid = a_domid();
        }
        model::set_grant_entry(world_, ref, entry);
        if (wide && chance(12)) {
            const auto status = static_cast<std::uint16_t>(random_());
            model::set_grant_status(world_, ref, status);
        }
        // The frames are the guest's memory: written as they are.
        const std::uint32_t bytes = wide ? 16 : 8, at = ref * bytes;
        write_own(model::kFirstGrantFrame + at / 4096, at % 4096, bytes);
        if (wide) write_own(model::kFirstStatusFrame + ref / 2048, ref % 2048 * 2, 2);
    }
    void write_own(std::uint32_t own, std::uint32_t at, std::uint32_t bytes) {
        std::memcpy(ports_.own_page(product_page(own)) + at, &world_.own_page(own)->bytes[at],
                    bytes);
    }

    std::uint32_t a_ref() { return chance(8) ? pick(kRefs) : kRefs[3 + below(7)]; }
    // The caller's register: what is above an unsigned int must not matter.
    std::uint64_t screened(std::uint64_t value) {
        return width_ == Width::k64 && chance(4) ? value | random_() << 32 : value;
    }
    std::uint64_t grant_command(std::uint32_t op) {
        return screened(chance(40) ? op | pick({1u << 12, 1u << 16, 1u << 31}) : op);
    }
    Made grant(std::uint64_t command, vmm::Gva at, std::uint64_t count, std::int64_t expected,
               std::string text) {
        return {.sub_op = static_cast<std::uint32_t>(command),
                .text = "cmd " + hex(command) + " count " + hex(count) + " " + std::move(text),
                .number = HYPERVISOR_grant_table_op,
                .args = {command, at.value, count, random_(), random_()},
                .expected = expected};
    }

    // How many elements a list has.
    std::uint64_t a_length() { return chance(10) ? below(70) : chance(20) ? 0 : 1 + below(6); }
    // A list of elements, each `unit` bytes. `next` makes one: it fills in what the guest says, and
    // answers with what does it in the model and leaves in the bytes what the guest finds there.
    template <class Next>
    Made list_of(std::uint32_t op, std::uint64_t length, std::uint64_t unit, Next next) {
        const std::uint64_t command = grant_command(op);
        const bool cut = !edge_used_ && chance(12);
        std::uint64_t count = length;
        if (cut) count += 1 + below(5);
        if (chance(60) && !edge_used_)
            count = pick({0xffff'ffffull, 0x8000'0000ull, 513ull + below(40)});
        const bool short_list = count > length;
        const auto refused = model::grant_refusal(world_, command, count);

        Bytes before, after;
        std::string text;
        for (std::uint64_t i = 0; i < std::min(length, count); ++i) {
            Bytes element = noise(unit);
            std::string said;
            const auto apply = next(element, said);
            before.insert(before.end(), element.begin(), element.end());
            if (!refused && !world_.crashed) apply(element);
            after.insert(after.end(), element.begin(), element.end());
            text.append("{").append(said).append("} ");
            if (world_.crashed) count = i + 1;  // nobody goes on
        }
        const bool ends_early = short_list && !world_.crashed;
        vmm::Gva at = guest_.reserve(std::max<std::uint64_t>(before.size(), 1));
        if (ends_early) {
            at = {TestDomain::kUnmapped - before.size()};
            if (!before.empty()) {
                edge_used_ = true;
                make_edge_page();
            }
        }
        if (!before.empty()) poke_bytes(at, before);
        Made made = grant(command, at, screened(count),
                          refused      ? *refused
                          : ends_early ? -XEN_EFAULT
                                       : 0,
                          std::move(text));
        if (!after.empty()) made.written = holds(at, std::move(after));
        made.stops = {.unit = unit, .step = op == 1 ? 32u : 1u};
        return made;
    }

    // Which page a copy would come to; null: none, or domain 0's.
    std::shared_ptr<model::Frame> page_of(const model::CopySide& side) {
        const auto ref = static_cast<std::uint32_t>(side.number);
        if (!side.by_ref) return world_.page(side.number);
        const auto use = world_.grants.uses.find(ref);
        if (use != world_.grants.uses.end()) return use->second.frame;
        if (ref >= model::grant_entries(world_)) return nullptr;
        return world_.page(model::grant_entry(world_, ref).frame);
    }
    bool is_own(const std::shared_ptr<model::Frame>& page) const {
        return std::ranges::any_of(world_.own, [&](const auto& own) { return own.second == page; });
    }
    struct Side {
        model::CopySide side;
        std::string text;
    };
    Side a_side() {
        model::CopySide side{.domid = TestDomain::kDomid, .by_ref = chance(2)};
        if (chance(3)) side.domid = 0x7ff0;
        if (!side.by_ref) {
            side.number = word(a_gfn());
            if (!chance(12)) side.domid = 0x7ff0;
        } else {
            side.number = a_ref();
            if (chance(6)) {
                side.domid = 0;
                side.number = pick({8u, 8u, 9u, 10u, 511u, 512u, 0x7fff'ffffu});
            }
            if (width_ == Width::k64 && chance(4)) side.number |= random_() << 32;
        }
        if (chance(24)) side.domid = a_domid();
        side.offset = chance(3)   ? 0
                      : chance(4) ? static_cast<std::uint16_t>(random_())
                                  : static_cast<std::uint32_t>(below(4097));
        std::string text = side.by_ref ? "ref " : "gfn ";
        text += hex(side.number) + " dom " + std::to_string(side.domid) + " + " +
                std::to_string(side.offset);
        const auto ref = static_cast<std::uint32_t>(side.number);
        if (side.by_ref && side.domid != 0 && ref < model::grant_entries(world_)) {
            const model::Entry entry = model::grant_entry(world_, ref);
            text += " (flags " + hex(entry.flags) + " dom " + std::to_string(entry.domid) +
                    " frame " + hex(entry.frame) + ")";
        }
        return {side, text};
    }
    Made grant_copy() {
        const bool wide = width_ == Width::k64;
        const std::size_t side_bytes = wide ? 16 : 8, ids = wide ? 8 : 4;
        const std::uint64_t length = a_length();
        return list_of(5, length, wide ? 40 : 24, [&](Bytes& element, std::string& text) {
            const Side source = a_side(), dest = a_side();
            model::Copy op{.source = source.side, .dest = dest.side};
            const auto from = page_of(op.source), to = page_of(op.dest);
            op.length = chance(4)   ? 0
                        : chance(4) ? 4096
                        : chance(6) ? static_cast<std::uint16_t>(random_())
                                    : static_cast<std::uint32_t>(below(200));
            // Of the table itself, whose forged marks lists may take back.
            if (from != nullptr && is_own(from) && (length != 1 || in_list_)) op.length = 0;
            // A page onto itself, where it overlaps: nothing says what comes of it.
            if (from != nullptr && from == to) {
                const auto apart = static_cast<std::int64_t>(op.source.offset) - op.dest.offset;
                op.length =
                    std::min<std::uint32_t>(op.length, static_cast<std::uint32_t>(std::abs(apart)));
            }
            text = source.text + " to " + dest.text + " len " + std::to_string(op.length);
            unsigned flags = (op.source.by_ref ? 1u : 0u) | (op.dest.by_ref ? 2u : 0u);
            if (chance(8)) flags |= static_cast<unsigned>(random_()) & 0xfffcu;
            std::size_t at = 0;
            for (const model::CopySide* side : {&op.source, &op.dest}) {
                put_word(element, at, side->number);
                put_at(element, at + ids, side->domid);
                put_at(element, at + ids + 2, static_cast<std::uint16_t>(side->offset));
                at += side_bytes;
            }
            put_at(element, at, static_cast<std::uint16_t>(op.length));
            put_at(element, at + 2, static_cast<std::uint16_t>(flags));
            return [this, op, at](Bytes& left) {
                put_at(left, at + 4, model::grant_copy(world_, op));
            };
        });
    }
    Made grant_map() {
        return list_of(0, a_length(), 32, [&](Bytes& element, std::string& text) {
            model::Map op{.flags = chance(3) ? 2u | 4u : 2u, .ref = a_ref(), .domid = kOwnId};
            if (chance(12)) op.flags = pick({0u, 1u, 3u, 4u, 8u, 10u, 18u, 0x22u, 0x10002u});
            if (chance(16)) op.domid = a_domid();
            std::uint64_t gfn = a_gfn();
            // What ends a domain comes late, if at all.
            while (world_.at(gfn).kind == model::Cell::Kind::kMapped && !chance(200)) {
                gfn = a_gfn();
            }
            op.address = gfn << 12 | (chance(8) ? below(4096) : 0);
            if (chance(40)) op.address = random_();
            put_at(element, 0, op.address);
            put_at(element, 8, op.flags);
            put_at(element, 12, op.ref);
            put_at(element, 16, op.domid);
            text = "ref " + hex(op.ref) + " dom " + std::to_string(op.domid) + " flags " +
                   hex(op.flags) + " at " + hex(op.address);
            return [this, op](Bytes& left) {
                std::uint32_t handle = 0;
                const model::Status status = model::grant_map(world_, op, handle);
                put_at(left, 18, status);
                if (status != 0) return;
                put_at(left, 20, handle);
                // Of our own making: Xen tells where the page is in the machine.
                put_at(left, 24, op.address & ~std::uint64_t{4095});
            };
        });
    }
    // A place where the mapping's page is to be seen, if there is one.
    std::uint64_t a_place(const model::Mapping& mapping) {
        const auto use = world_.grants.uses.find(mapping.ref);
        std::vector<std::uint64_t> places;
        for (const auto& [gfn, cell] : world_.changed) {
            if (cell.kind != model::Cell::Kind::kMapped) continue;
            if (use != world_.grants.uses.end() && cell.frame == use->second.frame) {
                places.push_back(gfn);
            }
        }
        return places.empty() ? a_gfn() : places[below(places.size())];
    }
    Made grant_unmap() {
        return list_of(1, a_length(), 24, [&](Bytes& element, std::string& text) {
            const auto& maps = world_.grants.maps;
            std::vector<std::uint32_t> live;
            for (std::uint32_t handle = 0; handle < maps.size(); ++handle) {
                if (maps[handle].flags != 0) live.push_back(handle);
            }
            std::uint32_t handle = static_cast<std::uint32_t>(below(300));
            std::uint64_t address = a_gfn() << 12;
            if (chance(30)) handle = static_cast<std::uint32_t>(random_());
            if (!live.empty() && !chance(12)) {
                handle = live[below(live.size())];
                if (!chance(12)) address = a_place(maps[handle]) << 12;
            }
            if (chance(8)) address |= below(4096);
            if (chance(16)) address = 0;
            put_at(element, 0, address);
            put_at(element, 16, handle);
            text = "handle " + hex(handle) + " at " + hex(address);
            return [this, handle, address](Bytes& left) {
                put_at(left, 20, model::grant_unmap(world_, handle, address));
            };
        });
    }
    Made grant_swap() {
        return list_of(11, a_length(), 12, [&](Bytes& element, std::string& text) {
            const std::uint32_t a = a_ref(), b = a_ref();
            put_at(element, 0, a);
            put_at(element, 4, b);
            text = hex(a) + " " + hex(b);
            return [this, a, b](Bytes& left) { put_at(left, 8, model::grant_swap(world_, a, b)); };
        });
    }

    // A structure that is read and written back; `apply` does what it asks for, and leaves in its
    // bytes what the guest finds there.
    Made grant_struct(std::uint32_t op, std::uint64_t count, const Bytes& said, std::string text,
                      const std::function<std::int64_t(Bytes&)>& apply) {
        const std::uint64_t command = grant_command(op);
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.reserve(said.size()) : guest_.unmapped();
        std::optional<std::int64_t> result = model::grant_refusal(world_, command, count);
        if (!result && !seen) result = -XEN_EFAULT;
        Bytes left = said;
        if (!result) result = apply(left);
        if (seen) poke_bytes(at, said);
        Made made = grant(command, at, screened(count), *result, std::move(text));
        if (seen) made.written = holds(at, std::move(left));
        return made;
    }
    // What Xen looks at in operations without lists: 1, or, where it does not, all but negative.
    std::uint64_t a_count() { return chance(12) ? pick({0u, 2u, 600u, 0xffff'ffffu}) : 1; }

    Made setup_table() {
        const unsigned bytes = guest_.word_bytes();
        const std::uint16_t domid = a_domid();
        const auto frames = static_cast<std::uint32_t>(
            chance(8) ? pick({31ull, 32ull, 33ull, 64ull, 65ull, 0xffff'ffffull}) : below(4));
        // A list that ends before it should, or lies nowhere.
        const bool cut = !edge_used_ && chance(8);
        const std::uint64_t room = cut ? below(4) : 66;
        const Bytes before = noise(room * bytes);
        vmm::Gva list = guest_.reserve(before.size() + 1);
        if (cut) {
            list = {TestDomain::kUnmapped - before.size()};
            edge_used_ = true;
            make_edge_page();
        }
        if (!before.empty()) poke_bytes(list, before);
        Bytes after = before;
        Bytes said = noise(width_ == Width::k64 ? 24 : 16);
        put_at(said, 0, domid);
        put_at(said, 4, frames);
        put_word(said, width_ == Width::k64 ? 16 : 12, list.value);
        Made made = grant_struct(2, a_count(), said,
                                 "dom " + std::to_string(domid) + " frames " + hex(frames) +
                                     " room " + std::to_string(room),
                                 [&](Bytes& left) -> std::int64_t {
                                     std::vector<std::uint64_t> gfns;
                                     auto status = model::setup_table(world_, domid, frames, gfns);
                                     for (std::size_t i = 0; i < gfns.size() && i < room; ++i) {
                                         put_word(after, i * bytes, gfns[i]);
                                     }
                                     // At 32 bits nobody is told (measured).
                                     if (gfns.size() > room && width_ == Width::k64) {
                                         status = -5;  // bad_virt_addr
                                     }
                                     put_at(left, 8, status);
                                     return 0;
                                 });
        made.written = [whole = made.written, listed = holds(list, std::move(after))] {
            return whole() + listed();
        };
        return made;
    }
    Made query_size() {
        const std::uint16_t domid = a_domid();
        Bytes said = noise(16);
        put_at(said, 0, domid);
        return grant_struct(6, a_count(), said, "dom " + std::to_string(domid),
                            [&](Bytes& left) -> std::int64_t {
                                const auto status = model::query_size(world_, domid);
                                put_at(left, 12, status);
                                if (status == 0) {
                                    put_at(left, 4, world_.grants.frames);
                                    put_at(left, 8, era_.grant_frames());
                                }
                                return 0;
                            });
    }
    Made set_version() {
        const auto wanted = static_cast<std::uint32_t>(
            chance(8) ? pick({0u, 3u, 0x8000'0001u, 0xffff'ffffu}) : 1 + below(2));
        Bytes said(4);
        put_at(said, 0, wanted);
        return grant_struct(8, a_count(), said, hex(wanted), [&](Bytes& left) {
            const auto result = model::set_version(world_, wanted);
            put_at(left, 0, world_.grants.version);
            return result;
        });
    }
    Made get_version() {
        const std::uint16_t domid = a_domid();
        Bytes said = noise(8);
        put_at(said, 0, domid);
        return grant_struct(10, a_count(), said, "dom " + std::to_string(domid),
                            [&](Bytes& left) -> std::int64_t {
                                const auto version = model::get_version(world_, domid);
                                if (version < 0) return version;
                                put_at(left, 4, static_cast<std::uint32_t>(version));
                                return 0;
                            });
    }
    // transfer, unmap_and_replace, get_status_frames, cache_flush and others.
    Made grant_refused() {
        const auto op = pick({3u, 4u, 7u, 9u, 12u, 12u | 1u << 12, 13u, 14u, 0x7fff'ffffu});
        return grant_struct(op, below(3), noise(40), "", [](Bytes&) { return std::int64_t{0}; });
    }

    // ---- making them ----------------------------------------------------------------------------
    void step() {
        // The guest itself writes to a page of its own now and then.
        if (chance(3)) {
            const std::uint64_t gfn = pick(kGfns), at = below(512) * 8, content = random_();
            const auto kind = world_.at(gfn).kind;
            if (kind == model::Cell::Kind::kRam || kind == model::Cell::Kind::kMapped) {
                std::memcpy(&world_.page(gfn)->bytes[at], &content, sizeof content);
                guest_.poke(vmm::Gva{(gfn << vmm::kPageShift) + at}, content);
            }
        }
        while (chance(2)) {
            write_entry();
        }
        // What the hypervisor keeps in shared_info is not looked at here, but can be copied.
        std::memcpy(world_.own_page(model::kSharedInfoPage)->bytes.data(),
                    ports_.own_page(kSharedInfoPage), vmm::kPageSize);
        edge_used_ = false;
        if (era_.has_multicall() && chance(8)) {
            list();
            return;
        }
        const Made made = make_one();
        const std::int64_t got = run(made);
        check(made, static_cast<std::int64_t>(word(static_cast<std::uint64_t>(got))));
        compare_tables(2, made.text);
    }

    void list() {
        std::vector<Made> calls;
        const std::uint64_t bytes = width_ == Width::k64 ? 64 : 32;
        in_list_ = true;
        for (std::uint64_t n = 1 + below(5); n > 0 && !world_.crashed; --n) {
            calls.push_back(make_one());
        }
        in_list_ = false;
        const vmm::Gva at = guest_.reserve(calls.size() * bytes);
        for (std::size_t i = 0; i < calls.size(); ++i) {
            multicall_entry<W64> entry{.op = calls[i].number, .result = random_(), .args = {}};
            for (std::size_t a = 0; a < 5; ++a) {
                entry.args[a] = calls[i].args[a];
            }
            guest_.poke_wide<multicall_entry>(at + i * bytes, entry);
        }
        const std::int64_t whole = run({.name = "a multicall",
                                        .text = "a multicall",
                                        .number = HYPERVISOR_multicall,
                                        .args = {at.value, calls.size(), 1, 2, 3}});
        if (whole != 0) complain("a multicall", "answered " + std::to_string(whole));
        for (std::size_t i = 0; i < calls.size(); ++i) {
            const auto entry = guest_.get_wide<multicall_entry>(at + i * bytes);
            calls[i].text = "in a list: " + calls[i].text;
            check(calls[i], static_cast<std::int64_t>(entry.result));
        }
        compare_tables(2, "a multicall");
    }

    void check(const Made& made, std::int64_t got) {
        if (closely_) last_ = made.text;
        const auto expected =
            static_cast<std::int64_t>(word(static_cast<std::uint64_t>(made.expected)));
        const std::string number = made.expected > 0 ? "positive" : std::to_string(made.expected);
        ++tallies_[made.name].ends[made.end.empty() ? number : made.end];
        reached_.called.emplace(made.number, made.sub_op);
        if (made.expected != -XEN_ENOSYS) reached_.there.emplace(made.number, made.sub_op);
        if (got != expected) {
            complain(made.text, "model says " + std::to_string(made.expected) + ", the product " +
                                    std::to_string(got));
        } else if (made.keeps_progress && stopped_) {
        } else if (const std::string wrong = made.written(); !wrong.empty()) {
            complain(made.text, "what was written back differs" + wrong);
        }
    }

    // To its end, with whatever preemption comes; the result as the register shows it.
    std::int64_t run(const Made& made) {
        cpu_.load(made.number, made.args, random_);
        std::uint64_t done = 0;
        stopped_ = false;
        const std::atomic<std::uint32_t> wanted{chance(8) ? 1u : 0u};
        PreemptPolicy policy{.every = 0, .at = {}, .after_us = kNoDeadline};
        if (chance(2)) policy.every = static_cast<std::uint32_t>(1 + below(4));
        if (chance(4)) policy.at = {1 + below(4), 5 + below(4)};
        Preemption preemption(wanted, policy);
        for (unsigned entries = 0; entries < 1000; ++entries) {
            cpu_.scramble_upper_halves(random_);
            const Request request = read_request(cpu_);
            const Reply reply = run_hypercall(guest_.domain, guest_.access, preemption,
                                              static_cast<unsigned>(below(2)), request);
            if (const auto* finish = std::get_if<Finish>(&reply)) return finish->result;
            const auto* again = std::get_if<Reissue>(&reply);
            if (again == nullptr) {
                complain(made.text, "it blocks");
                return 0;
            }
            write_reissue(cpu_, request.width, *again);
            stopped_ = true;
            ++tallies_[made.name].stops;
            if (made.stops.unit != 0) check_stop(made, request, done);
        }
        complain(made.text, "it never ends");
        return 0;
    }

    // What counts of a hypercall's number, and all that is left of it in a continuation.
    std::uint64_t number_of(const abi::Request& request) const {
        return cpu_.wide_numbers ? request.number : request.number & UINT32_MAX;
    }
    // A list goes on by its pointer and its count, whose upper half was never looked at, and so
    // does the sub-op's.
    void check_stop(const Made& made, const abi::Request& before, std::uint64_t& done) {
        const abi::Request now = read_request(cpu_);
        const std::uint64_t count = made.args[2] & UINT32_MAX;
        const std::uint64_t at = (now.args[1] - word(made.args[1])) / made.stops.unit;
        if (at <= done || at >= count || at % made.stops.step != 0) {
            complain(made.text, "stops at " + std::to_string(at));
        }
        auto expected = before.args;
        expected[0] = made.args[0] & UINT32_MAX;
        expected[1] = word(made.args[1] + at * made.stops.unit);
        expected[2] = count - at;
        if (now.number != number_of(before) || now.args != expected) {
            complain(made.text, "registers differ at " + std::to_string(at));
        }
        done = at;
    }

    // The first frames of the grant table and its statuses.
    void compare_tables(std::uint32_t frames, const std::string& what) {
        for (std::uint32_t n = 0; n < frames; ++n) {
            for (const std::uint32_t own :
                 {model::kFirstGrantFrame + n, model::kFirstStatusFrame + n / 8}) {
                const std::byte* const product = ports_.own_page(product_page(own));
                if (own >= model::kFirstStatusFrame && world_.grants.version == 1) continue;
                const auto found = world_.own.find(own);
                if (found == world_.own.end()) continue;
                auto& bytes = found->second->bytes;
                for (std::size_t at = 0; at < bytes.size(); ++at) {
                    if (std::memcmp(&bytes[at], product + at, bytes.size() - at) == 0) break;
                    const auto there = std::to_integer<std::uint8_t>(product[at]);
                    if (there == bytes[at]) continue;
                    if (!only_forged_marks_differ(own, at, there, bytes[at])) {
                        complain(what, "own page " + hex(own) + " differs at " + hex(at) + ": " +
                                           hex(there) + " instead of " + hex(bytes[at]));
                        return;
                    }
                    bytes[at] = there;
                }
            }
        }
    }
    // That an entry is in use is for the hypervisor to say. Where the guest has said so itself, a
    // list that names the entry may take that back even when Xen does not come as far as to it.
    bool only_forged_marks_differ(std::uint32_t own, std::size_t at, std::uint8_t product,
                                  std::uint8_t model) const {
        const bool wide = world_.grants.version == 2;
        if (wide != (own >= model::kFirstStatusFrame)) return false;
        const std::size_t unit = wide ? 2 : 8;
        if (at % unit != 0) return false;
        const std::size_t page = own - (wide ? model::kFirstStatusFrame : model::kFirstGrantFrame);
        const auto use = world_.grants.uses.find(
            static_cast<std::uint32_t>((page * vmm::kPageSize + at) / unit));
        unsigned needed = 0;
        if (use != world_.grants.uses.end()) {
            needed = use->second.writers != 0 ? GTF_reading | GTF_writing : GTF_reading;
        }
        constexpr unsigned kMarks = GTF_reading | GTF_writing;
        const unsigned differ = product ^ model;
        return (differ & ~kMarks) == 0 && (product & differ) == 0 && (needed & ~product) == 0;
    }
    void compare_grants() {
        auto& table = guest_.domain.grants();
        const model::GrantState& grants = world_.grants;
        if (table.version() != grants.version || table.frames() != grants.frames) {
            complain("the grant table", "has version " + std::to_string(table.version()) +
                                            " and frames " + std::to_string(table.frames()));
        }
        compare_tables(era_.grant_frames(), "at the end");
        const auto& maps = guest_.domain.grant_maps();
        if (maps.handles() != grants.maps.size()) complain("the handles", "are of another number");
        for (std::uint32_t handle = 0; handle < grants.maps.size(); ++handle) {
            const model::Mapping& mapping = grants.maps[handle];
            const auto there = maps.mapping(handle);
            if (there.flags != mapping.flags || there.ref != mapping.ref ||
                there.domid != mapping.domid) {
                complain("handle " + std::to_string(handle), "is of something else");
            }
        }
        for (std::size_t i = 0; i < offered_.size(); ++i) {
            const auto found = grants.offers.find(static_cast<std::uint32_t>(8 + i));
            if (std::memcmp(found->second.frame->bytes.data(), offered_[i]->data(),
                            vmm::kPageSize) != 0) {
                complain("what domain 0 offered", "differs");
            }
        }
    }

    void compare_worlds() {
        compare_grants();
        auto& physmap = guest_.domain.physmap();
        const auto accounts = physmap.accounts();
        if (accounts.current != world_.current || accounts.highest_gfn != world_.highest) {
            complain("the accounts", hex(accounts.current) + " and " + hex(accounts.highest_gfn) +
                                         " instead of " + hex(world_.current) + " and " +
                                         hex(world_.highest));
        }
        for (const auto& [gfn, cell] : world_.changed) {
            using model::Cell;
            if (physmap.is_mapped(gfn) != (cell.kind != Cell::Kind::kNothing) ||
                physmap.has_ram(gfn) != (cell.kind == Cell::Kind::kRam)) {
                complain("gfn " + hex(gfn), "the map differs");
            } else if (cell.kind == Cell::Kind::kRam || cell.kind == Cell::Kind::kMapped) {
                static const model::Frame kZeroes;
                const model::Frame& frame = cell.frame != nullptr ? *cell.frame : kZeroes;
                const auto there = guest_.get<std::array<std::uint8_t, vmm::kPageSize>>(
                    vmm::Gva{gfn << vmm::kPageShift});
                if (there != frame.bytes) complain("gfn " + hex(gfn), "its content differs");
            }
        }
        for (const auto& [gfn, type] : world_.types) {
            if (static_cast<std::uint16_t>(physmap.mem_type(gfn)) != type) {
                complain("gfn " + hex(gfn), "its type differs");
            }
        }
        if (physmap.modified_pages() != world_.modified) {
            complain("the modified pages", std::to_string(physmap.modified_pages()) +
                                               " instead of " + std::to_string(world_.modified));
        }
        if (guest_.domain.quirks().latched != world_.latched) complain("the latch", "differs");
        const auto areas = guest_.domain.memory_map().entries();
        const auto same = [](const MapEntry& a, const model::Area& b) {
            return a.base == b.base && a.size == b.size && a.type == b.type;
        };
        if (!std::ranges::equal(areas, world_.areas, same)) complain("the memory map", "differs");
        const auto compare_place = [&](std::uint32_t own) {
            const auto at = world_.where.find(own);
            const std::uint64_t expected = at == world_.where.end() ? kNoGfn : at->second;
            if (physmap.gfn_of_own(product_page(own)) != expected) {
                complain("own page " + hex(own), "is elsewhere");
            }
        };
        compare_place(model::kSharedInfoPage);
        for (std::uint32_t frame = 0; frame < era_.grant_frames(); ++frame) {
            compare_place(model::kFirstGrantFrame + frame);
            compare_place(model::kFirstStatusFrame + frame / 8);
        }
        for (std::uint32_t index = 0; index < 39; ++index) {
            if (guest_.domain.params().peek(index) != world_.params[index]) {
                complain("param " + std::to_string(index), "differs");
            }
        }
        for (unsigned vcpu = 0; vcpu < 2; ++vcpu) {
            if (guest_.domain.vcpu(vcpu).upcall_vector != world_.vectors[vcpu]) {
                complain("vCPU " + std::to_string(vcpu), "its vector differs");
            }
        }
    }

    void complain(const std::string& what, const std::string& why) {
        if (!complaint_.empty()) return;
        complaint_ = "sequence " + std::to_string(number_) + ", " + std::string(profile_.name) +
                     ", " + (width_ == Width::k64 ? "64" : "32") + "-bit, call " +
                     std::to_string(call_) + ": " + what + ": " + why;
    }

    const std::uint64_t number_;
    const bool closely_;
    std::mt19937_64 random_;
    const Profile& profile_;
    const Era era_;
    const Width width_;
    const QuirkMode quirks_;
    const bool device_model_;
    FakePorts& ports_;
    std::vector<std::unique_ptr<std::array<std::uint8_t, vmm::kPageSize>>> offered_;
    TestDomain guest_;
    World world_;
    GuestCpu cpu_;
    bool edge_ = false;
    bool in_list_ = false;
    bool edge_used_ = false;  // by the call, or the list of calls, that is being made
    bool stopped_ = false;    // the call, or the list of calls, that was made last
    Tallies tallies_;
    Reached reached_;
    unsigned call_ = 0;
    std::string last_;  // the call that was made last
    std::string complaint_;
};

struct Options {
    std::uint64_t calls = 1'000'000;
    std::uint64_t seed = 0;
    std::optional<std::uint64_t> sequence;
    bool counts = false;
};

// So many calls have all sub-ops among them.
constexpr std::uint64_t kCallsForAll = 200'000;

// How many sub-ops of the table nobody called, or nobody had although it says that some do.
std::uint64_t not_reached(const Reached& all) {
    constexpr std::uint32_t kFamilies[] = {HYPERVISOR_memory_op, HYPERVISOR_grant_table_op,
                                           HYPERVISOR_hvm_op};
    std::uint64_t missing = 0;
    for (const Operation& operation : operations()) {
        if (std::ranges::find(kFamilies, operation.hypercall) == std::end(kFamilies)) continue;
        const std::pair<std::uint64_t, std::uint64_t> key{operation.hypercall, operation.sub_op};
        const bool absent = operation.standing == Standing::kAbsent;
        if (all.called.contains(key) && (absent || all.there.contains(key))) continue;
        ++missing;
        std::printf("FAIL %s was not reached\n", std::string(operation.name).c_str());
    }
    return missing;
}

int run(const Options& options) {
    std::printf("model: seed %" PRIu64 "\n", options.seed);
    std::fflush(stdout);
    std::atomic<std::uint64_t> next{0}, calls{0}, differences{0};
    std::mutex printing;
    Tallies tallies;
    Reached all;
    const auto work = [&] {
        FakePorts ports;
        ports.keeps_pages = true;
        while (calls < options.calls && differences < 20) {
            const std::uint64_t number = options.sequence.value_or(next++);
            Sequence sequence(options.seed, number, ports, options.sequence.has_value());
            calls += sequence.run();
            const std::scoped_lock merging(printing);
            all.called.insert(sequence.reached().called.begin(), sequence.reached().called.end());
            all.there.insert(sequence.reached().there.begin(), sequence.reached().there.end());
            if (options.counts) {
                for (const auto& [name, tally] : sequence.tallies()) {
                    for (const auto& [end, times] : tally.ends) {
                        tallies[name].ends[end] += times;
                    }
                    tallies[name].stops += tally.stops;
                }
            }
            if (!sequence.complaint().empty()) {
                ++differences;
                std::printf("FAIL seed %" PRIu64 ", %s\n", options.seed,
                            sequence.complaint().c_str());
            }
            if (options.sequence) return;
        }
    };
    std::vector<std::thread> threads;
    const unsigned count = options.sequence ? 1 : std::max(1u, std::thread::hardware_concurrency());
    for (unsigned n = 0; n < count; ++n) {
        threads.emplace_back(work);
    }
    for (auto& thread : threads) {
        thread.join();
    }
    for (const auto& [name, tally] : tallies) {
        std::printf("%s:", name.c_str());
        for (const auto& [end, times] : tally.ends) {
            std::printf(" %s %" PRIu64, end.c_str(), times);
        }
        std::printf("; stopped %" PRIu64 "\n", tally.stops);
    }
    if (!options.sequence && calls >= kCallsForAll) differences += not_reached(all);
    const bool prepared = !testing::UnitTest::GetInstance()->Failed();
    std::printf("model: seed %" PRIu64 ", %" PRIu64 " calls, %" PRIu64 " differences\n",
                options.seed, calls.load(), differences.load());
    return differences == 0 && prepared ? 0 : 1;
}

}  // namespace
}  // namespace xenshim::tests

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    xenshim::tests::Options options;
    options.seed = std::random_device()();
    const char* const is_long = std::getenv("XENOLITH_LONG");
    if (is_long != nullptr && std::strcmp(is_long, "yes") == 0) options.calls *= 10;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string option = argv[i];
        const std::uint64_t value = std::strtoull(argv[i + 1], nullptr, 0);
        if (option == "--calls") {
            options.calls = value;
        } else if (option == "--seed") {
            options.seed = value;
        } else if (option == "--sequence") {
            options.sequence = value;
        } else if (option == "--counts") {
            options.counts = value != 0;
        } else {
            std::fprintf(stderr, "model: what is %s?\n", option.c_str());
            return 2;
        }
    }
    return xenshim::tests::run(options);
}
