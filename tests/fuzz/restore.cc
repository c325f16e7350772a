// A saved VM of any content on its way to a machine: `restore FILE` and `receive`, up to where KVM
// is needed, and `inspect --verify`. What is taken is a guest that a machine could be made for, and
// file and stream are taken for the same one.
#include <string>
#include <unistd.h>

#include <sys/mman.h>

#include "migration/format/reader.h"
#include "tests/fakes/saved_vm.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/mend.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/cli/vm_state.h"
#include "vmm/memory/shared_region.h"

namespace {

using vmm::cli::SavedVm;
namespace format = migration::format;

constexpr std::uint64_t kPages = 16;  // of the machine's first region

// One file for all inputs.
std::string file_with(const fakes::Bytes& bytes) {
    static const int fd = ::memfd_create("saved", MFD_CLOEXEC);
    FUZZ_CHECK(::ftruncate(fd, 0) == 0);
    FUZZ_CHECK(::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    return "/proc/self/fd/" + std::to_string(fd);
}

// As `inspect` shows it, and as its part of the guest would read it.
void show(const std::vector<format::Record>& records) {
    for (const format::Record& record : records) {
        for (const migration::Kind& kind : vmm::cli::known_kinds()) {
            if (kind.section.name != record.name) continue;
            const auto shown = kind.show(record.payload, record.version);
            FUZZ_CHECK(shown || !shown.error().empty());
        }
    }
}

void check(const SavedVm& vm) {
    FUZZ_CHECK(!vm.config().name.empty() && vm.config().name.find('/') == std::string::npos);
    FUZZ_CHECK(vm.config().vcpus != 0 && vm.config().memory_bytes != 0);
    FUZZ_CHECK(vm.layout().check(vm.config().memory_bytes));
    FUZZ_CHECK(vm.call_sites().check());
    show(vm.parts());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto input = std::as_bytes(std::span(data, size));
    const auto how = std::to_integer<unsigned>(input.back());
    fakes::Bytes bytes(input.begin(), input.end() - 1);
    if ((how & 1) != 0) xenolith::fuzz::mend(bytes);

    const auto file = SavedVm::open(file_with(bytes));
    FUZZ_CHECK(file || (!file.error().what.empty() && file.error().fault == vmm::Fault::kUser));
    bool whole = false;
    if (file) {
        check(**file);
        whole = (*file)->verify().has_value();
    }

    static const auto ram = vmm::SharedRegion::create("ram", kPages * format::kPageSize);
    FUZZ_CHECK(ram);
    fakes::ByteStream stream(bytes, (how & 4) != 0 ? 13 : format::kChunk);
    const auto received = SavedVm::receive(stream);
    if (!received) {
        // A file's records may come in any order, a stream's memory comes last.
        FUZZ_CHECK(!received.error().what.empty());
        return 0;
    }
    const auto rest = (*received)->receive_rest(
        {{.gfn = 0, .pages = kPages, .fd = ram->fd(), .mapped = ram->data()}});
    if (!rest) return 0;
    check(**received);
    // Behind a file's end there must be nothing; what a link says behind a stream's is not the
    // guest's.
    FUZZ_CHECK(file || stream.left() != 0);
    if (!file) return 0;
    FUZZ_CHECK((*received)->config() == (*file)->config());
    FUZZ_CHECK((*received)->layout() == (*file)->layout());
    FUZZ_CHECK((*received)->parts().size() == (*file)->parts().size());
    FUZZ_CHECK(whole);
    return 0;
}
