// A trace file of any content, read in pieces of any size. What the reader lets through holds what
// its callers rely on, and every report made of it comes to an end and is plain text.
#include <cstdlib>
#include <string>

#include "tests/fuzz/input.h"
#include "xenshim/trace/report.h"

namespace {

using namespace xenshim;
using xenolith::fuzz::Input;

vmm::Result<trace::Reader> reader_of(std::span<const std::uint8_t> file, std::size_t piece) {
    return trace::Reader::from(
        [file, at = std::size_t{0},
         piece](std::span<std::byte> to) mutable -> vmm::Result<std::size_t> {
            const std::size_t n = std::min({to.size(), file.size() - at, piece});
            std::memcpy(to.data(), file.data() + at, n);
            at += n;
            return n;
        },
        "f");
}

// Everything up to the end or the first mistake.
void read(std::span<const std::uint8_t> file, std::size_t piece) {
    auto reader = reader_of(file, piece);
    if (!reader) {
        FUZZ_CHECK(!reader.error().what.empty());
        return;
    }
    FUZZ_CHECK(reader->header().profile != nullptr && reader->header().vcpus != 0);
    for (;;) {
        const auto event = reader->next();
        if (!event) {
            FUZZ_CHECK(!event.error().what.empty());
            return;
        }
        if (!*event) return;
        const trace::Event& call = **event;
        FUZZ_CHECK(call.vcpu < reader->header().vcpus);
        if (call.kind != trace::Kind::kCall) continue;
        FUZZ_CHECK(call.request.cpl <= 3 && call.ending <= trace::Ending::kBlock);
        FUZZ_CHECK(call.in.size() <= trace::kMostMulticallBytes);
        FUZZ_CHECK(call.out.size() <= trace::kMostBytes);
    }
}

// What `print` writes of the file; as much as there is before a mistake.
template <class Print>
std::string printed(std::span<const std::uint8_t> file, Print&& print) {
    auto reader = reader_of(file, SIZE_MAX);
    if (!reader) return {};
    char* text = nullptr;
    std::size_t size = 0;
    std::FILE* const to = ::open_memstream(&text, &size);
    FUZZ_CHECK(to != nullptr);
    print(*reader, to);
    std::fclose(to);
    std::string out(text, size);
    std::free(text);  // NOLINT: open_memstream's
    return out;
}

// A guest's bytes never reach the terminal as they are.
bool plain(const std::string& text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // Behind the file: how it is read, and what is asked of it. There, so that a trace is an input.
    if (size == 0) return 0;
    const std::uint8_t how = data[size - 1];
    const std::span file(data, size - 1);
    read(file, how % 2 == 0 ? SIZE_MAX : std::size_t{1} + (how >> 4));

    // One report of it: each walks the whole file.
    const auto style = (how & 2) != 0 ? trace::Style::kStable : trace::Style::kFull;
    const bool json = (how & 4) != 0;
    const auto profiles = abi::profiles();
    const abi::Profile& there = profiles[how % profiles.size()];
    FUZZ_CHECK(plain(printed(file, [&](trace::Reader& from, std::FILE* to) {
        // A mistake in the file ends a report; read() has seen it.
        switch (how >> 3 & 3) {
            case 0: (void)print_calls(from, style, json, to); break;
            case 1: (void)print_sums(from, style, json, to); break;
            case 2: (void)print_chrome(from, to); break;
            default: (void)print_check(from, there, style, json, to); break;
        }
    })));
    return 0;
}
