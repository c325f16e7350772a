#include "vmm/cli/all_states.h"
#include "vmm/cli/vm_state.h"

namespace vmm::cli {

namespace format = migration::format;

const std::vector<migration::Kind>& known_kinds() {
    static const std::vector<migration::Kind> kKinds = AllStates::kinds();
    return kKinds;
}

format::Known known_sections() {
    std::vector<saved::Section> sections;
    for (const migration::Kind& kind : known_kinds()) {
        sections.push_back(kind.section);
    }
    return sections;
}

}  // namespace vmm::cli
