#include "vmm/boot/bzimage.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <lzma.h>
#include <memory>
#include <string_view>
#include <zlib.h>
#include <zstd.h>

namespace vmm::boot {
namespace {

using Packed = std::span<const std::byte>;

// Offsets in Linux's setup header (boot.rst), all from the start of the file.
constexpr std::size_t kSetupSectors = 0x1f1;
constexpr std::size_t kBootFlag = 0x1fe;
constexpr std::size_t kMagic = 0x202;
constexpr std::size_t kVersion = 0x206;
constexpr std::size_t kPayloadOffset = 0x248;
constexpr std::size_t kPayloadLength = 0x24c;
constexpr std::size_t kHeaderEnd = 0x250;
constexpr std::uint16_t kFirstVersionWithPayload = 0x208;
constexpr std::size_t kSectorSize = 512;
// The build appends the unpacked size to the packed kernel, unless the format ends with it anyway.
constexpr std::size_t kSizeField = 4;

// More than any kernel's xz dictionary; liblzma takes this much before it sees any data.
constexpr std::uint64_t kXzMemoryLimit = std::uint64_t{512} << 20;

constexpr std::size_t kSmallestOutput = std::size_t{64} << 10;
constexpr std::size_t kUsualRatio = 4;
constexpr std::size_t kHighestRatio = 64;  // of kernels by far; others grow as they go

bool starts_with(Packed bytes, std::string_view magic) {
    return bytes.size() >= magic.size() &&
           std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

template <class T>
T field(Packed file, std::size_t at) {
    T value;
    std::memcpy(&value, file.data() + at, sizeof(T));
    return value;
}

// One decompressor. step() takes what it can from `in`, puts what it can into `out`, and moves
// both on.
class Decoder {
  public:
    enum class Status { kMore, kEnd, kCorrupt };
    Decoder() = default;
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;
    virtual ~Decoder() = default;
    virtual Status step(Packed& in, std::span<std::byte>& out) = 0;
};

class Gzip final : public Decoder {
  public:
    static constexpr std::string_view kMagicBytes{"\x1f\x8b", 2};

    Gzip() { ready_ = inflateInit2(&stream_, MAX_WBITS + 16) == Z_OK; }  // 16: a gzip header
    ~Gzip() override {
        if (ready_) inflateEnd(&stream_);
    }
    Status step(Packed& in, std::span<std::byte>& out) override {
        if (!ready_) return Status::kCorrupt;
        const std::size_t in_now = std::min<std::size_t>(in.size(), UINT_MAX);
        const std::size_t out_now = std::min<std::size_t>(out.size(), UINT_MAX);
        // zlib never writes to its input; its interface is older than const.
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-*): its bytes are another type than ours.
        stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
        stream_.avail_in = static_cast<uInt>(in_now);
        stream_.next_out = reinterpret_cast<Bytef*>(out.data());  // NOLINT: as above
        stream_.avail_out = static_cast<uInt>(out_now);
        const int status = inflate(&stream_, Z_NO_FLUSH);
        in = in.subspan(in_now - stream_.avail_in);
        out = out.subspan(out_now - stream_.avail_out);
        if (status == Z_STREAM_END) return Status::kEnd;
        return status == Z_OK || status == Z_BUF_ERROR ? Status::kMore : Status::kCorrupt;
    }

  private:
    z_stream stream_{};
    bool ready_ = false;
};

class Xz final : public Decoder {
  public:
    static constexpr std::string_view kMagicBytes{
        "\xfd"
        "7zXZ\0",
        6};

    Xz() { ready_ = lzma_stream_decoder(&stream_, kXzMemoryLimit, 0) == LZMA_OK; }
    ~Xz() override { lzma_end(&stream_); }
    Status step(Packed& in, std::span<std::byte>& out) override {
        if (!ready_) return Status::kCorrupt;
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): bytes of another type.
        stream_.next_in = reinterpret_cast<const std::uint8_t*>(in.data());
        stream_.avail_in = in.size();
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): as above.
        stream_.next_out = reinterpret_cast<std::uint8_t*>(out.data());
        stream_.avail_out = out.size();
        const lzma_ret status = lzma_code(&stream_, LZMA_RUN);
        in = in.last(stream_.avail_in);
        out = out.last(stream_.avail_out);
        if (status == LZMA_STREAM_END) return Status::kEnd;
        return status == LZMA_OK || status == LZMA_BUF_ERROR ? Status::kMore : Status::kCorrupt;
    }

  private:
    lzma_stream stream_ = LZMA_STREAM_INIT;
    bool ready_ = false;
};

class Zstd final : public Decoder {
  public:
    static constexpr std::string_view kMagicBytes{"\x28\xb5\x2f\xfd", 4};

    Status step(Packed& in, std::span<std::byte>& out) override {
        if (!stream_) return Status::kCorrupt;
        ZSTD_inBuffer from{in.data(), in.size(), 0};
        ZSTD_outBuffer to{out.data(), out.size(), 0};
        const std::size_t left = ZSTD_decompressStream(stream_.get(), &to, &from);
        in = in.subspan(from.pos);
        out = out.subspan(to.pos);
        if (ZSTD_isError(left) != 0) return Status::kCorrupt;
        return left == 0 ? Status::kEnd : Status::kMore;
    }

  private:
    struct Free {
        void operator()(ZSTD_DStream* s) const { ZSTD_freeDStream(s); }
    };
    std::unique_ptr<ZSTD_DStream, Free> stream_{ZSTD_createDStream()};
};

Result<std::unique_ptr<Decoder>> decoder_for(Packed packed, const std::string& name) {
    if (starts_with(packed, Gzip::kMagicBytes)) return std::unique_ptr<Decoder>(new Gzip);
    if (starts_with(packed, Xz::kMagicBytes)) return std::unique_ptr<Decoder>(new Xz);
    if (starts_with(packed, Zstd::kMagicBytes)) return std::unique_ptr<Decoder>(new Zstd);

    struct Known {
        std::string_view magic;
        const char* what;
    };
    static constexpr Known kNotUnpacked[] = {
        {{"\x02\x21\x4c\x18", 4}, "lz4"},
        {{"\x89LZO\0", 5}, "lzo"},
        {{"BZh", 3}, "bzip2"},
        {{"\x5d\0\0", 3}, "lzma"},
    };
    for (const Known& known : kNotUnpacked) {
        if (!starts_with(packed, known.magic)) continue;
        return user_error(name + ": its kernel is packed with " + known.what +
                          "; gzip, xz and zstd can be unpacked here");
    }
    return user_error(name + ": its kernel is packed in an unknown way");
}

// The size the packer noted at the end: worth a first guess and no more, for it may be anything.
std::size_t size_hint(Packed packed, std::uint64_t limit) {
    const auto noted =
        packed.size() < kSizeField ? 0 : field<std::uint32_t>(packed, packed.size() - kSizeField);
    // One byte more than noted, so that the end of the stream is seen without growing.
    if (noted != 0 && noted <= limit && noted / kHighestRatio <= packed.size()) {
        return std::size_t{noted} + 1;
    }
    return std::max(packed.size() * kUsualRatio, kSmallestOutput);
}

}  // namespace

bool is_elf(Packed file) {
    return starts_with(file, {"\x7f"
                              "ELF",
                              4});
}

bool is_bzimage(Packed file) {
    return file.size() >= kHeaderEnd && field<std::uint16_t>(file, kBootFlag) == 0xaa55 &&
           starts_with(file.subspan(kMagic), "HdrS");
}

bool is_gzip(Packed file) {
    return starts_with(file, Gzip::kMagicBytes);
}

Result<Packed> bzimage_payload(Packed file, const std::string& name) {
    if (!is_bzimage(file)) return user_error(name + ": not a Linux bzImage");
    if (field<std::uint16_t>(file, kVersion) < kFirstVersionWithPayload) {
        return user_error(name +
                          ": a bzImage of a boot protocol before 2.08 (Linux 2.6.26), "
                          "which does not say where its kernel is");
    }
    // Zero stands for four setup sectors; the boot sector comes before them.
    const auto sectors = field<std::uint8_t>(file, kSetupSectors);
    const std::uint64_t setup = (std::uint64_t{sectors == 0 ? 4U : sectors} + 1) * kSectorSize;
    const std::uint64_t offset = setup + field<std::uint32_t>(file, kPayloadOffset);
    const std::uint64_t length = field<std::uint32_t>(file, kPayloadLength);
    if (offset > file.size() || length > file.size() - offset) {
        return user_error(name + ": truncated: the bzImage ends before its packed kernel does");
    }
    if (length == 0) return user_error(name + ": a bzImage without a kernel in it");
    return file.subspan(offset, length);
}

Result<Bytes> unpack(Packed packed, const std::string& name, std::uint64_t limit) {
    const std::unique_ptr<Decoder> decoder = TRY(decoder_for(packed, name));
    Bytes unpacked;
    if (!unpacked.resize(size_hint(packed, limit))) {
        return host_error(name + ": not enough memory to unpack its kernel");
    }
    std::size_t done = 0;
    Packed in = packed;
    while (true) {
        const std::size_t in_before = in.size();
        std::span<std::byte> out = unpacked.writable().subspan(done);
        const std::size_t room = out.size();
        const Decoder::Status status = decoder->step(in, out);
        done += room - out.size();
        if (done > limit) {
            return user_error(name + ": its kernel unpacks to more than " +
                              std::to_string(limit >> 20) + " MiB");
        }
        if (status == Decoder::Status::kEnd) break;
        const bool stuck = in.size() == in_before && room == out.size();
        if (status == Decoder::Status::kCorrupt || (stuck && !out.empty())) {
            return user_error(name + ": its packed kernel is corrupt");
        }
        if (!out.empty()) continue;
        // One byte over the limit is room enough to notice that it is exceeded.
        const std::size_t more = std::min<std::uint64_t>(unpacked.size() * 2, limit + 1);
        if (!unpacked.resize(more)) {
            return host_error(name + ": not enough memory to unpack its kernel");
        }
    }
    if (!unpacked.resize(done)) return host_error(name + ": not enough memory");
    return unpacked;
}

}  // namespace vmm::boot
