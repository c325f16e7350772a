// The two kinds of guest that the boot loader knows: what the guest's hardware looks like, and so
// which images, tables and entry points fit it. Xen's names for them in xl.cfg: type="pvh", "hvm".
#pragma once

namespace vmm::boot {

enum class Flavour {
    kPvh,  // no platform devices but the local APIC
    kHvm,  // PIC, PIT, RTC, IO-APIC as well
};

}  // namespace vmm::boot
