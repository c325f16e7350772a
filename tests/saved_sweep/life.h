// One life of a guest in this process: a VM as `xenolith run` and `xenolith restore` make it, which
// the test stops where it likes, saves, and lets go on or ends.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "vmm/base/fd.h"
#include "vmm/cli/config/vm_config.h"
#include "vmm/cli/saved_vm.h"
#include "vmm/cli/vm.h"

namespace xenolith::tests {

// What cannot be done: an exception with the reason.
[[noreturn]] void give_up(const std::string& why);

template <class T>
auto need(T result) {
    if (!result) give_up(result.error().what);
    if constexpr (!std::is_void_v<std::remove_cvref_t<decltype(*result)>>)
        return *std::move(result);
}

class Life {
  public:
    // A new guest.
    explicit Life(const vmm::config::VmConfig& config);
    // One that was saved, as `xenolith restore` takes it up in a program whose defaults are
    // `defaults`. `adjust` may change what it goes on with.
    Life(const std::string& file, const vmm::config::VmConfig& defaults,
         const std::function<void(vmm::config::VmConfig&)>& adjust = {});
    ~Life();
    Life(const Life&) = delete;
    Life& operator=(const Life&) = delete;

    vmm::cli::Vm& vm() { return *vm_; }

    // The vCPU's thread, at each stop of a hypercall: true holds the guest there.
    std::function<bool(unsigned vcpu, const xenshim::abi::Reissue& with)> holds_at;
    // The guest stands still: as soon as it could begin (`paused`), or because it was held. Either
    // go_on() or save(file, kEnd) is called in it.
    std::function<void()> stands_still;

    // Until it ends, or is saved for good.
    vmm::cli::RunEnd::Kind run(bool paused);

    void go_on();
    void save(const std::string& file, vmm::cli::AfterSave after);
    void stop();  // it is not wanted any more

    std::string output();  // of the console, by now
    // What is in its memory: a checksum for each page that is not zero. After run(), of a guest
    // that was booted here.
    std::map<std::uint64_t, std::uint64_t> pages();

  private:
    void watch();

    std::unique_ptr<vmm::cli::SavedVm> saved_;
    vmm::Fd sink_;
    std::unique_ptr<vmm::cli::Vm> vm_;
};

// The records in which two files of one guest differ, by name and instance; "memory". `besides`:
// those are not looked at. Nor is what the clock makes of the others, which goes on while a guest
// stands still.
std::vector<std::string> differing_records(const std::string& a, const std::string& b,
                                           const std::set<std::string>& besides);

}  // namespace xenolith::tests
