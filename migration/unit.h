// The parts of a VM whose state moves, as whoever put the VM together lists them: nothing in this
// folder knows one by its name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/base/saved.h"

namespace migration {

// One component of one VM. While no vCPU runs, on the control thread.
struct Unit {
    vmm::saved::Section section{};
    std::uint32_t instance = 0;  // which of several that are alike: a vCPU's index
    // Host-side failures only: a component that cannot say what it is.
    std::function<vmm::Result<std::vector<std::byte>>()> save;
    // Of a component that was made and has done nothing yet. The failure is the stream's: it names
    // the field and the byte, or what the component refuses of it.
    std::function<vmm::Expected<void, std::string>(std::span<const std::byte> bytes,
                                                   std::uint32_t version)>
        load;
};

// `save` gives a T or a Result<T>; `load` takes it and gives Expected<void, std::string>.
template <vmm::saved::State T, class Save, class Load>
Unit make_unit(std::uint32_t instance, Save save, Load load) {
    return {.section = T::kSection,
            .instance = instance,
            .save = [save = std::move(save)]() -> vmm::Result<std::vector<std::byte>> {
                if constexpr (std::is_same_v<std::invoke_result_t<const Save&>, T>) {
                    return vmm::saved::encode(save());
                } else {
                    return vmm::saved::encode(TRY(save()));
                }
            },
            .load = [load = std::move(load)](
                        std::span<const std::byte> bytes,
                        std::uint32_t version) -> vmm::Expected<void, std::string> {
                const T state = TRY(vmm::saved::decode<T>(bytes, version));
                return load(state);
            }};
}

// A component with snapshot() and adopt().
template <vmm::saved::State T, class Component>
Unit unit_of(Component& component, std::uint32_t instance = 0) {
    return make_unit<T>(
        instance, [&component] { return component.snapshot(); },
        [&component](const T& state) { return component.adopt(state); });
}

}  // namespace migration
