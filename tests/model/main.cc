// Random sequences of calls, valid and hostile, against the model (world.h) and the product: both
// widths, every profile, with and without forced preemption, alone and in multicalls. After each
// call the answers are compared, and what was written back; after each sequence the whole worlds.
//
//   model [--calls N] [--seed N] [--sequence N]
//
// Prints the seed. On a difference: the seed, the sequence and the call, and both answers;
// --seed with --sequence repeats that one.
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

class Sequence {
  public:
    Sequence(std::uint64_t seed, std::uint64_t number, FakePorts& ports)
        : number_(number),
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
    }
    ~Sequence() {
        std::vector<std::uint64_t> touched(std::begin(kGfns), std::end(kGfns));
        for (std::uint64_t page = 0; page < 32; ++page) {
            touched.push_back(kRangeFirst + page);
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
        for (call_ = 0; call_ < kCallsPerSequence && complaint_.empty(); ++call_) {
            step();
        }
        if (complaint_.empty()) compare_worlds();
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
        // What was written back is right; asked when all is over.
        std::function<bool()> written = [] { return true; };
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
    // The page before the unmapped one, as the list's home.
    void make_edge(const std::vector<std::uint64_t>& words, vmm::Gva at) {
        const std::uint64_t gfn = (TestDomain::kUnmapped >> vmm::kPageShift) - 1;
        if (!edge_) edge_ = ports_.add_ram_page(gfn);
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
        arg.idx = arg.space == 2 ? word(a_gfn())
                  : arg.space == 1
                      ? (chance(8) ? pick({32ull, 64ull, 200ull, 0x8000'0000ull}) : below(4))
                      : (chance(8) ? 1 : 0);
        arg.gfn = word(chance(40) && width_ == Width::k64 ? UINT64_MAX : a_gfn());
        return place(XENMEM_add_to_physmap, arg,
                     command(XENMEM_add_to_physmap, era_.release >= 404), model::add_to_physmap);
    }
    Made range() {
        model::Place arg{.domid = a_domid(),
                         .size = static_cast<std::uint16_t>(below(9)),
                         .space = 3,
                         .idx = kRangeFirst + below(kRangePages),
                         .gfn = kRangeFirst + below(kRangePages)};
        if (chance(20)) arg.idx = word(UINT64_MAX - below(4));
        if (chance(20) && arg.size != 0) arg.gfn = word(UINT64_MAX - 1 - below(4));
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
                return after.value == value && after.index == index;
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
                return guest_.get<xen_hvm_get_mem_type>(at).mem_type == type;
            };
        }
        return made;
    }

    // ---- making them ----------------------------------------------------------------------------
    void step() {
        if (world_.crashed != !ports_.shutdowns.empty()) {
            complain("a crash", world_.crashed ? "is missing" : "that the model knows not of");
            return;
        }
        // The guest itself writes to a page of its own now and then.
        if (chance(3)) {
            const std::uint64_t gfn = pick(kGfns);
            if (world_.at(gfn).kind == model::Cell::Kind::kRam) {
                const std::uint64_t content = random_();
                world_.changed[gfn] = {.kind = model::Cell::Kind::kRam, .content = content};
                guest_.poke(vmm::Gva{gfn << vmm::kPageShift}, content);
            }
        }
        edge_used_ = false;
        if (era_.has_multicall() && chance(8)) {
            list();
            return;
        }
        const Made made = make_one();
        const std::int64_t got = run(made.number, made.args);
        check(made, static_cast<std::int64_t>(word(static_cast<std::uint64_t>(got))));
    }

    void list() {
        std::vector<Made> calls;
        const std::uint64_t bytes = width_ == Width::k64 ? 64 : 32;
        for (std::uint64_t n = 1 + below(5); n > 0; --n) {
            calls.push_back(make_one());
        }
        const vmm::Gva at = guest_.reserve(calls.size() * bytes);
        for (std::size_t i = 0; i < calls.size(); ++i) {
            multicall_entry<W64> entry{.op = calls[i].number, .result = random_(), .args = {}};
            for (std::size_t a = 0; a < 5; ++a) {
                entry.args[a] = calls[i].args[a];
            }
            guest_.poke_wide<multicall_entry>(at + i * bytes, entry);
        }
        const std::int64_t whole = run(HYPERVISOR_multicall, {at.value, calls.size(), 1, 2, 3});
        if (whole != 0) complain("a multicall", "answered " + std::to_string(whole));
        for (std::size_t i = 0; i < calls.size(); ++i) {
            const auto entry = guest_.get_wide<multicall_entry>(at + i * bytes);
            calls[i].text = "in a list: " + calls[i].text;
            check(calls[i], static_cast<std::int64_t>(entry.result));
        }
    }

    void check(const Made& made, std::int64_t got) {
        const auto expected =
            static_cast<std::int64_t>(word(static_cast<std::uint64_t>(made.expected)));
        if (got != expected) {
            complain(made.text, "model says " + std::to_string(made.expected) + ", the product " +
                                    std::to_string(got));
        } else if (!made.written()) {
            complain(made.text, "what was written back differs");
        }
    }

    // To its end, with whatever preemption comes; the result as the register shows it.
    std::int64_t run(std::uint64_t number, const std::array<std::uint64_t, 5>& args) {
        cpu_.load(number, args, random_);
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
                complain("hypercall " + std::to_string(number), "it blocks");
                return 0;
            }
            write_reissue(cpu_, request.width, *again);
        }
        complain("hypercall " + std::to_string(number), "it never ends");
        return 0;
    }

    void compare_worlds() {
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
            } else if (cell.kind == Cell::Kind::kRam &&
                       guest_.get<std::uint64_t>(vmm::Gva{gfn << vmm::kPageShift}) !=
                           cell.content) {
                complain("gfn " + hex(gfn), "its content differs");
            }
        }
        for (std::uint32_t own = 0; own < 8; ++own) {
            const auto at = world_.where.find(own);
            const std::uint64_t expected = at == world_.where.end() ? kNoGfn : at->second;
            if (physmap.gfn_of_own(own) != expected) {
                complain("own page " + std::to_string(own), "is elsewhere");
            }
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
    std::mt19937_64 random_;
    const Profile& profile_;
    const Era era_;
    const Width width_;
    FakePorts& ports_;
    TestDomain guest_;
    World world_;
    GuestCpu cpu_;
    bool edge_ = false;
    bool edge_used_ = false;  // by the call, or the list of calls, that is being made
    unsigned call_ = 0;
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
            Sequence sequence(options.seed, number, ports);
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
