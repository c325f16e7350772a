// Traces in memory and on disk, for tests of what reads and writes them.
#pragma once

#include <array>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "xenshim/trace/report.h"
#include "xenshim/trace/writer.h"

namespace xenshim::fakes {

template <class T>
std::vector<std::byte> bytes(const T& value) {
    const auto view = std::as_bytes(std::span(&value, 1));
    return {view.begin(), view.end()};
}

// A finished call of a 64-bit kernel's; `in`: what its argument points to.
inline trace::Event call(std::uint64_t number, std::array<std::uint64_t, 5> args,
                         std::int64_t result = 0) {
    trace::Event event;
    event.request = {.number = number, .args = args, .width = abi::Width::k64, .cpl = 0};
    event.result = result;
    return event;
}
inline trace::Event call(std::uint64_t number, std::array<std::uint64_t, 5> args,
                         std::vector<std::byte> in) {
    trace::Event event = call(number, args);
    event.in = std::move(in);
    return event;
}

// A name for a file that goes away with the test.
class ScratchFile {
  public:
    ScratchFile() {
        const char* const folder = std::getenv("TMPDIR");
        path_ = std::string(folder != nullptr ? folder : "/tmp") + "/xenolith-trace-XXXXXX";
        const int fd = ::mkstemp(path_.data());
        EXPECT_GE(fd, 0);
        ::close(fd);
    }
    ~ScratchFile() { ::unlink(path_.c_str()); }
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;

    const std::string& path() const { return path_; }
    std::string bytes() const {
        std::ifstream file(path_, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    }

  private:
    std::string path_;
};

// Reads `bytes`, at most `piece` at a time.
inline vmm::Result<trace::Reader> read_bytes(std::string bytes, std::size_t piece = SIZE_MAX) {
    return trace::Reader::from(
        [bytes = std::move(bytes), at = std::size_t{0},
         piece](std::span<std::byte> to) mutable -> vmm::Result<std::size_t> {
            const std::size_t n = std::min({to.size(), bytes.size() - at, piece});
            std::memcpy(to.data(), bytes.data() + at, n);
            at += n;
            return n;
        },
        "memory");
}

// Everything up to the end or the first mistake.
struct ReadBack {
    std::vector<trace::Event> events;
    std::string error;  // empty: none
    bool complete = false;
};
inline ReadBack read_all(vmm::Result<trace::Reader> reader) {
    ReadBack out;
    if (!reader) {
        out.error = reader.error().what;
        return out;
    }
    for (;;) {
        auto event = reader->next();
        if (!event) {
            out.error = event.error().what;
            return out;
        }
        if (!*event) break;
        out.events.push_back(std::move(**event));
    }
    out.complete = reader->complete();
    return out;
}

// What `print` writes to its FILE.
template <class Print>
std::string printed(Print&& print) {
    char* text = nullptr;
    std::size_t size = 0;
    std::FILE* const to = ::open_memstream(&text, &size);
    print(to);
    std::fclose(to);
    std::string out(text, size);
    std::free(text);  // NOLINT: open_memstream's
    return out;
}

}  // namespace xenshim::fakes
