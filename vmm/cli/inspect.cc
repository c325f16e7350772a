// `xenolith inspect`: a saved guest's file, for people and their scripts.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "migration/format/reader.h"
#include "migration/show.h"
#include "vmm/cli/commands.h"
#include "vmm/cli/vm_state.h"

namespace vmm::cli {

namespace format = migration::format;
using config::ExitStatus;
using nlohmann::ordered_json;

namespace {

// One record, by what this build knows of its kind. A kind or a version that it does not know is
// shown without its content: a file of another version can be looked at.
ordered_json to_json(const format::Record& record) {
    ordered_json out = {{"name", record.name},         {"version", record.version},
                        {"instance", record.instance}, {"mandatory", record.mandatory},
                        {"offset", record.offset},     {"bytes", record.payload.size()}};
    for (const migration::Kind& kind : known_kinds()) {
        if (kind.section.name != record.name) continue;
        const auto content = kind.show(record.payload, record.version);
        if (content) {
            out["content"] = *content;
        } else {
            out["refused"] = content.error();
        }
        return out;
    }
    out["refused"] = "this version of xenolith does not know it";
    return out;
}

std::uint64_t data_bytes(const format::FileSource& source, const format::Memory& memory) {
    // Of a sparse file what is really there.
    auto& file = const_cast<format::FileSource&>(source);  // NOLINT: it moves a file's position
    const std::uint64_t end = memory.data_at + memory.pages * format::kPageSize;
    std::uint64_t bytes = 0;
    for (std::uint64_t at = memory.data_at; at < end; at += format::kPageSize) {
        const std::uint64_t data = file.next_data(at);
        if (data >= end) break;
        at = data - data % format::kPageSize;
        bytes += format::kPageSize;
    }
    return bytes;
}

ordered_json to_json(const format::FileSource& source, const format::Memory& memory) {
    ordered_json runs = ordered_json::array();
    for (const format::PageRun& run : memory.runs) {
        runs.push_back({{"gfn", run.gfn}, {"pages", run.pages}});
    }
    return {
        {"offset", memory.offset},   {"round", memory.round},
        {"zero", memory.zero},       {"pages", memory.pages},
        {"data_at", memory.data_at}, {"data_bytes", memory.zero ? 0 : data_bytes(source, memory)},
        {"runs", std::move(runs)}};
}

ordered_json to_json(const format::FileSource& source, const format::Index& index) {
    ordered_json out = {{"file", source.name()},
                        {"format", format::kVersion},
                        {"id", migration::show(index.start.id)},
                        {"epoch", index.start.epoch},
                        {"bytes", index.end.length},
                        {"records", ordered_json::array()},
                        {"memory", ordered_json::array()}};
    out["records"].push_back(to_json(index.start.profile));
    for (const auto& record : index.records) {
        out["records"].push_back(to_json(record));
    }
    for (const auto& memory : index.memory) {
        out["memory"].push_back(to_json(source, memory));
    }
    return out;
}

std::string text_of(const ordered_json& value) {
    return value.is_string() ? value.get<std::string>()
                             : value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// The first `member` of a record's content.
std::string content_of(const ordered_json& all, std::string_view record, const char* member) {
    for (const auto& each : all["records"]) {
        if (each["name"] == record && each.contains("content") &&
            each["content"].contains(member)) {
            return text_of(each["content"][member]);
        }
    }
    return "-";
}

void print_text(const ordered_json& all) {
    std::printf("%s: a guest of xenolith, %s bytes\n", text_of(all["file"]).c_str(),
                text_of(all["bytes"]).c_str());
    std::printf("  id %s, epoch %s\n", text_of(all["id"]).c_str(), text_of(all["epoch"]).c_str());
    std::printf("  profile %s, quirks %s\n", content_of(all, "vm.profile", "profile").c_str(),
                content_of(all, "vm.profile", "quirks").c_str());
    std::printf("  name %s, type %s, %s vCPUs, %s bytes of RAM\n",
                content_of(all, "vm.config", "name").c_str(),
                content_of(all, "vm.config", "type").c_str(),
                content_of(all, "vm.config", "vcpus").c_str(),
                content_of(all, "vm.config", "memory_bytes").c_str());
    std::printf("%12s %10s  %-24s %8s %8s\n", "OFFSET", "BYTES", "RECORD", "INSTANCE", "VERSION");
    for (const auto& record : all["records"]) {
        std::printf("%12s %10s  %-24s %8s %8s%s\n", text_of(record["offset"]).c_str(),
                    text_of(record["bytes"]).c_str(), text_of(record["name"]).c_str(),
                    text_of(record["instance"]).c_str(), text_of(record["version"]).c_str(),
                    record.contains("refused") ? ("  " + text_of(record["refused"])).c_str() : "");
    }
    for (const auto& memory : all["memory"]) {
        std::printf("%12s %10s  %-24s", text_of(memory["offset"]).c_str(),
                    text_of(memory["data_bytes"]).c_str(), "memory");
        for (const auto& run : memory["runs"]) {
            std::printf(" gfn 0x%llx, %llu pages;", run["gfn"].get<unsigned long long>(),
                        run["pages"].get<unsigned long long>());
        }
        std::printf(" round %s\n", text_of(memory["round"]).c_str());
    }
}

}  // namespace

ExitStatus inspect(const config::Args& args) {
    const auto request = config::parse_inspect(args);
    if (!request) return report(request.error());
    if (!request->help.empty()) {
        std::fputs(request->help.c_str(), stdout);
        return ExitStatus::kPoweroff;
    }
    const auto done = [&]() -> Result<void> {
        const auto file = TRY(format::FileSource::open(request->file));
        const format::Index index = TRY(format::read_index(*file));
        if (request->verify) TRY(format::verify(*file, index));
        ordered_json all = to_json(*file, index);
        if (request->verify) all["verified"] = true;
        if (request->json) {
            // A guest may have put any bytes into its xenstore.
            std::printf("%s\n",
                        all.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
        } else {
            print_text(all);
            if (request->verify) std::printf("every byte is as it was written\n");
        }
        return {};
    }();
    return done ? ExitStatus::kPoweroff : report(done.error());
}

}  // namespace vmm::cli
