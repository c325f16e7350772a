#include "vmm/boot/bzimage.h"

#include <functional>

#include <gtest/gtest.h>

#include "tests/unit/vmm/boot/elf_builder.h"
#include "tests/unit/vmm/boot/packed.h"

namespace vmm::boot {
namespace {

using namespace testing;

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

ByteVector vector_of(std::span<const std::byte> bytes) {
    return {bytes.begin(), bytes.end()};
}

struct Packing {
    const char* name;
    std::function<ByteVector(const ByteVector&)> pack;
};

const Packing kPackings[] = {{"gzip", gzip}, {"xz", xz}, {"zstd", zstd}};

TEST(BzImage, EachPackingIsUnpacked) {
    const ByteVector kernel = noise(1'500'000);
    for (const Packing& p : kPackings) {
        ByteVector packed = p.pack(kernel);
        const auto exact = unpack(packed, "image");
        ASSERT_TRUE(exact) << p.name << ": " << exact.error().what;
        EXPECT_EQ(vector_of(exact->view()), kernel) << p.name;
        // With the size that the kernel's build appends: right, or anything.
        for (const std::uint32_t size : {1'500'000U, 0U, 1'499'999U, 0xffff'ffffU}) {
            ByteVector noted = packed;
            append(noted, size);
            const auto unpacked = unpack(noted, "image");
            ASSERT_TRUE(unpacked) << p.name << ": " << unpacked.error().what;
            EXPECT_EQ(vector_of(unpacked->view()), kernel) << p.name;
        }
    }
}

TEST(BzImage, PackingsThatAreNotUnpackedAreRefusedByName) {
    const std::pair<std::string_view, const char*> kOthers[] = {
        {{"\x02\x21\x4c\x18 rest", 9}, "lz4"},
        {{"\x89LZO\0 rest", 10}, "lzo"},
        {{"BZh91 rest", 10}, "bzip2"},
        {{"\x5d\0\0\x80\0 rest", 10}, "lzma"},
        {{"whatever it may be", 18}, "an unknown way"},
    };
    for (const auto& [packed, name] : kOthers) {
        const auto unpacked = unpack(bytes(packed), "image");
        ASSERT_FALSE(unpacked);
        EXPECT_EQ(unpacked.error().fault, Fault::kUser);
        EXPECT_TRUE(contains(unpacked.error().what, name)) << unpacked.error().what;
    }
}

TEST(BzImage, ACorruptPayloadIsOneClearError) {
    const ByteVector kernel = noise(20'000);
    for (const Packing& p : kPackings) {
        ByteVector packed = p.pack(kernel);
        for (std::size_t at = 0; at < 40; ++at)
            packed[packed.size() / 2 + at] ^= std::byte{0x5a};
        const auto unpacked = unpack(packed, "image");
        ASSERT_FALSE(unpacked) << p.name;
        EXPECT_EQ(unpacked.error().what, "image: its packed kernel is corrupt") << p.name;
        EXPECT_EQ(unpacked.error().fault, Fault::kUser);
    }
}

TEST(BzImage, APayloadTruncatedAnywhereIsRefused) {
    const ByteVector kernel = noise(200);
    for (const Packing& p : kPackings) {
        const ByteVector packed = p.pack(kernel);
        for (std::size_t size = 0; size < packed.size(); ++size) {
            const ByteVector part(packed.begin(), packed.begin() + static_cast<long>(size));
            EXPECT_FALSE(unpack(part, "image")) << p.name << " " << size;
        }
    }
}

TEST(BzImage, WhatUnpacksToMoreThanTheLimitIsRefused) {
    const ByteVector kernel(5 << 20);  // zeroes: small when packed
    for (const Packing& p : kPackings) {
        const ByteVector packed = p.pack(kernel);
        EXPECT_TRUE(unpack(packed, "image", kernel.size())) << p.name;
        for (const std::uint64_t limit :
             {std::uint64_t{kernel.size() - 1}, std::uint64_t{1} << 20}) {
            const auto unpacked = unpack(packed, "image", limit);
            ASSERT_FALSE(unpacked) << p.name;
            EXPECT_TRUE(contains(unpacked.error().what, "unpacks to more than")) << p.name;
        }
    }
}

TEST(BzImage, ThePayloadIsWhereTheSetupHeaderSays) {
    const ByteVector payload = bytes("the packed kernel");
    for (const std::uint8_t sectors : {std::uint8_t{1}, std::uint8_t{0}, std::uint8_t{39}}) {
        const ByteVector file = bzimage(payload, sectors);
        ASSERT_TRUE(is_bzimage(file));
        const auto found = bzimage_payload(file, "image");
        ASSERT_TRUE(found);
        EXPECT_EQ(vector_of(*found), payload);
    }
}

TEST(BzImage, OtherFilesAreNotBzImages) {
    EXPECT_FALSE(is_bzimage({}));
    EXPECT_FALSE(is_bzimage(small_kernel().build()));
    EXPECT_FALSE(is_bzimage(ByteVector(100'000)));
    EXPECT_FALSE(bzimage_payload(ByteVector(100'000), "image"));
    ByteVector file = bzimage(bytes("payload"));
    file[0x1fe] = std::byte{0};
    EXPECT_FALSE(is_bzimage(file));
}

TEST(BzImage, BadSetupHeadersAreRefused) {
    const ByteVector good = bzimage(bytes("payload"));
    ByteVector file = good;
    poke<std::uint16_t>(file, 0x206, 0x207);
    EXPECT_TRUE(contains(bzimage_payload(file, "image").error().what, "before 2.08"));
    file = good;
    poke<std::uint32_t>(file, 0x24c, 0);
    EXPECT_TRUE(contains(bzimage_payload(file, "image").error().what, "without a kernel"));
    for (const std::size_t field : {0x248, 0x24c}) {
        for (const std::uint32_t evil : {8U + 0x100'0000U, 0x7fff'ffffU, 0xffff'ffffU}) {
            file = good;
            poke(file, field, evil);
            EXPECT_TRUE(contains(bzimage_payload(file, "image").error().what, "truncated"));
        }
    }
    file = good;
    file[0x1f1] = std::byte{255};
    EXPECT_TRUE(contains(bzimage_payload(file, "image").error().what, "truncated"));
    for (std::size_t size = 0; size < good.size(); ++size) {
        const ByteVector part(good.begin(), good.begin() + static_cast<long>(size));
        EXPECT_FALSE(bzimage_payload(part, "image"));
    }
}

}  // namespace
}  // namespace vmm::boot
