// What a saved file costs beside its bytes: a region of guest RAM, no page of it zero, through the
// writer of migration/format into an AtomicFile, alternates with pwrite (1 MiB at once) and fsync
// of the same bytes into a new file of the same folder.
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <string>
#include <unistd.h>

#include "migration/format/atomic_file.h"
#include "migration/format/writer.h"
#include "tests/bench/pairs.h"
#include "vmm/base/fd.h"
#include "vmm/memory/shared_region.h"

namespace bench {
namespace {

using migration::format::AtomicFile;
using migration::format::Writer;
using vmm::Result;

// The goal is 0.97 of the throughput, and 0.85 is accepted.
constexpr Limit kLimit = {1 / 0.97, 1 / 0.85};
constexpr std::uint64_t kAtOnce = std::uint64_t{1} << 20;

Result<void> save(const std::string& path, const vmm::SharedRegion& ram) {
    AtomicFile file = TRY(AtomicFile::create(path));
    Writer writer(file);
    TRY(writer.start({}, 0, 1, {}, {}));
    TRY(writer.memory(
        {0, {ram.data(), ram.size()}, migration::format::data_of_memfd(ram.fd(), ram.size())}));
    TRY(writer.finish());
    return file.commit();
}

Result<void> plain(const std::string& path, const vmm::SharedRegion& ram) {
    const vmm::Fd fd(::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
    if (!fd) return vmm::errno_error(path);
    for (std::uint64_t at = 0; at < ram.size(); at += kAtOnce) {
        if (::pwrite(fd.get(), ram.data() + at, kAtOnce, static_cast<off_t>(at)) !=
            static_cast<ssize_t>(kAtOnce)) {
            return vmm::errno_error(path);
        }
    }
    if (::fsync(fd.get()) != 0) return vmm::errno_error(path);
    return {};
}

Result<void> run(const std::string& folder, std::uint64_t size, unsigned rounds, bool verdict) {
    const auto ram = TRY(vmm::SharedRegion::create("guest-ram", size));
    std::uint64_t word = 1;
    for (std::uint64_t at = 0; at < size; at += sizeof word) {
        word = word * 6364136223846793005u + 1;
        std::memcpy(ram.data() + at, &word, sizeof word);
    }
    const std::string path = folder + "/bench-save-" + std::to_string(::getpid());
    const auto timed = [&](const auto& how, std::vector<Times>& times) -> Result<void> {
        const Times before = now();
        TRY(how(path, ram));
        times.push_back(now() - before);
        ::unlink(path.c_str());
        return {};
    };
    std::vector<Times> ours, raw, again;
    for (unsigned i = 0; i < rounds; ++i) {
        TRY(timed(plain, raw));
        TRY(timed(save, ours));
        TRY(timed(plain, again));
    }
    print({.name = "save " + std::to_string(size >> 20) + " MiB, over pwrite and fsync",
           .numerator = ours,
           .denominator = raw,
           .control = {raw, again},
           .limit = kLimit,
           .clock = Clock::kWall,
           .verdict = verdict});
    return {};
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    bool smoke = false;
    unsigned rounds = 40;
    std::string folder = ".";
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--smoke") {
            smoke = true;
        } else if (option == "--rounds" && i + 1 < argc) {
            rounds = static_cast<unsigned>(std::stoul(argv[++i]));
        } else if (option == "--folder" && i + 1 < argc) {
            folder = argv[++i];
        } else {
            std::fprintf(stderr, "usage: bench_save [--folder DIR] [--smoke] [--rounds N]\n");
            return 2;
        }
    }
    const auto done =
        bench::run(folder, std::uint64_t{smoke ? 16u : 256u} << 20, smoke ? 3 : rounds, !smoke);
    return bench::exit_status("bench_save", done);
}
