#include "vmm/kvm/cpu_model.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>

namespace vmm::kvm {
namespace {

enum Register { kEax, kEbx, kEcx, kEdx };

struct FeatureWord {
    std::uint32_t function, index;
    Register where;
    // By bit, from 0 on; "?": shown by its number, "-": not a feature.
    std::string_view names;
};

// Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. No features are: what mirrors a bit of a
// control register (osxsave, ospke), what says that something is *not* done (fdp_excptn_only,
// zero_fcs_fds), and in leaf 80000001 what repeats leaf 1.
constexpr FeatureWord kWords[] = {
    {1, 0, kEdx,
     "fpu vme de pse tsc msr pae mce cx8 apic ? sep mtrr pge mca cmov pat pse36 pn clflush "
     "? dts acpi mmx fxsr sse sse2 ss - tm ia64 pbe"},
    {1, 0, kEcx,
     "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr "
     "pdcm ? pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx "
     "f16c rdrand hypervisor"},
    {6, 0, kEax, "dtherm ida arat"},
    {7, 0, kEbx,
     "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a "
     "avx512f avx512dq rdseed adx smap avx512ifma ? clflushopt clwb intel_pt avx512pf "
     "avx512er avx512cd sha_ni avx512bw avx512vl"},
    {7, 0, kEcx,
     "prefetchwt1 avx512vbmi umip pku - waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq "
     "avx512_vnni avx512_bitalg tme avx512_vpopcntdq ? la57 - - - - - rdpid kl "
     "bus_lock_detect cldemote ? movdiri movdir64b enqcmd sgx_lc pks"},
    {7, 0, kEdx,
     "? sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr ? ? avx512_vp2intersect srbds_ctrl "
     "md_clear rtm_always_abort ? tsx_force_abort serialize - tsxldtrk ? pconfig arch_lbr "
     "ibt ? amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d "
     "arch_capabilities core_capabilities ssbd"},
    {7, 1, kEax,
     "sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext ? fzrm "
     "fsrs fsrc ? ? ? ? fred lkgs wrmsrns nmi_src amx_fp16 hreset avx_ifma ? ? lam msrlist"},
    {7, 1, kEdx,
     "? ? ? ? avx_vnni_int8 avx_ne_convert ? ? amx_complex ? avx_vnni_int16 ? ? ? "
     "prefetchiti ? ? ? ? avx10"},
    {7, 2, kEdx, "psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no"},
    {0xd, 1, kEax, "xsaveopt xsavec xgetbv1 xsaves xfd"},
    {0x80000001, 0, kEcx,
     "lahf_lm - svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop "
     "skinit wdt ? lwp fma4 tce ? nodeid_msr ? tbm topoext perfctr_core perfctr_nb ? bpext "
     "ptsc perfctr_llc mwaitx"},
    {0x80000001, 0, kEdx,
     "- - - - - - - - - - - syscall - - - - - - ? mp nx ? mmxext - - fxsr_opt pdpe1gb "
     "rdtscp ? lm 3dnowext 3dnow"},
    {0x80000007, 0, kEdx, "- - - - - - - - nonstop_tsc"},
    {0x80000008, 0, kEbx,
     "clzero irperf xsaveerptr invlpgb rdpru ? mba ? mcommit wbnoinvd ? ? amd_ibpb "
     "int_wbinvd amd_ibrs amd_stibp ibrs_always_on stibp_always_on ibrs_preferred "
     "ibrs_same_mode no_efer_lmsle invlpgb_nested ? ppin amd_ssbd virt_ssbd amd_ssb_no "
     "cppc amd_psfd btc_no ibpb_ret"},
    {0x80000021, 0, kEax,
     "no_nested_data_bp fs_gs_base_ns lfence_rdtsc ? ? ? null_sel_clr_base "
     "upper_address_ignore auto_ibrs no_smm_ctl_msr"},
};

constexpr const char* kXsaveComponents[] = {"x87",    "sse",       "avx",      "bndregs",  "bndcsr",
                                            "opmask", "zmm_hi256", "hi16_zmm", "pt",       "pkru",
                                            "pasid",  "cet_u",     "cet_s",    "hdc",      "uintr",
                                            "lbr",    "hwp",       "xtilecfg", "xtiledata"};

// What repeats leaf 1's EDX in AMD's leaf 80000001.
constexpr std::uint32_t kRepeated = 0x0183f3ff;

std::string_view register_name(Register where) {
    constexpr std::string_view kNames[] = {"eax", "ebx", "ecx", "edx"};
    return kNames[where];
}

// A feature that has no name in the table: the same in messages and in files.
std::string by_number(const FeatureWord& word, unsigned bit) {
    char text[48];
    std::snprintf(text, sizeof text, "cpuid-%x.%x-%s-%u", word.function, word.index,
                  register_name(word.where).data(), bit);
    return text;
}

// The name of each bit; empty: it is no feature.
using Names = std::array<std::string, 32>;
std::array<Names, std::size(kWords)> make_names() {
    std::array<Names, std::size(kWords)> all;
    for (std::size_t w = 0; w < std::size(kWords); ++w) {
        std::string_view names = kWords[w].names;
        for (unsigned bit = 0; bit < 32; ++bit) {
            const std::string_view name = names.substr(0, names.find(' '));
            names.remove_prefix(std::min(names.size(), name.size() + 1));
            if (name == "-") continue;
            all[w][bit] = name.empty() || name == "?" ? by_number(kWords[w], bit) : name;
        }
    }
    return all;
}
const std::array<Names, std::size(kWords)>& names() {
    static const auto all = make_names();
    return all;
}

std::uint32_t features_in(std::size_t word) {
    std::uint32_t bits = 0;
    for (unsigned bit = 0; bit < 32; ++bit) {
        if (!names()[word][bit].empty()) bits |= 1u << bit;
    }
    return bits;
}

struct Place {
    std::size_t word;
    unsigned bit;
};
std::optional<Place> find_feature(std::string_view name) {
    for (std::size_t w = 0; w < std::size(kWords); ++w) {
        for (unsigned bit = 0; bit < 32; ++bit) {
            if (names()[w][bit] == name) return Place{w, bit};
        }
    }
    return std::nullopt;
}

std::string component_name(unsigned i) {
    return i < std::size(kXsaveComponents) ? kXsaveComponents[i] : "component-" + std::to_string(i);
}
constexpr unsigned kFirstWithPlace = 2;

// What a CPU without the leaf answers, for what concerns us: nothing is there.
CpuidLeafSaved leaf_of(const CpuidState& state, std::uint32_t function, std::uint32_t index = 0) {
    const auto found =
        std::find_if(state.leaves.begin(), state.leaves.end(), [&](const CpuidLeafSaved& leaf) {
            return leaf.function == function && (!leaf.indexed || leaf.index == index);
        });
    return found == state.leaves.end() ? CpuidLeafSaved{} : *found;
}

std::uint32_t value_of(const CpuidLeafSaved& leaf, Register where) {
    switch (where) {
        case kEax: return leaf.eax;
        case kEbx: return leaf.ebx;
        case kEcx: return leaf.ecx;
        default: return leaf.edx;
    }
}

std::string vendor_of(const CpuidState& state) {
    const auto leaf = leaf_of(state, 0);
    std::string name(12, '\0');
    std::memcpy(name.data(), &leaf.ebx, 4);
    std::memcpy(name.data() + 4, &leaf.edx, 4);
    std::memcpy(name.data() + 8, &leaf.ecx, 4);
    // It may come from a stream, and goes to a terminal.
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return name;
}

std::uint32_t& register_of(CpuidLeaf& leaf, Register where) {
    switch (where) {
        case kEax: return leaf.eax;
        case kEbx: return leaf.ebx;
        case kEcx: return leaf.ecx;
        default: return leaf.edx;
    }
}

// The next word of a line; empty: there is none.
std::string_view next_word(std::string_view& line) {
    constexpr std::string_view kSpaces = " \t\r";
    line.remove_prefix(std::min(line.size(), line.find_first_not_of(kSpaces)));
    const std::string_view word = line.substr(0, line.find_first_of(kSpaces));
    line.remove_prefix(word.size());
    return word;
}

std::optional<std::uint32_t> number(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

std::string quoted(std::string_view text) {
    constexpr std::size_t kMost = 40;
    std::string out = "'";
    for (const char c : text.substr(0, kMost)) {
        out += c < ' ' || c > '~' ? '?' : c;
    }
    return out + (text.size() > kMost ? "...'" : "'");
}

}  // namespace

static_assert(std::size(kWords) == CpuModel::kWordCount);

CpuModel CpuModel::of(const CpuidState& leaves) {
    CpuModel model;
    model.vendor_ = vendor_of(leaves);
    const std::uint32_t bits = leaf_of(leaves, 0x80000008).eax;
    model.physical_bits_ = bits & 0xff;
    model.linear_bits_ = bits >> 8 & 0xff;
    for (std::size_t w = 0; w < std::size(kWords); ++w) {
        const auto& [function, index, where, text] = kWords[w];
        model.words_[w] = value_of(leaf_of(leaves, function, index), where) & features_in(w);
    }
    const auto xsave = leaf_of(leaves, 0xd);
    const std::uint64_t there = std::uint64_t{xsave.edx} << 32 | xsave.eax;
    for (unsigned i = 0; i < model.components_.size(); ++i) {
        if ((there >> i & 1) == 0) continue;
        model.components_[i].there = true;
        if (i < kFirstWithPlace) continue;
        const auto place = leaf_of(leaves, 0xd, i);
        model.components_[i].offset = place.ebx;
        model.components_[i].size = place.eax;
    }
    return model;
}

std::vector<std::string> CpuModel::features() const {
    std::vector<std::string> out;
    for (std::size_t w = 0; w < words_.size(); ++w) {
        for (unsigned bit = 0; bit < 32; ++bit) {
            if ((words_[w] >> bit & 1) != 0) out.push_back(names()[w][bit]);
        }
    }
    return out;
}

std::vector<std::string> CpuModel::xsave() const {
    std::vector<std::string> out;
    for (unsigned i = 0; i < components_.size(); ++i) {
        const Component& component = components_[i];
        if (!component.there) continue;
        out.push_back(component_name(i));
        if (i < kFirstWithPlace) continue;
        out.back() += "@" + std::to_string(component.offset) + "+" + std::to_string(component.size);
    }
    return out;
}

std::string CpuModel::to_text() const {
    std::string out = "vendor " + vendor_ + "\naddress_bits " + std::to_string(physical_bits_) +
                      " " + std::to_string(linear_bits_) + "\n";
    constexpr std::size_t kColumns = 80;
    const auto lines = [&out](const std::string& key, const std::vector<std::string>& words) {
        std::string line = key;
        for (const std::string& word : words) {
            if (line.size() + 1 + word.size() > kColumns) {
                out += line + "\n";
                line = key;
            }
            line += " " + word;
        }
        if (line != key) out += line + "\n";
    };
    lines("features", features());
    lines("xsave", xsave());
    return out;
}

Expected<CpuModel, std::string> CpuModel::parse(std::string_view text) {
    CpuModel model;
    std::size_t number_of_line = 0;
    const auto wrong = [&](const std::string& why) {
        return Failure{"line " + std::to_string(number_of_line) + ": " + why};
    };
    const auto parse_component = [&](std::string_view word) -> Expected<void, std::string> {
        const std::string_view name = word.substr(0, word.find('@'));
        unsigned i = 0;
        while (i < model.components_.size() && component_name(i) != name) {
            ++i;
        }
        if (i == model.components_.size()) return wrong("xsave has no component " + quoted(name));
        Component& component = model.components_[i];
        component.there = true;
        if (i < kFirstWithPlace && name == word) return {};
        const std::string_view place = word.substr(std::min(word.size(), name.size() + 1));
        const std::size_t plus = place.find('+');
        const auto offset = number(place.substr(0, plus));
        const auto size =
            plus == std::string_view::npos ? std::nullopt : number(place.substr(plus + 1));
        if (i < kFirstWithPlace || !offset || !size) {
            return wrong(quoted(word) + " is not NAME@OFFSET+SIZE");
        }
        component.offset = *offset;
        component.size = *size;
        return {};
    };
    while (!text.empty()) {
        ++number_of_line;
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        line = line.substr(0, line.find('#'));
        const std::string_view key = next_word(line);
        if (key.empty()) continue;
        if (key == "vendor") {
            // Of some of them spaces are a part.
            constexpr std::size_t kLetters = 12;
            model.vendor_ = line.substr(std::min<std::size_t>(line.size(), 1), kLetters);
            if (model.vendor_.size() != kLetters) return wrong("a vendor has 12 letters");
            line.remove_prefix(1 + kLetters);
        } else if (key == "address_bits") {
            const auto physical = number(next_word(line)), linear = number(next_word(line));
            // What x86-64 has at least and at most.
            if (!physical || *physical < 36 || *physical > 52) {
                return wrong("physical addresses have 36 to 52 bits");
            }
            if (!linear || (*linear != 48 && *linear != 57)) {
                return wrong("linear addresses have 48 or 57 bits");
            }
            model.physical_bits_ = *physical;
            model.linear_bits_ = *linear;
        } else if (key == "features") {
            for (auto word = next_word(line); !word.empty(); word = next_word(line)) {
                const auto place = find_feature(word);
                if (!place) return wrong("there is no feature " + quoted(word));
                model.words_[place->word] |= 1u << place->bit;
            }
        } else if (key == "xsave") {
            for (auto word = next_word(line); !word.empty(); word = next_word(line)) {
                TRY(parse_component(word));
            }
        } else {
            return wrong(quoted(key) + " is not vendor, address_bits, features or xsave");
        }
        if (const auto more = next_word(line); !more.empty()) {
            return wrong(quoted(more) + " is too much");
        }
    }
    if (model.vendor_.empty()) return Failure{std::string("it names no vendor")};
    if (model.physical_bits_ == 0) return Failure{std::string("it has no address_bits")};
    return model;
}

std::vector<std::string> CpuModel::missing_from(const CpuModel& host) const {
    std::vector<std::string> out;
    // Without its vendor's quirks and MSRs no guest goes on, whatever the bits say.
    if (vendor_ != host.vendor_) out.push_back("a CPU of " + vendor_);
    CpuModel gone;
    for (std::size_t w = 0; w < words_.size(); ++w) {
        gone.words_[w] = words_[w] & ~host.words_[w];
    }
    const auto names = gone.features();
    out.insert(out.end(), names.begin(), names.end());
    for (unsigned i = 0; i < components_.size(); ++i) {
        if (!components_[i].there || components_[i] == host.components_[i]) continue;
        out.push_back("xsave of " + component_name(i) +
                      (host.components_[i].there ? " at its place" : ""));
    }
    if (physical_bits_ > host.physical_bits_) {
        out.push_back("physical addresses of " + std::to_string(physical_bits_) + " bits");
    }
    if (linear_bits_ > host.linear_bits_) {
        out.push_back("linear addresses of " + std::to_string(linear_bits_) + " bits");
    }
    return out;
}

Expected<void, std::string> CpuModel::intersect(const CpuModel& other) {
    if (vendor_ != other.vendor_) {
        return Failure{"no guest goes from a CPU of " + vendor_ + " to one of " + other.vendor_};
    }
    for (std::size_t w = 0; w < words_.size(); ++w) {
        words_[w] &= other.words_[w];
    }
    for (unsigned i = 0; i < components_.size(); ++i) {
        if (components_[i] != other.components_[i]) components_[i] = {};
    }
    physical_bits_ = std::min(physical_bits_, other.physical_bits_);
    linear_bits_ = std::min(linear_bits_, other.linear_bits_);
    return {};
}

void CpuModel::limit(std::vector<CpuidLeaf>& leaves) const {
    constexpr std::uint32_t kXsave = 0xd, kExtended = 0x80000001, kSizes = 0x80000008;
    constexpr std::uint32_t kLegacyArea = 512 + 64;
    for (CpuidLeaf& leaf : leaves) {
        for (std::size_t w = 0; w < std::size(kWords); ++w) {
            const FeatureWord& word = kWords[w];
            if (leaf.function != word.function || (leaf.indexed && leaf.index != word.index)) {
                continue;
            }
            register_of(leaf, word.where) &= words_[w] | ~features_in(w);
        }
        if (leaf.function == kExtended) leaf.edx &= words_[0] | ~kRepeated;
        if (leaf.function == kSizes) {
            leaf.eax = (leaf.eax & ~0xffffu) | std::min(leaf.eax & 0xff, physical_bits_) |
                       std::min(leaf.eax >> 8 & 0xff, linear_bits_) << 8;
        }
        if (leaf.function != kXsave || leaf.index == 1) continue;
        if (leaf.index == 0) {
            std::uint64_t there = std::uint64_t{leaf.edx} << 32 | leaf.eax;
            std::uint32_t end = kLegacyArea;
            for (unsigned i = 0; i < components_.size(); ++i) {
                const Component& component = components_[i];
                if (!component.there) there &= ~(std::uint64_t{1} << i);
                if ((there >> i & 1) != 0) end = std::max(end, component.offset + component.size);
            }
            leaf.eax = static_cast<std::uint32_t>(there);
            leaf.edx = static_cast<std::uint32_t>(there >> 32);
            leaf.ecx = std::min(leaf.ecx, end);  // 0 without XSAVE
        } else if (leaf.index < components_.size() && !components_[leaf.index].there &&
                   (leaf.ecx & 1) == 0) {
            // Bit 0: the supervisor's, which sub-leaf 1 announces.
            leaf.eax = leaf.ebx = leaf.ecx = leaf.edx = 0;
        }
    }
}

}  // namespace vmm::kvm
