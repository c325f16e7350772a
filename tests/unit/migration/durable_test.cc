// The records of a move: there whole or not at all, whatever call fails and whenever the power
// goes, and never taken for anything else.
#include "migration/durable.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fakes/fake_disk.h"

namespace migration {
namespace {

using fakes::FakeDisk;

VmId vm(int mark) {
    VmId out{};
    out.fill(static_cast<std::byte>(mark));
    return out;
}
Record record(RecordState state, std::uint64_t epoch, int of = 7) {
    return {{vm(of), epoch}, state, {vm(31), vm(32)}};
}

TEST(Record, ComesBack) {
    for (const auto state : {RecordState::kCommit, RecordState::kOwn, RecordState::kAborted}) {
        for (const std::uint64_t epoch : {std::uint64_t{0}, ~std::uint64_t{0}}) {
            auto one = record(state, epoch);
            one.guest = epoch == 0 ? "" : "web";
            const auto back = decode_record(encode(one));
            ASSERT_TRUE(back) << back.error();
            EXPECT_EQ(*back, one);
        }
    }
    EXPECT_TRUE(decode_record(encode({{vm(1), 2}, RecordState::kOwn, {}})));
}

TEST(Record, NothingElseIsTakenForOne) {
    const auto whole = encode(record(RecordState::kCommit, 3));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        EXPECT_FALSE(decode_record(std::span(whole).first(size))) << size;
    }
    for (std::size_t at = 0; at < whole.size(); ++at) {
        for (const int bit : {0, 7}) {
            auto flipped = whole;
            flipped[at] ^= static_cast<std::byte>(1 << bit);
            EXPECT_FALSE(decode_record(flipped)) << at;
        }
    }
    auto longer = whole;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(decode_record(longer));
    auto unknown = record(RecordState::kCommit, 3);
    unknown.state = static_cast<RecordState>(4);
    const auto refused = decode_record(encode(unknown));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error(), "state 4 is not known");
}

constexpr char kFolder[] = "/moves";

// A destination that had refused an attempt before, and now writes OWN.
struct Disk {
    FakeDisk disk;
    Records records{{}, kFolder, Side::kDestination, vm(7), disk};
    Record old = record(RecordState::kAborted, 1);
    Record fresh = record(RecordState::kOwn, 2);

    Disk(bool existed, bool unnamed) {
        disk.unnamed_files = unnamed;
        if (existed) disk.put(records.path(), encode(old));
    }
    // What a new process would find.
    std::optional<Record> in(const FakeDisk::Image& image) const {
        const auto file = image.find(records.path());
        if (file == image.end()) return std::nullopt;
        const auto read = decode_record(file->second);
        EXPECT_TRUE(read) << read.error();
        return read ? std::optional(*read) : std::nullopt;
    }
};

class Durable : public testing::TestWithParam<std::pair<bool, bool>> {
  protected:
    Disk disk() const { return Disk(GetParam().first, GetParam().second); }
    std::optional<Record> before(const Disk& one) const {
        return GetParam().first ? std::optional(one.old) : std::nullopt;
    }
};
INSTANTIATE_TEST_SUITE_P(All, Durable,
                         testing::Values(std::pair(false, false), std::pair(false, true),
                                         std::pair(true, false), std::pair(true, true)));

TEST_P(Durable, APowerCutLeavesTheOldOneOrTheNew) {
    Disk one = disk();
    const std::size_t begin = one.disk.log_length();
    ASSERT_EQ(one.records.write(one.fresh).event, Event::kWritten);
    std::size_t images = 0, fresh = 0;
    for (std::size_t done = begin; done <= one.disk.log_length(); ++done) {
        one.disk.power_cuts(done, [&](const FakeDisk::Image& image) {
            ++images;
            const auto found = one.in(image);
            EXPECT_TRUE(found == before(one) || found == one.fresh) << done;
            fresh += found == one.fresh;
            // When write() has come back, it is the new one.
            EXPECT_TRUE(found == one.fresh || done < one.disk.log_length());
        });
    }
    EXPECT_GT(images, 20u);
    EXPECT_GE(fresh, 1u);
    RecordProperty("images", static_cast<int>(images));
}

// What write() says of a failure is so, after a power cut at that very moment too.
TEST_P(Durable, EachFailureSaysWhatMayBeThere) {
    Disk whole = disk();
    ASSERT_EQ(whole.records.write(whole.fresh).event, Event::kWritten);
    std::size_t certain = 0, uncertain = 0;
    for (std::size_t failing = 0; failing < whole.disk.calls; ++failing) {
        for (const int code : {ENOSPC, EIO, EDQUOT, EROFS}) {
            Disk one = disk();
            one.disk.failing = failing;
            one.disk.code = code;
            const auto outcome = one.records.write(one.fresh);
            ASSERT_NE(outcome.event, Event::kWritten) << failing;
            EXPECT_EQ(outcome.error.what.find(one.records.path()), 0u) << outcome.error.what;
            EXPECT_NE(outcome.error.what.find(std::strerror(code)), std::string::npos);
            EXPECT_TRUE(one.disk.open_files.empty());
            if (outcome.event == Event::kMaybeWritten) {
                ++uncertain;
                continue;
            }
            ++certain;
            EXPECT_EQ(one.in(one.disk.image()), before(one)) << failing;
            one.disk.power_cuts(one.disk.log_length(), [&](const FakeDisk::Image& image) {
                EXPECT_EQ(one.in(image), before(one)) << failing;
            });
        }
    }
    // Only the renaming and what comes after it leave a doubt.
    EXPECT_EQ(uncertain, 2u * 4);
    EXPECT_GE(certain, 4u * 4);
}

TEST_P(Durable, AnErasedRecordDoesNotComeBack) {
    Disk one = disk();
    ASSERT_EQ(one.records.write(one.fresh).event, Event::kWritten);
    ASSERT_TRUE(one.records.erase());
    one.disk.power_cuts(one.disk.log_length(), [&](const FakeDisk::Image& image) {
        EXPECT_EQ(one.in(image), std::nullopt);
    });
    EXPECT_TRUE(one.records.erase());  // there is none: as it should be
    one.disk.calls = 0;
    one.disk.failing = 1;  // the folder's fsync
    const auto failed = one.records.erase();
    ASSERT_FALSE(failed);
    EXPECT_TRUE(one.disk.open_files.empty());
}

TEST_P(Durable, OnlyRecordsOfItsOwn) {
    Disk one = disk();
    for (const Record& other : {record(RecordState::kCommit, 2), record(RecordState::kOwn, 2, 8)}) {
        EXPECT_EQ(one.records.write(other).event, Event::kNotWritten);
        EXPECT_EQ(one.in(one.disk.image()), before(one));
    }
}

class DurableFiles : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = testing::TempDir() + "xenolith-records-XXXXXX";
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }
    void put(const std::string& path, std::span<const std::byte> bytes) const {
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
    }
    std::string folder_;
};

TEST_F(DurableFiles, WriteReadReplaceErase) {
    const auto records = Records::open(folder_, Side::kDestination, vm(7));
    ASSERT_TRUE(records) << records.error().what;
    EXPECT_EQ(*records->read(), std::nullopt);
    for (const auto& one : {record(RecordState::kAborted, 1), record(RecordState::kOwn, 2)}) {
        ASSERT_EQ(records->write(one).event, Event::kWritten);
        const auto read = records->read();
        ASSERT_TRUE(read) << read.error().what;
        EXPECT_EQ(*read, one);
    }
    ASSERT_TRUE(records->erase());
    EXPECT_EQ(*records->read(), std::nullopt);
    EXPECT_TRUE(records->erase());
}

TEST_F(DurableFiles, OneProcessSpeaksForASide) {
    auto first = Records::open(folder_, Side::kSource, vm(7));
    ASSERT_TRUE(first) << first.error().what;
    const auto second = Records::open(folder_, Side::kSource, vm(7));
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().what.find("another process"), std::string::npos);
    EXPECT_TRUE(Records::open(folder_, Side::kDestination, vm(7)));
    EXPECT_TRUE(Records::open(folder_, Side::kSource, vm(8)));
    { const Records gone = std::move(*first); }
    EXPECT_TRUE(Records::open(folder_, Side::kSource, vm(7)));
    EXPECT_FALSE(Records::open(folder_ + "/none", Side::kSource, vm(7)));
}

TEST_F(DurableFiles, AFolderHasAnIdThatStays) {
    const auto id = [&] {
        const auto records = Records::open(folder_, Side::kSource, vm(7));
        EXPECT_TRUE(records) << records.error().what;
        return records ? records->folder_id() : FolderId{};
    };
    const FolderId first = id();
    EXPECT_NE(first, FolderId{});
    EXPECT_EQ(id(), first);
    std::filesystem::create_directory(folder_ + "/another");
    const auto another = Records::open(folder_ + "/another", Side::kSource, vm(7));
    ASSERT_TRUE(another) << another.error().what;
    EXPECT_NE(another->folder_id(), first);
    // A side that does not know who it is says nothing.
    std::ifstream in(folder_ + "/id");
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    ASSERT_EQ(text.size(), 33u);
    for (const std::string& bad : {std::string(), text.substr(1), text + "0", "g" + text.substr(1),
                                   text.substr(0, 32) + "0", std::string(32, '0') + "\n"}) {
        put(folder_ + "/id", std::as_bytes(std::span(bad)));
        const auto records = Records::open(folder_, Side::kSource, vm(7));
        ASSERT_FALSE(records) << bad;
        EXPECT_EQ(records.error().what, folder_ + "/id: it is damaged");
    }
}

// A lock without a record is nothing that anybody would miss.
TEST_F(DurableFiles, NoLockIsLeftWithoutARecord) {
    const auto files = [this] {
        std::size_t count = 0;
        for (const auto& file : std::filesystem::directory_iterator(folder_)) {
            count += file.path().filename() != "id";
        }
        return count;
    };
    {
        const auto records = Records::open(folder_, Side::kSource, vm(7));
        ASSERT_TRUE(records);
        ASSERT_EQ(records->write(record(RecordState::kCommit, 1)).event, Event::kWritten);
        EXPECT_EQ(files(), 2u);
    }
    EXPECT_EQ(files(), 2u);
    {
        const auto records = Records::open(folder_, Side::kSource, vm(7));
        ASSERT_TRUE(records->erase());
        EXPECT_FALSE(Records::open(folder_, Side::kSource, vm(7)));
    }
    EXPECT_EQ(files(), 0u);
}

// However one's end meets another's beginning, one of them speaks at a time.
TEST_F(DurableFiles, ALockThatIsTakenAwayIsNobodys) {
    std::atomic<int> inside{0}, most{0}, times{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            while (times < 2000) {
                const auto records = Records::open(folder_, Side::kSource, vm(7));
                if (!records) continue;
                most = std::max(most.load(), ++inside);
                ++times;
                --inside;
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    EXPECT_EQ(most, 1);
    std::filesystem::remove(folder_ + "/id");
    EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(DurableFiles, WhatSourcesLeftIsFound) {
    EXPECT_TRUE(left_by_sources(folder_)->empty());
    auto named = record(RecordState::kCommit, 3, 7);
    named.guest = "web";
    {
        const auto one = Records::open(folder_, Side::kSource, vm(7));
        ASSERT_EQ(one->write(named).event, Event::kWritten);
        const auto other = Records::open(folder_, Side::kDestination, vm(8));
        ASSERT_EQ(other->write(record(RecordState::kOwn, 3, 8)).event, Event::kWritten);
        const auto torn = Records::open(folder_, Side::kSource, vm(0xab));
        put(torn->path(), std::vector<std::byte>(5));
        put(folder_ + "/07.source", {});
        put(folder_ + "/" + std::string(32, 'A') + ".source", {});
    }
    auto found = *left_by_sources(folder_);
    std::ranges::sort(found, {}, &LeftBehind::vm);
    ASSERT_EQ(found.size(), 2u);
    EXPECT_EQ(found[0].vm, vm(7));
    EXPECT_EQ(*found[0].record, named);
    EXPECT_EQ(found[1].vm, vm(0xab));
    EXPECT_FALSE(found[1].record);
    EXPECT_EQ(found[1].record.error().what.find(found[1].path), 0u);
    EXPECT_FALSE(left_by_sources(folder_ + "/none"));
}

// Nothing that is there is taken for nothing: it may have been a promise.
TEST_F(DurableFiles, WhatCannotBeReadIsAFailure) {
    const auto records = Records::open(folder_, Side::kSource, vm(7));
    ASSERT_TRUE(records) << records.error().what;
    const auto refused = [&](const std::string& why) {
        const auto read = records->read();
        ASSERT_FALSE(read) << why;
        EXPECT_EQ(read.error().what.find(records->path()), 0u) << read.error().what;
        EXPECT_NE(read.error().what.find(why), std::string::npos) << read.error().what;
    };
    const auto bytes = encode(record(RecordState::kCommit, 1));
    put(records->path(), std::span(bytes).first(bytes.size() - 1));
    refused("torn");
    put(records->path(), {});
    refused("no record");
    put(records->path(), encode(record(RecordState::kCommit, 1, 8)));
    refused("another guest's");
    put(records->path(), encode(record(RecordState::kOwn, 1)));
    refused("the other side's");
    put(records->path(), std::vector<std::byte>(1 << 20));
    refused("too long");
    std::filesystem::remove(records->path());
    std::filesystem::create_directory(records->path());
    refused(std::strerror(EISDIR));
    std::filesystem::remove(records->path());
    std::filesystem::create_symlink(folder_ + "/elsewhere", records->path());
    refused(std::strerror(ELOOP));
}

}  // namespace
}  // namespace migration
