// A saved VM of any content, patched until its checksums are right: what stands behind them is to
// be read too, and a fuzzer cannot guess them.
#pragma once

#include <algorithm>
#include <cstring>

#include "migration/format/checksum.h"
#include "migration/format/format.h"
#include "tests/fakes/saved_vm.h"

namespace xenolith::fuzz {
namespace detail {

using namespace migration::format;
using fakes::Bytes;

template <class T>
T at(const Bytes& bytes, std::size_t offset) {
    T value{};
    std::memcpy(&value, &bytes[offset], sizeof value);
    return value;
}
template <class T>
void put(Bytes& bytes, std::size_t offset, const T& value) {
    std::memcpy(&bytes[offset], &value, sizeof value);
}
template <class T>
void put_with_checksum(Bytes& bytes, std::size_t offset, T header) {
    header.checksum = checksum(before_checksum(header));
    put(bytes, offset, header);
}
inline void mend_all(Bytes& bytes) {
    if (bytes.size() < sizeof(FileHeader)) return;
    put_with_checksum(bytes, 0, at<FileHeader>(bytes, 0));
    RunningChecksum headers;
    headers.add(std::span(bytes).first(sizeof(FileHeader)));
    std::uint64_t records = 0;
    for (std::size_t offset = sizeof(FileHeader); bytes.size() - offset >= sizeof(RecordHeader);) {
        auto header = at<RecordHeader>(bytes, offset);
        const std::size_t payload_at = offset + sizeof header;
        const std::size_t there = bytes.size() - payload_at;
        std::uint64_t checked = std::min<std::uint64_t>(header.length, there);
        if (header.name == to_name(kEnd) && there >= sizeof(End)) {
            const std::uint64_t length = payload_at + sizeof(End);
            put(bytes, payload_at, End{records, length, headers.value()});
        }
        if (header.name == to_name(kMemory) && checked >= sizeof(MemoryDescriptor)) {
            auto descriptor = at<MemoryDescriptor>(bytes, payload_at);
            const std::uint64_t runs = std::uint64_t{descriptor.runs} * sizeof(PageRun);
            const std::uint64_t front = sizeof descriptor + runs;
            if (front <= checked && descriptor.data_offset <= there) {
                std::uint64_t table = payload_at + front;
                std::uint64_t data = payload_at + descriptor.data_offset;
                Bytes sums;
                for (std::uint32_t i = 0; i < descriptor.runs; ++i) {
                    const auto run =
                        at<PageRun>(bytes, payload_at + sizeof descriptor + i * sizeof(PageRun));
                    for (std::uint64_t left = std::min<std::uint64_t>(run.pages, 1024) * kPageSize;
                         left != 0;) {
                        const std::uint64_t size = std::min(left, kChunk);
                        if (data + size > bytes.size() ||
                            table + 8 > payload_at + descriptor.data_offset) {
                            break;
                        }
                        put(bytes, table, checksum(std::span(bytes).subspan(data, size)));
                        table += 8;
                        data += size;
                        left -= size;
                    }
                }
                if (table >= payload_at + front && (descriptor.flags & kZeroPages) == 0) {
                    descriptor.table_checksum = checksum(
                        std::span(bytes).subspan(payload_at + front, table - payload_at - front));
                    put(bytes, payload_at, descriptor);
                }
            }
            checked = std::min(checked, front);
        }
        header.payload_checksum = checksum(std::span(bytes).subspan(payload_at, checked));
        put_with_checksum(bytes, offset, header);
        headers.add(std::span(bytes).subspan(offset, sizeof header));
        ++records;
        if (header.length > there) return;
        offset =
            std::min<std::uint64_t>(round_up(payload_at + header.length, kAlignment), bytes.size());
    }
}

}  // namespace detail

// Makes the checksums right, as far as the lengths lead.
inline void mend(fakes::Bytes& bytes) {
    detail::mend_all(bytes);
}

}  // namespace xenolith::fuzz
