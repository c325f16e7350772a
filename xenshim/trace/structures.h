// The argument structures (abi/structs.h) member by member, for showing: names and places at both
// widths, and what kind of value each member holds.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "xenshim/abi/place.h"

namespace xenshim::trace {

enum class Format : std::uint8_t {
    kDecimal,
    kSigned,
    kHex,
    kAddress,  // linear: where a guest's linker put something
    kPlace,    // likewise, as a gfn or an offset
    kTime,     // ns; another one in every run
    kDomid,
    kSpace,   // XENMAPSPACE_*
    kParam,   // HVM_PARAM_*
    kReason,  // SHUTDOWN_*
    kVirq,    // VIRQ_*
    kText,    // characters, up to a zero
    kBytes,
};

struct Field {
    std::string_view name;
    abi::Place place;
    Format format = Format::kDecimal;
};

struct Structure {
    std::string_view name;  // as in Xen's headers
    abi::Sizes sizes;
    std::span<const Field> fields;
    bool array = false;  // argument 2 counts them
};

// What argument 1 (of vcpu_op, argument 2) of an operation points to; null: nothing that we can
// show.
const Structure* structure_of(std::uint64_t hypercall, std::uint64_t sub_op);
std::span<const Structure* const> structures();

}  // namespace xenshim::trace
