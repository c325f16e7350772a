#include "vmm/boot/call_sites.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace vmm::boot {
namespace {

using namespace std::string_view_literals;

constexpr std::uint64_t kFunctionAlignment = 16;
constexpr std::uint64_t kNeighbours = 128;
// Debian's kernels have at most three; an image made of nothing else must not keep us busy.
constexpr std::size_t kTooMany = 256;
constexpr std::size_t kInstruction = 3;
constexpr std::size_t kJump = 5;

constexpr std::string_view kEndbr64 = "\xf3\x0f\x1e\xfa"sv;
constexpr std::string_view kVmcall = "\x0f\x01\xc1"sv;
constexpr std::string_view kVmmcall = "\x0f\x01\xd9"sv;
constexpr std::string_view kJumpRel32 = "\xe9"sv;
constexpr std::string_view kReturn = "\xc3"sv;

// A function that is one of the two instructions and a way out.
struct Candidate {
    bool vmmcall = false;
    bool returns = false;      // by `ret`; otherwise it jumps
    std::uint64_t target = 0;  // virtual address of the jump
    std::uint64_t physical = 0;
};

bool starts_with(std::span<const std::byte> code, std::string_view bytes) {
    return code.size() >= bytes.size() && std::memcmp(code.data(), bytes.data(), bytes.size()) == 0;
}

// Looks only where a function may start: at every 16th byte of the code.
void scan(const Segment& segment, std::span<const std::byte> code, std::vector<Candidate>& found) {
    const std::uint64_t first = -segment.virtual_address % kFunctionAlignment;
    for (std::uint64_t at = first; at < code.size() && found.size() < kTooMany;
         at += kFunctionAlignment) {
        std::uint64_t site = at;
        if (starts_with(code.subspan(site), kEndbr64)) site += kEndbr64.size();
        const auto here = code.subspan(site);
        const bool vmmcall = starts_with(here, kVmmcall);
        if (!vmmcall && !starts_with(here, kVmcall)) continue;

        Candidate candidate{.vmmcall = vmmcall, .physical = segment.physical + site};
        const auto after = here.subspan(kInstruction);
        if (starts_with(after, kReturn)) {
            candidate.returns = true;
        } else if (after.size() >= kJump && starts_with(after, kJumpRel32)) {
            std::int32_t distance = 0;
            std::memcpy(&distance, after.data() + kJumpRel32.size(), sizeof(distance));
            candidate.target = segment.virtual_address + site + kInstruction + kJump +
                               static_cast<std::uint64_t>(std::int64_t{distance});
        } else {
            continue;
        }
        found.push_back(candidate);
    }
}

bool is_code(const Elf& elf, std::uint64_t virtual_address) {
    return std::any_of(elf.segments.begin(), elf.segments.end(), [&](const Segment& s) {
        return s.executable && virtual_address - s.virtual_address < s.file_size;
    });
}

}  // namespace

CallSiteSearch find_call_sites(const Elf& elf, std::span<const std::byte> file) {
    std::vector<Candidate> found;
    for (const Segment& s : elf.segments) {
        if (s.executable) scan(s, file.subspan(s.offset, s.file_size), found);
    }
    if (found.size() >= kTooMany) {
        return {.found = {}, .why_not = "far too many VMCALL and VMMCALL functions"};
    }

    std::vector<CallSites> jumping, returning;
    for (const Candidate& intel : found) {
        if (intel.vmmcall) continue;
        for (const Candidate& amd : found) {
            if (!amd.vmmcall || amd.returns != intel.returns) continue;
            const CallSites pair{.vmcall = Gpa{intel.physical}, .vmmcall = Gpa{amd.physical}};
            if (amd.returns) {
                returning.push_back(pair);
            } else if (amd.target == intel.target && is_code(elf, amd.target)) {
                jumping.push_back(pair);
            }
        }
    }
    if (jumping.size() == 1) return {.found = jumping.front(), .why_not = {}};
    if (jumping.size() > 1) {
        return {.found = {},
                .why_not = std::to_string(jumping.size()) +
                           " pairs of a VMCALL and a VMMCALL function, where one was expected"};
    }
    if (returning.size() > 1) {
        return {.found = {},
                .why_not =
                    "several VMCALL or VMMCALL functions that end in a plain return, "
                    "where one of each was expected"};
    }
    if (returning.size() == 1) {
        const auto [low, high] = std::minmax(returning.front().vmcall, returning.front().vmmcall);
        if (high.value - low.value <= kNeighbours) {
            return {.found = returning.front(), .why_not = {}};
        }
        return {.found = {},
                .why_not =
                    "a VMCALL and a VMMCALL function that end in a plain return, but too "
                    "far apart to belong together"};
    }
    return {.found = {}, .why_not = "no pair of a VMCALL and a VMMCALL function"};
}

}  // namespace vmm::boot
