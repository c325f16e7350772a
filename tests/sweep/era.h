// Xen's releases as its history tells them, for tests that must not believe xenshim/abi/profile: a
// profile's name is taken apart here, and what it stands for is written a second time, by hand,
// from xen-abi.md 2.3, 2.4 and 2.9.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace xenshim::tests {

struct Era {
    int release = 0;  // 417 is 4.17, 300 is 3.0.x
    bool candidate = false;
    bool xenserver = false;
    int product = 0;  // XenServer's own number: 71 is 7.1

    explicit Era(std::string_view profile) {
        if (profile.starts_with("xenserver-")) {
            xenserver = true;
            product = profile[10] * 10 + profile[12] - '0' * 11;
            release = product == 62 ? 401 : product == 65 ? 404 : product < 80 ? 407 : 411;
            return;
        }
        const std::string text(profile.substr(4));
        char* rest = nullptr;
        release = static_cast<int>(std::strtol(text.c_str(), &rest, 10)) * 100;
        release += static_cast<int>(std::strtol(rest + 1, &rest, 10));
        candidate = std::string_view(rest) == "-rc";
    }

    // MEMOP_EXTENT_SHIFT: 4 until 36e3044132.
    unsigned memory_shift() const { return release < 304 ? 4 : 6; }
    // Until 40a69f4cf3 (3.0.4) the structure's extent_start moved as well.
    bool handle_moves() const { return release == 300; }
    // XENMAPSPACE_gmfn_range came with a04811a315, in the guest's structure; ade868939f moved its
    // progress into the register.
    bool has_range() const { return release >= 402; }
    bool range_in_struct() const { return release == 402 || release == 403; }
    // add_to_physmap_batch's cursor: 9a80d50567.
    bool has_batch() const { return release >= 404; }
    // 1c4e651d3f.
    bool grants_continue() const { return release >= 400; }
    bool has_grant_swap() const { return release >= 402; }
    bool has_grant_maps() const { return release >= 400; }
    // XSA-27 in the stable releases of its time, e8b87b57b4, and dm_op.
    enum class HvmMemory { kWhole, kStruct, kUnshifted, kGone };
    HvmMemory hvm_memory() const {
        if (release >= 409 || (xenserver && product >= 75)) return HvmMemory::kGone;
        if (release >= 405) return HvmMemory::kUnshifted;
        return release >= 400 ? HvmMemory::kStruct : HvmMemory::kWhole;
    }
    bool has_dm_op() const { return hvm_memory() == HvmMemory::kGone; }
    // XSA-344, in all that it was given to.
    bool reset_continues() const { return release >= 410; }
    // What a hypervisor of the time gives a guest whose configuration names no number.
    std::uint32_t grant_frames() const { return release >= 410 ? 64 : 32; }
    // XenServer's patches for its old Windows drivers, until 7.6.
    bool legacy_windows() const { return xenserver && product <= 76; }
    // Its xen-hvm-disable-console-params, up to 6.2.
    bool hides_console() const { return xenserver && product <= 62; }
    // Whether a 64-bit caller's whole RAX is the hypercall's number, not EAX alone: 4.8's rewrite
    // of the entry in C.
    bool wide_numbers() const { return release >= 408; }
    // 198a2bc6f1.
    bool has_multicall() const { return release >= 416; }
};

}  // namespace xenshim::tests
