// The trace file: a header, then records, all little-endian and a multiple of 8 bytes long.
// docs/trace.md describes it for other readers. Numbers here are those of the file: a change that
// old readers would misread makes a new kVersion.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "xenshim/abi/call.h"
#include "xenshim/abi/numbers.h"

namespace xenshim::trace {

inline constexpr std::array<char, 8> kMagic = {'X', 'E', 'N', 'O', 'T', 'R', 'C', '\n'};
inline constexpr std::uint32_t kVersion = 1;

struct FileHeader {
    std::array<char, 8> magic = kMagic;
    std::uint32_t version = kVersion;
    std::uint32_t header_bytes = 128;  // where the records begin
    std::uint64_t started_ns = 0;      // CLOCK_REALTIME of the records' time 0
    std::uint32_t vcpus = 0;
    std::uint16_t domid = 0;
    std::uint8_t legacy_quirks = 0;  // 1: XenServer's operations for its old Windows drivers exist
    std::uint8_t pad = 0;
    std::array<char, 32> profile{};    // name, zero-filled
    std::array<char, 16> transport{};  // likewise
    std::array<std::uint8_t, 48> reserved{};
};
static_assert(sizeof(FileHeader) == 128 && std::has_unique_object_representations_v<FileHeader>);

enum class Kind : std::uint8_t {
    kCall = 1,     // one entry of a hypercall
    kDropped = 2,  // `value` calls of this vCPU found no room and are missing before this place
    kRestart = 3,  // the guest was started anew
    kEnd = 4,      // the last record: `value` records of all kinds come before it
};

enum class Ending : std::uint8_t {
    kFinish = 0,    // the call is over: `result`
    kContinue = 1,  // it goes on with the registers that follow
    kBlock = 2,     // it is over (result 0) and the vCPU sleeps
};

// What every record begins with.
struct RecordHead {
    std::uint16_t bytes = 0;  // of the whole record
    Kind kind{};
    Ending ending{};  // kCall
    std::uint16_t vcpu = 0;
    std::uint8_t word_bytes = 0;  // kCall: 4 or 8, the caller's width
    std::uint8_t cpl = 0;         // kCall
    std::uint64_t time_ns = 0;    // since the trace began; of a call: its entry
};
static_assert(sizeof(RecordHead) == 16);

// kCall. Behind it: for kContinue the five argument registers that the guest goes on with; then
// `in_bytes` of the argument structure as the handler read it; then `out_bytes` as it wrote them.
// Each part is zero-filled to a multiple of 8.
struct CallRecord {
    RecordHead head;
    std::uint64_t number = 0;
    std::array<std::uint64_t, 5> args{};
    std::int64_t result = 0;
    std::uint32_t duration_ns = 0;  // all ones: at least that
    std::uint16_t in_bytes = 0;
    std::uint16_t out_bytes = 0;
};
static_assert(sizeof(CallRecord) == 80 && std::has_unique_object_representations_v<CallRecord>);

// All others.
struct MarkRecord {
    RecordHead head;
    std::uint64_t value = 0;
};
static_assert(sizeof(MarkRecord) == 24);

constexpr std::size_t padded(std::size_t bytes) {
    return (bytes + 7) & ~std::size_t{7};
}

// How much of the argument structure is kept: the largest that a guest may pass (altp2m's 80
// bytes), and of a multicall its first entries.
inline constexpr std::size_t kMostBytes = 80;
inline constexpr std::size_t kMostMulticallBytes = 512;
inline constexpr std::size_t kMostRecordBytes =
    sizeof(CallRecord) + sizeof(CallRecord::args) + kMostMulticallBytes + padded(kMostBytes);

// The argument that points to the hypercall's structure or array; none: -1.
constexpr int structure_argument(std::uint64_t number) {
    switch (number) {
        case abi::HYPERVISOR_multicall: return 0;
        case abi::HYPERVISOR_memory_op:
        case abi::HYPERVISOR_xen_version:
        case abi::HYPERVISOR_grant_table_op:
        case abi::HYPERVISOR_sched_op:
        case abi::HYPERVISOR_event_channel_op:
        case abi::HYPERVISOR_physdev_op:
        case abi::HYPERVISOR_hvm_op: return 1;
        case abi::HYPERVISOR_vcpu_op:
        case abi::HYPERVISOR_dm_op: return 2;
        default: return -1;
    }
}

constexpr std::size_t most_bytes(std::uint64_t number) {
    return number == abi::HYPERVISOR_multicall ? kMostMulticallBytes : kMostBytes;
}

}  // namespace xenshim::trace
