// A kernel of any content: an ELF image, or one packed into a bzImage or a gzip stream. What comes
// out lies inside the file and does not wrap around.
#include "vmm/boot/elf.h"

#include <span>

#include "tests/fuzz/input.h"
#include "vmm/boot/bzimage.h"

namespace {

using namespace vmm::boot;

constexpr std::uint64_t kMostUnpacked = std::uint64_t{1} << 20;

void look_at(std::span<const std::byte> file) {
    const auto elf = parse_elf(file, "f");
    if (!elf) {
        FUZZ_CHECK(!elf.error().what.empty());
        return;
    }
    FUZZ_CHECK(!elf->segments.empty());
    for (const Segment& s : elf->segments) {
        FUZZ_CHECK(s.offset <= file.size() && s.file_size <= file.size() - s.offset);
        FUZZ_CHECK(s.file_size <= s.memory_size && s.memory_size != 0);
        FUZZ_CHECK(s.physical + s.memory_size >= s.physical);
    }
    for (const Flavour flavour : {Flavour::kHvm, Flavour::kPvh}) {
        const auto entry = entry_point(*elf, flavour, "f");
        if (!entry) continue;
        bool inside = false;
        for (const Segment& s : elf->segments) {
            inside = inside || (*entry >= s.physical && *entry - s.physical < s.memory_size);
        }
        FUZZ_CHECK(inside);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto file = std::as_bytes(std::span(data, size));
    look_at(file);
    auto packed = file;
    if (is_bzimage(file)) {
        const auto payload = bzimage_payload(file, "f");
        if (!payload) return 0;
        packed = *payload;
    }
    const auto unpacked = unpack(packed, "f", kMostUnpacked);
    if (!unpacked) return 0;
    const auto inner = unpacked->view();
    FUZZ_CHECK(inner.size() <= kMostUnpacked);
    look_at(inner);
    return 0;
}
