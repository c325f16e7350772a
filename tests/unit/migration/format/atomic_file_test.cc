// A saved VM's file is there whole or not at all: whatever call fails, whenever the power goes.
#include "migration/format/atomic_file.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "migration/format/reader.h"
#include "migration/format/writer.h"
#include "tests/fakes/fake_disk.h"

namespace migration::format {
namespace {

using fakes::Bytes;
using fakes::FakeDisk;

constexpr char kTarget[] = "/saves/vm";

vmm::Result<void> save(const std::string& path, FileCalls& calls, std::byte mark) {
    const Bytes ram(3 * kPageSize, mark);
    AtomicFile file = TRY(AtomicFile::create(path, calls));
    Writer writer(file);
    TRY(writer.start({}, 1, 1, {}, {}));
    TRY(writer.memory({16, ram, {}}));
    TRY(writer.finish());
    return file.commit();
}
Bytes saved(std::byte mark) {
    FakeDisk disk;
    EXPECT_TRUE(save(kTarget, disk, mark));
    return disk.image().at(kTarget);
}
bool is_whole(const Bytes& bytes) {
    fakes::ByteFile file(bytes);
    const auto index = read_index(file);
    const auto verdict = index ? verify(file, *index) : vmm::Failure{index.error()};
    EXPECT_TRUE(verdict || !verdict.error().what.empty());
    return verdict.has_value();
}
const Bytes kOld = saved(std::byte{1});
const Bytes kNew = saved(std::byte{2});

TEST(AtomicFile, TheFileIsWhole) {
    EXPECT_TRUE(is_whole(kOld));
    EXPECT_TRUE(is_whole(kNew));
    EXPECT_NE(kOld, kNew);
}

struct Case {
    bool existed;
    bool unnamed;
};
class AtomicFiles : public testing::TestWithParam<Case> {
  protected:
    FakeDisk disk() const {
        FakeDisk disk;
        disk.unnamed_files = GetParam().unnamed;
        if (GetParam().existed) disk.put(kTarget, kOld);
        return disk;
    }
    FakeDisk::Image before() const {
        if (GetParam().existed) return {{kTarget, kOld}};
        return {};
    }
};
INSTANTIATE_TEST_SUITE_P(All, AtomicFiles,
                         testing::Values(Case{false, false}, Case{false, true}, Case{true, false},
                                         Case{true, true}));

TEST_P(AtomicFiles, EachCallThatFailsLeavesNothing) {
    FakeDisk whole = disk();
    ASSERT_TRUE(save(kTarget, whole, std::byte{2}));
    EXPECT_EQ(whole.image(), (FakeDisk::Image{{kTarget, kNew}}));
    EXPECT_TRUE(whole.open_files.empty());
    ASSERT_GT(whole.calls, 8u);
    for (std::size_t failing = 0; failing < whole.calls; ++failing) {
        for (const int code : {ENOSPC, EIO, EDQUOT, ENOMEM, EROFS}) {
            FakeDisk one = disk();
            one.failing = failing;
            one.code = code;
            const auto result = save(kTarget, one, std::byte{2});
            ASSERT_FALSE(result) << failing;
            EXPECT_EQ(result.error().what.find(std::string(kTarget) + ": "), 0u)
                << result.error().what;
            EXPECT_NE(result.error().what.find(std::strerror(code)), std::string::npos)
                << result.error().what;
            EXPECT_TRUE(one.open_files.empty()) << failing;
            // The last one: it cannot be undone where something else was before.
            const bool folder = failing == whole.calls - 1;
            const auto expected =
                folder && GetParam().existed ? FakeDisk::Image{{kTarget, kNew}} : before();
            EXPECT_EQ(one.image(), expected) << failing << ": " << result.error().what;
        }
    }
}

TEST_P(AtomicFiles, InterruptedAndShortCallsGoOn) {
    FakeDisk whole = disk();
    ASSERT_TRUE(save(kTarget, whole, std::byte{2}));
    for (std::size_t interrupted = 0; interrupted < whole.calls; ++interrupted) {
        FakeDisk one = disk();
        one.failing = interrupted;
        one.code = EINTR;
        one.at_once = 37;
        const auto result = save(kTarget, one, std::byte{2});
        ASSERT_TRUE(result) << interrupted << ": " << result.error().what;
        EXPECT_EQ(one.image(), (FakeDisk::Image{{kTarget, kNew}}));
    }
    FakeDisk full = disk();
    full.at_once = 0;  // no error, and no progress
    EXPECT_FALSE(save(kTarget, full, std::byte{2}));
    EXPECT_EQ(full.image(), before());
}

// Each state of the disk that a power cut can leave has the old file or the new one.
TEST_P(AtomicFiles, PowerCuts) {
    FakeDisk one = disk();
    const std::size_t begin = one.log_length();
    one.at_once = 5000;
    ASSERT_TRUE(save(kTarget, one, std::byte{2}));
    std::size_t images = 0, old = 0, fresh = 0;
    for (std::size_t done = begin; done <= one.log_length(); ++done) {
        one.power_cuts(done, [&](const FakeDisk::Image& image) {
            ++images;
            const auto target = image.find(kTarget);
            const bool is_new = target != image.end() && target->second == kNew;
            const bool is_old = GetParam().existed ? target != image.end() && target->second == kOld
                                                   : target == image.end();
            ASSERT_TRUE(is_old || is_new) << "after " << done;
            (is_new ? fresh : old) += 1;
            // What has another name is ours, half done; nobody takes it for a saved VM.
            for (const auto& [name, bytes] : image) {
                ASSERT_TRUE(name == kTarget || bytes == kNew || !is_whole(bytes)) << name;
            }
            // When commit() has come back, it is the new one.
            ASSERT_TRUE(is_new || done < one.log_length());
        });
    }
    EXPECT_GT(old, 20u);
    EXPECT_GE(fresh, 2u);
    RecordProperty("images", static_cast<int>(images));
}

// A disk that lies about having written leaves torn files, and the reader refuses them.
TEST_P(AtomicFiles, TornFilesAreRefused) {
    FakeDisk one = disk();
    const std::size_t begin = one.log_length();
    one.at_once = 5000;
    one.fsync_lies = true;
    ASSERT_TRUE(save(kTarget, one, std::byte{2}));
    std::size_t torn = 0;
    for (std::size_t done = begin; done <= one.log_length(); ++done) {
        one.power_cuts(done, [&](const FakeDisk::Image& image) {
            const auto target = image.find(kTarget);
            if (target == image.end() || target->second == kOld || target->second == kNew) return;
            ++torn;
            ASSERT_FALSE(is_whole(target->second));
        });
    }
    EXPECT_GT(torn, 5u) << "this test looks at nothing";
}

class RealFiles : public testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = testing::TempDir() + "atomic-file-XXXXXX";
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    std::size_t names() const {
        return static_cast<std::size_t>(
            std::distance(std::filesystem::directory_iterator(folder_), {}));
    }
    std::string folder_;
};

TEST_F(RealFiles, ComeAtOnce) {
    const std::string path = folder_ + "/" + std::string(255, 'n');
    for (const std::byte mark : {std::byte{1}, std::byte{2}}) {
        const auto result = save(path, system_file_calls(), mark);
        ASSERT_TRUE(result) << result.error().what;
        EXPECT_EQ(names(), 1u);
        std::ifstream in(path, std::ios::binary);
        const std::string content{std::istreambuf_iterator<char>(in), {}};
        const auto bytes = std::as_bytes(std::span(content));
        EXPECT_TRUE(Bytes(bytes.begin(), bytes.end()) == saved(mark));
    }
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u) << "a guest's memory is its owner's";
    auto source = FileSource::open(path);
    ASSERT_TRUE(source) << source.error().what;
    const auto index = read_index(**source);
    ASSERT_TRUE(index) << index.error().what;
    EXPECT_TRUE(verify(**source, *index));
}

TEST_F(RealFiles, AreNothingUntilThen) {
    {
        auto file = AtomicFile::create(folder_ + "/vm");
        ASSERT_TRUE(file) << file.error().what;
        ASSERT_TRUE(file->write_at(100, Bytes(100)));
        EXPECT_LE(names(), 1u);  // none where the filesystem has unnamed files
        EXPECT_FALSE(std::filesystem::exists(folder_ + "/vm"));
    }
    EXPECT_EQ(names(), 0u);
}

TEST_F(RealFiles, HolesAreKept) {
    const std::string path = folder_ + "/vm";
    Bytes ram(64 << 20);
    ram[40 << 20] = std::byte{1};
    {
        auto file = AtomicFile::create(path);
        ASSERT_TRUE(file) << file.error().what;
        Writer writer(*file);
        ASSERT_TRUE(writer.start({}, 1, 1, {}, {}));
        ASSERT_TRUE(writer.memory({0, ram, {}}));
        ASSERT_TRUE(writer.finish());
        ASSERT_TRUE(file->commit());
    }
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_GT(status.st_size, 64 << 20);
    EXPECT_LT(status.st_blocks * 512, 1 << 20);
    auto source = FileSource::open(path);
    ASSERT_TRUE(source);
    const auto index = read_index(**source);
    ASSERT_TRUE(index) << index.error().what;
    EXPECT_TRUE(verify(**source, *index));
}

TEST_F(RealFiles, NothingElseIsReplaced) {
    EXPECT_FALSE(AtomicFile::create(folder_));
    ASSERT_EQ(::mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
    const auto fifo = AtomicFile::create(folder_ + "/fifo");
    ASSERT_FALSE(fifo);
    EXPECT_EQ(fifo.error().what, folder_ + "/fifo: it is no regular file");
    EXPECT_FALSE(AtomicFile::create(folder_ + "/none/vm"));
    EXPECT_FALSE(AtomicFile::create(""));
    EXPECT_FALSE(FileSource::open(folder_ + "/fifo"));
    EXPECT_FALSE(FileSource::open(folder_));
    EXPECT_FALSE(FileSource::open(folder_ + "/vm"));
}

}  // namespace
}  // namespace migration::format
