#include "tests/saved_sweep/life.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <unistd.h>

#include <sys/mman.h>

#include "migration/format/checksum.h"
#include "migration/format/reader.h"
#include "vmm/cli/run_vm.h"
#include "vmm/cli/steering.h"
#include "vmm/cli/vm_state.h"

namespace xenolith::tests {

using vmm::cli::RunEnd;
using vmm::cli::SavedVm;
using vmm::cli::Vm;
namespace format = migration::format;

void give_up(const std::string& why) {
    throw std::runtime_error(why);
}

namespace {

vmm::Fd make_sink() {
    vmm::Fd sink(::memfd_create("console", MFD_CLOEXEC));
    if (!sink) give_up("memfd_create");
    return sink;
}

vmm::cli::ConsoleFds console_to(const vmm::Fd& sink) {
    return {.in = -1, .out = sink.get(), .escape = std::nullopt};
}

}  // namespace

Life::Life(const vmm::config::VmConfig& config)
    : sink_(make_sink()), vm_(need(Vm::create(config, console_to(sink_), nullptr))) {
    watch();
}

Life::Life(const std::string& file, const vmm::config::VmConfig& defaults,
           const std::function<void(vmm::config::VmConfig&)>& adjust)
    : saved_(need(SavedVm::open(file))), sink_(make_sink()) {
    vmm::config::VmConfig config = saved_->config();
    vmm::config::RunRequest request;
    request.vm = defaults;
    vmm::cli::take_host_options(request, config);
    if (adjust) adjust(config);
    const auto kvm = need(vmm::kvm::Kvm::open());
    vm_ = need(Vm::restore(kvm, *saved_, config, console_to(sink_), nullptr));
    watch();
}

Life::~Life() = default;

void Life::watch() {
    vm_->platform().on_stop = [this](unsigned vcpu, const xenshim::abi::Reissue& with) {
        if (holds_at && holds_at(vcpu, with)) vm_->machine().hold();
    };
}

RunEnd::Kind Life::run(bool paused) {
    return need(vm_->run({.paused = paused,
                          .before_move = {},
                          .stands_still =
                              [this] {
                                  vm_->machine().pause();
                                  vm_->machine().release();
                                  if (vm_->machine().stopping()) return;
                                  if (!stands_still) give_up("the guest is held for nobody");
                                  stands_still();
                              }}))
        .kind;
}

void Life::go_on() {
    vm_->machine().resume();
}

void Life::save(const std::string& file, vmm::cli::AfterSave after) {
    need(vm_->save(file, after));
}

void Life::stop() {
    vm_->machine().stop({.kind = vmm::StopCause::Kind::kRequested});
}

std::string Life::output() {
    std::string text(
        static_cast<std::size_t>(std::max<off_t>(::lseek(sink_.get(), 0, SEEK_END), 0)), '\0');
    if (::pread(sink_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
        give_up("the console's output cannot be read");
    }
    return text;
}

std::map<std::uint64_t, std::uint64_t> Life::pages() {
    std::map<std::uint64_t, std::uint64_t> found;
    vm_->platform().domain().physmap().free_owed();
    std::vector<std::byte> page(format::kPageSize);
    for (const auto& region : vm_->machine().memory().regions()) {
        const auto end = static_cast<off_t>(region.pages * format::kPageSize);
        for (off_t at = ::lseek(region.fd, 0, SEEK_DATA); at >= 0 && at < end;
             at = ::lseek(region.fd, at + static_cast<off_t>(page.size()), SEEK_DATA)) {
            if (::pread(region.fd, page.data(), page.size(), at) !=
                static_cast<ssize_t>(page.size())) {
                give_up("the guest's memory cannot be read");
            }
            if (format::all_zero(page)) continue;
            found[region.gfn + static_cast<std::uint64_t>(at) / format::kPageSize] =
                format::checksum(page);
        }
    }
    return found;
}

namespace {

template <class T, class Change>
void change(format::Record& record, Change change) {
    auto state = vmm::saved::decode<T>(record.payload, record.version);
    if (!state) give_up(record.name + ": " + state.error());
    change(*state);
    record.payload = vmm::saved::encode(*state);
}

// Without what the clock makes of it, which goes on while the guest stands still.
void leave_out_time(format::Record& record, bool is_64bit) {
    if (record.name == xenshim::DomainState::kSection.name) {
        change<xenshim::DomainState>(record, [](auto& state) {
            state.incarnation = 0;
            for (auto& vcpu : state.vcpus) {
                vcpu.runstate.since_ns = 0;
                vcpu.runstate.time_ns = {};
                vcpu.runstate.stands_since_ns.reset();
            }
        });
    } else if (record.name == xenshim::SharedInfoState::kSection.name) {
        change<xenshim::SharedInfoState>(record,
                                         [](auto& state) { state.wall_sec = state.wall_nsec = 0; });
    } else if (record.name == xenshim::OwnPagesState::kSection.name) {
        change<xenshim::OwnPagesState>(record, [is_64bit](auto& state) {
            const auto page = state.own.find(xenshim::kSharedInfoPage);
            if (page == state.own.end()) return;
            // vcpu_info's time, and the wall clock.
            constexpr std::size_t kVcpus = 32, kVcpuInfo = 64, kTime = 32;
            const auto clear = [&](std::size_t at, std::size_t bytes) {
                std::ranges::fill(std::span(page->second).subspan(at, bytes), std::byte{0});
            };
            for (std::size_t v = 0; v < kVcpus; ++v) {
                clear(v * kVcpuInfo + kTime, kVcpuInfo - kTime);
            }
            // Every guest begins as a 64-bit one: the wall clock of then stays.
            for (const auto* layout :
                 {&xenshim::abi::kSharedInfo64, &xenshim::abi::kSharedInfo32}) {
                if (is_64bit && layout == &xenshim::abi::kSharedInfo32) continue;
                clear(layout->wc_version, 12);  // with its seconds and nanoseconds
                clear(layout->wc_sec_hi, 4);
            }
        });
    }
}

nlohmann::json shown(const format::Record& record) {
    for (const auto& kind : vmm::cli::known_kinds()) {
        if (kind.section.name != record.name) continue;
        if (const auto json = kind.show(record.payload, record.version)) return *json;
    }
    return nullptr;
}

// The first member that differs, with both values: of a long text where they begin to.
std::string difference(const nlohmann::json& a, const nlohmann::json& b) {
    const auto patch = nlohmann::json::diff(a, b);
    if (patch.empty()) return "(in its bytes)";
    const std::string path = patch[0]["path"];
    const nlohmann::json::json_pointer at(path);
    if (patch[0]["op"] != "replace") return path + " is only in one";
    std::string left = a.at(at).dump(), right = b.at(at).dump(), where;
    constexpr std::size_t kShown = 40, kBefore = 8;
    if (std::max(left.size(), right.size()) > kShown) {
        const auto first =
            static_cast<std::size_t>(std::ranges::mismatch(left, right).in1 - left.begin());
        where = " from character " + std::to_string(first);
        left = left.substr(first - std::min(first, kBefore), kShown);
        right = right.substr(first - std::min(first, kBefore), kShown);
    }
    return path + where + ": " + left + " and " + right;
}

// What is in one file.
struct File {
    struct Chunk {
        std::uint64_t gpa = 0;
        std::uint64_t at = 0;  // in the file
        std::uint64_t checksum = 0;
    };
    std::unique_ptr<format::FileSource> source;
    std::map<std::string, format::Record> records;
    std::vector<format::PageRun> runs;
    std::vector<Chunk> chunks;

    explicit File(const std::string& path) : source(need(format::FileSource::open(path))) {
        auto index = need(format::read_index(*source));
        bool is_64bit = true;
        for (auto& record : index.records) {
            if (record.name != xenshim::SharedInfoState::kSection.name) continue;
            change<xenshim::SharedInfoState>(record,
                                             [&](const auto& state) { is_64bit = state.is_64bit; });
        }
        index.records.push_back(index.start.profile);
        for (auto& record : index.records) {
            leave_out_time(record, is_64bit);
            const std::string name =
                record.name + (record.instance == 0 ? "" : " " + std::to_string(record.instance));
            if (!records.emplace(name, record).second) give_up(path + ": two records " + name);
        }
        for (const auto& part : index.memory) {
            if (part.zero) give_up(path + ": zero pages in a file");
            const auto table = need(format::read_table(*source, part));
            std::size_t next = 0;
            std::uint64_t at = part.data_at;
            for (const auto& run : part.runs) {
                runs.push_back(run);
                for (std::uint64_t chunk = 0; chunk < format::chunks_of(run); ++chunk) {
                    chunks.push_back({.gpa = run.gfn * format::kPageSize + chunk * format::kChunk,
                                      .at = at + chunk * format::kChunk,
                                      .checksum = table.at(next++)});
                }
                at += run.pages * format::kPageSize;
            }
        }
    }
};

}  // namespace

std::vector<std::string> differing_records(const std::string& a, const std::string& b,
                                           const std::set<std::string>& besides) {
    const File files[] = {File(a), File(b)};
    std::set<std::string> names;
    for (const File& file : files) {
        for (const auto& [name, record] : file.records) {
            names.insert(name);
        }
    }
    std::vector<std::string> differ;
    for (const std::string& name : names) {
        if (besides.contains(name)) continue;
        const auto left = files[0].records.find(name), right = files[1].records.find(name);
        if (left == files[0].records.end() || right == files[1].records.end()) {
            differ.push_back(name + ", which one of them lacks");
        } else if (left->second.payload != right->second.payload) {
            differ.push_back(name + " " + difference(shown(left->second), shown(right->second)));
        }
    }
    if (besides.contains("memory")) return differ;
    if (files[0].runs != files[1].runs) {
        differ.push_back("memory, which lies elsewhere");
        return differ;
    }
    for (std::size_t i = 0; i < files[0].chunks.size(); ++i) {
        const auto& left = files[0].chunks[i];
        const auto& right = files[1].chunks[i];
        if (left.checksum == right.checksum) continue;
        std::vector<std::byte> bytes[2];
        for (unsigned f = 0; f < 2; ++f) {
            bytes[f].resize(format::kChunk);
            bytes[f].resize(need(files[f].source->read_at(files[f].chunks[i].at, bytes[f])));
        }
        const auto at = static_cast<std::size_t>(std::ranges::mismatch(bytes[0], bytes[1]).in1 -
                                                 bytes[0].begin());
        std::array<char, 100> text{};
        std::snprintf(text.data(), text.size(), "memory, first at 0x%llx: 0x%02x and 0x%02x",
                      static_cast<unsigned long long>(left.gpa + at),
                      at < bytes[0].size() ? std::to_integer<unsigned>(bytes[0][at]) : 0,
                      at < bytes[1].size() ? std::to_integer<unsigned>(bytes[1][at]) : 0);
        differ.emplace_back(text.data());
        break;
    }
    return differ;
}

}  // namespace xenolith::tests
