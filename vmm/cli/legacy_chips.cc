#include "vmm/cli/legacy_chips.h"

#include <algorithm>
#include <poll.h>
#include <unistd.h>
#include <vector>

#include <sys/timerfd.h>

#include "vmm/base/log.h"

namespace vmm::cli {

LegacyChips::LegacyChips(Machine& machine, xenshim::XenPlatform& platform, EventLoop& loop,
                         const std::atomic<bool>& at_rest)
    : machine_(machine),
      callback_line_(platform.domain().callback_line()),
      pic_([&platform] { platform.pic_output_changed(); }),
      ioapic_(kIoapicPins, {.send = [this](const auto& m) { send(m); },
                            .route_changed = [this](unsigned) { update_routes(); }}),
      irq0_(*this),
      pit_({.now_ns = [this] { return machine_.system_time_ns(); },
            .irq0 = irq0_,
            .deadline_changed = [this] { arm(); }}),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
    machine.pio().add(guests_pic_);
    machine.pio().add(pit_);
    machine.mmio().add(guests_ioapic_);
    machine.on_ioapic_eoi = [this](std::uint8_t vector) {
        callback_line_.look();
        ioapic_.eoi(vector);
    };
    platform.set_pic({.output =
                          [this] {
                              callback_line_.look();
                              return pic_.output();
                          },
                      .acknowledge = [this] { return pic_.acknowledge(); }});
    platform.set_callback_wire(
        {.drive = [this](unsigned gsi, bool asserted) { drive_callback(gsi, asserted); },
         .awaits_eoi = [this] { return ioapic_.in_service(callback_gsi_); },
         .is_open =
             [this](unsigned gsi) {
                 return !ioapic_.route(gsi).masked || (gsi < pic_.kInputs && pic_.output());
             }});
    loop.add(
        timer_.get(), [&at_rest] { return at_rest ? short{0} : short{POLLIN}; },
        [this](short) {
            std::uint64_t expirations = 0;
            [[maybe_unused]] const auto got =
                ::read(timer_.get(), &expirations, sizeof expirations);
            pit_.tick(machine_.system_time_ns());
            arm();
        });
}

bool LegacyChips::end_unreported(const std::function<bool(std::uint8_t vector)>& in_flight) {
    bool ended = false;
    for (unsigned pin = 0; pin < ioapic_.pins(); ++pin) {
        const auto route = ioapic_.route(pin);
        if (!route.message || !ioapic_.in_service(pin)) continue;
        const auto vector = static_cast<std::uint8_t>(route.message->data);
        if (in_flight(vector)) continue;
        ioapic_.eoi(vector);
        ended = true;
    }
    return ended;
}

void LegacyChips::restore_wires() {
    const std::scoped_lock lock(pins_mutex_);
    drivers_ = {};
    drivers_[kPitPin] = pit_.irq0_level() ? kPit : 0;
}

void LegacyChips::Irq0::set(bool level) {
    chips_.pic_.set_irq(0, level);
    chips_.drive_pin(kPitPin, kPit, level);
}

std::uint32_t LegacyChips::GuestsPic::read(IoAccess at) {
    chips_.callback_line_.look();
    return chips_.pic_.read(at);
}

void LegacyChips::GuestsPic::write(IoAccess at, std::uint32_t value) {
    chips_.callback_line_.look();
    chips_.pic_.write(at, value);
}

std::uint64_t LegacyChips::GuestsIoapic::read(IoAccess at) {
    chips_.callback_line_.look();
    return chips_.ioapic_.read(at);
}

void LegacyChips::GuestsIoapic::write(IoAccess at, std::uint64_t value) {
    chips_.callback_line_.look();
    chips_.ioapic_.write(at, value);
}

void LegacyChips::drive_pin(unsigned pin, Driver driver, bool asserted) {
    const std::scoped_lock lock(pins_mutex_);
    std::uint8_t& drivers = drivers_[pin];
    drivers = static_cast<std::uint8_t>(asserted ? drivers | driver : drivers & ~driver);
    ioapic_.set_irq(pin, drivers != 0);
}

void LegacyChips::drive_callback(unsigned gsi, bool asserted) {
    callback_gsi_ = gsi;
    drive_pin(gsi, kCallback, asserted);
    if (asserted) {
        pic_.set_irq(gsi, true);
    } else {
        pic_.withdraw(gsi);
    }
}

void LegacyChips::send(const devices::legacy::MsiMessage& message) {
    if (const auto sent = machine_.vm().signal_msi(message.address, message.data); !sent) {
        log_guest("ioapic", "%s", sent.error().what.c_str());
    }
}

// KVM learns from its routing table whose EOIs it has to report.
void LegacyChips::update_routes() {
    const std::scoped_lock lock(routes_mutex_);
    std::vector<kvm::MsiRoute> routes;
    for (unsigned pin = 0; pin < ioapic_.pins(); ++pin) {
        const auto route = ioapic_.route(pin);
        if (!route.message || !route.level_triggered) continue;
        routes.push_back({pin, route.message->address, route.message->data});
    }
    if (const auto set = machine_.vm().set_msi_routes(routes); !set) {
        log_guest("ioapic", "%s", set.error().what.c_str());
    }
}

// From the loop's thread and from vCPUs: what the timer is set to is the latest that was read.
void LegacyChips::arm() {
    const std::scoped_lock lock(arm_mutex_);
    itimerspec when{};
    if (const auto deadline = pit_.next_deadline_ns()) {
        const std::uint64_t at = std::max<std::uint64_t>(machine_.monotonic_of(*deadline), 1);
        when.it_value.tv_sec = static_cast<time_t>(at / 1'000'000'000);
        when.it_value.tv_nsec = static_cast<long>(at % 1'000'000'000);
    }
    ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

}  // namespace vmm::cli
