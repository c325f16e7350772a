// Random sequences of calls, valid and hostile, against the model (world.h) and the product: both
// widths, every profile, with and without forced preemption, alone and in multicalls. After each
// call the answers are compared, and what was written back; after each sequence the whole worlds.
//
//   model [--calls N] [--seed N] [--sequence N]
//
// Prints the seed. On a difference: the seed, the sequence and the call, and both answers;
// --seed with --sequence repeats that one, and compares the whole worlds after each call.
#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include "tests/fakes/test_domain.h"
#include "tests/model/world.h"
#include "tests/sweep/guest_cpu.h"

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

class Sequence {
  public:
    Sequence(std::uint64_t seed, std::uint64_t number, FakePorts& ports, bool closely)
        : number_(number),
          closely_(closely),
          random_(seed * 0x9e37'79b9'7f4a'7c15 + number),
          profile_(pick_profile()),
          era_(profile_.name),
          width_(chance(2) ? Width::k64 : Width::k32),
          ports_(ports),
          guest_(width_, options()),
          world_(era_, width_ == Width::k64,
                 {.limit_gfn = ports.limit_gfn, .starts_with_ram = starts_with_ram, .vcpus = 2}) {
        cpu_.width = width_;
        world_.current = 0x8011;
        world_.maximum = 0x8100;
        world_.highest = 0xfefff;
        world_.vectors.resize(2);
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

  private:
    // A call as registers, what the model answers, and what to look at afterwards.
    struct Made {
        std::string text;
        std::uint64_t number = 0;
        std::array<std::uint64_t, 5> args{};
        std::int64_t expected = 0;
        // What is wrong with what was written back; asked when all is over.
        std::function<std::string()> written = [] { return std::string(); };
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
            {"gmfn_range", [](const Era& e) { return e.has_range(); }, 3, &Sequence::range},
            {"remove_from_physmap", always, 2, &Sequence::remove},
            {"account", always, 2, &Sequence::account},
            {"set_param", always, 3, &Sequence::set_param},
            {"get_param", always, 3, &Sequence::get_param},
            {"set_evtchn_upcall_vector", [](const Era& e) { return e.release >= 406; }, 1,
             &Sequence::set_upcall_vector},
            {"get_mem_type", [](const Era& e) { return e.release >= 401; }, 1,
             &Sequence::get_mem_type},
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
            made.text = std::string(kind.name) + " " + made.text;
            return made;
        }
    }

    Made memory(std::uint64_t cmd, vmm::Gva at, std::int64_t expected, std::string text) {
        return {.text = "cmd " + hex(cmd) + " " + std::move(text),
                .number = HYPERVISOR_memory_op,
                .args = {cmd, at.value, random_(), random_(), random_()},
                .expected = expected};
    }

    Made extents() {
        const std::uint32_t op = pick({0u, 1u, 1u, 6u, 6u});
        model::Extents arg{.domid = a_domid()};
        const std::uint64_t listed = below(13);
        for (std::uint64_t i = 0; i < listed; ++i) {
            arg.list.push_back(word(a_gfn()));
        }
        arg.count = listed;
        if (op == 0) {
            // As many as to reach the maximum now and then.
            if (chance(6)) arg.count = below(300);
        }
        if (chance(30)) arg.order = pick({10u, 18u, 64u, 0xffff'ffffu});
        if (op == 6 && chance(20)) arg.flags = pick({1u << 16, 20u, 0x1f000000u | 31u});
        if (chance(40) && era_.release >= 403) arg.count = pick({0x0400'0000ull, 0xffff'ffffull});
        // A list whose rest lies where nothing is.
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
        return memory(cmd, at, reservation(cmd, seen_arg), text + "]");
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
        if (era_.release >= 409 && chance(20)) arg.space = pick({4u, 5u});
        arg.idx = arg.space == 2   ? word(a_gfn())
                  : arg.space == 1 ? a_grant_frame()
                                   : (chance(8) ? 1 : 0);
        arg.gfn = word(chance(40) && width_ == Width::k64 ? UINT64_MAX : a_gfn());
        return place(XENMEM_add_to_physmap, arg,
                     command(XENMEM_add_to_physmap, era_.release >= 404), model::add_to_physmap);
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
        // Where a 32-bit structure keeps the progress a stop makes numbers wrap that else would not:
        // what comes of them depends on the stops, on Xen as well.
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

    Made hvm(std::uint32_t op, vmm::Gva at, std::int64_t expected, std::string text) {
        return {.text = std::move(text),
                .number = HYPERVISOR_hvm_op,
                .args = {op, at.value, random_(), random_(), random_()},
                .expected = expected};
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
        const vmm::Gva at = put_param(p, seen);
        const auto expected = model::set_param(world_, seen ? std::optional(p) : std::nullopt);
        return hvm(HVMOP_set_param, at, expected, text_of(p, seen));
    }
    Made get_param() {
        const auto p = a_param();
        const bool seen = readable();
        const vmm::Gva at = put_param(p, seen);
        std::uint64_t value = p.value;
        const auto expected =
            model::get_param(world_, seen ? std::optional(p) : std::nullopt, value);
        Made made = hvm(HVMOP_get_param, at, expected, text_of(p, seen));
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
        const auto expected =
            model::set_upcall_vector(world_, seen ? std::optional(vcpu) : std::nullopt, vector);
        return hvm(HVMOP_set_evtchn_upcall_vector, at, expected,
                   "vcpu " + std::to_string(vcpu) + " vector " + std::to_string(vector));
    }
    Made get_mem_type() {
        const std::uint16_t domid = a_domid();
        const std::uint64_t gfn = a_gfn();
        const bool seen = readable();
        const vmm::Gva at = seen ? guest_.put(xen_hvm_get_mem_type{
                                       .domid = domid, .mem_type = 0x7777, .pad = 0, .pfn = gfn})
                                 : guest_.unmapped();
        std::uint16_t type = 0x7777;
        const auto expected =
            model::get_mem_type(world_, seen ? std::optional(domid) : std::nullopt, gfn, type);
        Made made = hvm(HVMOP_get_mem_type, at, expected,
                        "dom " + std::to_string(domid) + " gfn " + hex(gfn));
        if (seen) {
            made.written = [this, at, type] {
                const bool same = guest_.get<xen_hvm_get_mem_type>(at).mem_type == type;
                return std::string(same ? "" : "!");
            };
        }
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
        return {.text = "cmd " + hex(command) + " count " + hex(count) + " " + std::move(text),
                .number = HYPERVISOR_grant_table_op,
                .args = {command, at.value, count, random_(), random_()},
                .expected = expected};
    }

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
        const std::int64_t whole = run({.text = "a multicall",
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
        if (got != expected) {
            complain(made.text, "model says " + std::to_string(made.expected) + ", the product " +
                                    std::to_string(got));
        } else if (const std::string wrong = made.written(); !wrong.empty()) {
            complain(made.text, "what was written back differs" + wrong);
        }
    }

    // To its end, with whatever preemption comes; the result as the register shows it.
    std::int64_t run(const Made& made) {
        cpu_.load(made.number, made.args, random_);
        std::uint64_t done = 0;
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
            if (made.stops.unit != 0) check_stop(made, request, done);
        }
        complain(made.text, "it never ends");
        return 0;
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
        if (now.number != before.number || now.args != expected) {
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
    FakePorts& ports_;
    std::vector<std::unique_ptr<std::array<std::uint8_t, vmm::kPageSize>>> offered_;
    TestDomain guest_;
    World world_;
    GuestCpu cpu_;
    bool edge_ = false;
    bool in_list_ = false;
    bool edge_used_ = false;  // by the call, or the list of calls, that is being made
    unsigned call_ = 0;
    std::string last_;  // the call that was made last
    std::string complaint_;
};

struct Options {
    std::uint64_t calls = 1'000'000;
    std::uint64_t seed = 0;
    std::optional<std::uint64_t> sequence;
};

int run(const Options& options) {
    std::printf("model: seed %" PRIu64 "\n", options.seed);
    std::fflush(stdout);
    std::atomic<std::uint64_t> next{0}, calls{0}, differences{0};
    std::mutex printing;
    const auto work = [&] {
        FakePorts ports;
        ports.keeps_pages = true;
        while (calls < options.calls && differences < 20) {
            const std::uint64_t number = options.sequence.value_or(next++);
            Sequence sequence(options.seed, number, ports, options.sequence.has_value());
            calls += sequence.run();
            if (!sequence.complaint().empty()) {
                ++differences;
                const std::scoped_lock lock(printing);
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
        } else {
            std::fprintf(stderr, "model: what is %s?\n", option.c_str());
            return 2;
        }
    }
    return xenshim::tests::run(options);
}
