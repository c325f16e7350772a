// Packed kernels for the tests.
#pragma once

#include <cstdint>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <gtest/gtest.h>

#include "tests/unit/vmm/boot/elf_builder.h"

namespace vmm::boot::testing {

// NOLINTBEGIN(cppcoreguidelines-pro-type-*): the packers' interfaces are C's.

// Bytes that no packer makes much smaller, always the same ones.
inline ByteVector noise(std::size_t size) {
    ByteVector result(size);
    std::uint32_t state = 1;
    for (std::byte& b : result) {
        state = state * 1664525 + 1013904223;
        b = static_cast<std::byte>((state >> 24) & 0x3f);
    }
    return result;
}

inline ByteVector gzip(const ByteVector& from) {
    z_stream stream{};
    EXPECT_EQ(deflateInit2(&stream, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ByteVector to(deflateBound(&stream, from.size()));
    ByteVector in = from;
    stream.next_in = reinterpret_cast<Bytef*>(in.data());
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = reinterpret_cast<Bytef*>(to.data());
    stream.avail_out = static_cast<uInt>(to.size());
    EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    to.resize(stream.total_out);
    deflateEnd(&stream);
    return to;
}

// As the kernel's build does it: CRC32, an x86 filter before LZMA2.
inline ByteVector xz(const ByteVector& from) {
    lzma_options_lzma options;
    lzma_lzma_preset(&options, 0);
    const lzma_filter filters[] = {
        {LZMA_FILTER_X86, nullptr}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
    ByteVector to(lzma_stream_buffer_bound(from.size()));
    std::size_t done = 0;
    EXPECT_EQ(
        lzma_stream_buffer_encode(const_cast<lzma_filter*>(filters), LZMA_CHECK_CRC32, nullptr,
                                  reinterpret_cast<const std::uint8_t*>(from.data()), from.size(),
                                  reinterpret_cast<std::uint8_t*>(to.data()), &done, to.size()),
        LZMA_OK);
    to.resize(done);
    return to;
}

inline ByteVector zstd(const ByteVector& from) {
    ZSTD_CCtx* context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    ByteVector to(ZSTD_compressBound(from.size()));
    to.resize(ZSTD_compress2(context, to.data(), to.size(), from.data(), from.size()));
    ZSTD_freeCCtx(context);
    return to;
}

// `payload` as it stands in a bzImage, 8 bytes into the protected-mode code, with code after it.
inline ByteVector bzimage(const ByteVector& payload, std::uint8_t setup_sectors = 1) {
    const std::size_t setup = (std::size_t{setup_sectors == 0 ? 4U : setup_sectors} + 1) * 512;
    ByteVector file(setup + 8);
    file[0x1f1] = static_cast<std::byte>(setup_sectors);
    poke<std::uint16_t>(file, 0x1fe, 0xaa55);
    std::memcpy(file.data() + 0x202, "HdrS", 4);
    poke<std::uint16_t>(file, 0x206, 0x20f);
    poke<std::uint32_t>(file, 0x248, 8);
    poke<std::uint32_t>(file, 0x24c, static_cast<std::uint32_t>(payload.size()));
    file.insert(file.end(), payload.begin(), payload.end());
    return file;
}

// NOLINTEND(cppcoreguidelines-pro-type-*)

}  // namespace vmm::boot::testing
