// Saved VMs that are lies from the first byte to the last, and whose checksums are all right.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "migration/format/checksum.h"
#include "migration/format/format.h"
#include "tests/fakes/saved_vm.h"

namespace fakes {

namespace format = migration::format;

// A stream as a liar would make it: each checksum is right.
class Liar {
  public:
    struct Piece {
        format::RecordHeader header;
        Bytes payload;
        std::uint64_t checked = ~std::uint64_t{0};  // so much of it the header's checksum covers
    };
    format::FileHeader file;
    std::vector<Piece> pieces;
    format::End end{};
    bool right_end = true;

    explicit Liar(const Bytes& bytes) {
        std::memcpy(&file, bytes.data(), sizeof file);
        for (std::size_t at = sizeof file;;) {
            Piece piece;
            std::memcpy(&piece.header, &bytes[at], sizeof piece.header);
            at += sizeof piece.header;
            piece.payload.assign(&bytes[at], &bytes[at] + piece.header.length);
            if (format::to_string(piece.header.name) == format::kMemory) {
                format::MemoryDescriptor descriptor;
                std::memcpy(&descriptor, piece.payload.data(), sizeof descriptor);
                piece.checked = sizeof descriptor + descriptor.runs * sizeof(format::PageRun);
            }
            if (format::to_string(piece.header.name) == format::kEnd) break;
            at = format::round_up(at + piece.header.length, format::kAlignment);
            pieces.push_back(std::move(piece));
        }
    }
    std::size_t find(std::string_view name) const {
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            if (format::to_string(pieces[i].header.name) == name) return i;
        }
        ADD_FAILURE() << "there is no " << name;
        return 0;
    }
    Piece& operator[](std::string_view name) { return pieces[find(name)]; }
    template <class T>
    void change(std::string_view name, const std::function<void(T&)>& how, std::size_t at = 0) {
        auto& payload = (*this)[name].payload;
        T value;
        std::memcpy(&value, &payload[at], sizeof value);
        how(value);
        std::memcpy(&payload[at], &value, sizeof value);
    }
    void descriptor(const std::function<void(format::MemoryDescriptor&)>& how) {
        change<format::MemoryDescriptor>(format::kMemory, how);
    }
    void run(const std::function<void(format::PageRun&)>& how) {
        change<format::PageRun>(format::kMemory, how, sizeof(format::MemoryDescriptor));
    }
    // `lengths`: the headers' lengths are those of the payloads.
    Bytes bytes(bool lengths = true, bool with_end = true) {
        Bytes out;
        const auto put = [&](std::span<const std::byte> some) {
            out.insert(out.end(), some.begin(), some.end());
        };
        format::RunningChecksum headers;
        file.checksum = format::checksum(format::before_checksum(file));
        headers.add(format::bytes_of(file));
        put(format::bytes_of(file));
        const auto put_piece = [&](Piece& piece) {
            if (lengths) piece.header.length = piece.payload.size();
            const std::size_t checked = std::min<std::size_t>(piece.checked, piece.payload.size());
            piece.header.payload_checksum =
                format::checksum(std::span(piece.payload).first(checked));
            piece.header.checksum = format::checksum(format::before_checksum(piece.header));
            put(format::bytes_of(piece.header));
            put(piece.payload);
            out.resize(format::round_up(out.size(), format::kAlignment));
        };
        for (Piece& piece : pieces) {
            put_piece(piece);
            headers.add(format::bytes_of(piece.header));
        }
        if (!with_end) return out;
        if (right_end) {
            end = {pieces.size(), out.size() + sizeof(format::RecordHeader) + sizeof(format::End),
                   headers.value()};
        }
        Piece last;
        last.header = {
            .name = format::to_name(format::kEnd), .version = 1, .flags = format::kMandatory};
        last.header.length = sizeof end;
        last.payload.assign(format::bytes_of(end).begin(), format::bytes_of(end).end());
        put_piece(last);
        return out;
    }
};

}  // namespace fakes
