// A GUEST.cfg of any content becomes settings, or a message that names its line.
#include "vmm/cli/config/xlcfg.h"

#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace vmm::config;
    static constexpr std::string_view kProfiles[] = {"xen-4.17", "xen-3.3"};
    const std::string text(data, data + size);
    const auto file = parse_xl("f", text);
    if (!file) {
        FUZZ_CHECK(!file.error().what.empty());
        return 0;
    }
    for (const XlSetting& setting : file->settings) {
        FUZZ_CHECK(!setting.key.empty() && setting.line > 0);
    }
    for (const auto strictness : {Strictness::kWarn, Strictness::kRefuse}) {
        VmConfig vm;
        std::vector<std::string> warnings;
        const auto applied = apply_xl(*file, strictness, kProfiles, vm, warnings);
        FUZZ_CHECK(applied || !applied.error().what.empty());
    }
    return 0;
}
