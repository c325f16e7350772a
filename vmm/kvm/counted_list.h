// KVM's lists: a count, a word (padding or flags), then entries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace vmm::kvm {

template <class Entry>
class CountedList {
  public:
    explicit CountedList(std::size_t count) : bytes_(kHead + count * sizeof(Entry)) {
        set_count(static_cast<std::uint32_t>(count));
    }
    void* data() { return bytes_.data(); }
    std::uint32_t count() const {
        std::uint32_t value = 0;
        std::memcpy(&value, bytes_.data(), sizeof value);
        return value;
    }
    Entry get(std::size_t i) const {
        Entry entry;
        std::memcpy(&entry, bytes_.data() + kHead + i * sizeof(Entry), sizeof entry);
        return entry;
    }
    void set(std::size_t i, const Entry& entry) {
        std::memcpy(bytes_.data() + kHead + i * sizeof(Entry), &entry, sizeof entry);
    }

  private:
    static constexpr std::size_t kHead = 8;
    void set_count(std::uint32_t value) { std::memcpy(bytes_.data(), &value, sizeof value); }
    std::vector<std::byte> bytes_;
};

}  // namespace vmm::kvm
