#include "xenshim/domain/callback_line.h"

#include "xenshim/abi/callback.h"

namespace xenshim {

using abi::Callback;

void CallbackLine::reroute() {
    if (!has_controllers_) return;
    const std::scoped_lock lock(mutex_);
    // Read here, so that of two vCPUs that set it at once the one whose value stays has its way.
    const Callback to = abi::callback_of(params_.peek(abi::HVM_PARAM_CALLBACK_IRQ));
    if (!shared_info_.upcall_pending(0)) lower_locked();
    // Also when it stays where it was: an edge-triggered input gets a new edge, as on Xen.
    if (asserted_) drive_locked(false);
    gsi_ = to.gsi;
    follows_ = to.kind != Callback::Kind::kVector;
    if (asserted_) drive_locked(true);
}

void CallbackLine::take_up(bool has_own_vector) {
    if (!has_controllers_) return;
    const std::scoped_lock lock(mutex_);
    const Callback to = abi::callback_of(params_.peek(abi::HVM_PARAM_CALLBACK_IRQ));
    gsi_ = to.gsi;
    follows_ = to.kind != Callback::Kind::kVector;
    rises_ = shared_info_.upcall_rises(0);
    asserted_ = follows_ && !has_own_vector && shared_info_.upcall_pending(0);
    drive_locked(asserted_);
}

void CallbackLine::raise() {
    if (!follows_) return;
    const std::scoped_lock lock(mutex_);
    if (!shared_info_.upcall_pending(0)) return lower_locked();
    const std::uint32_t rises = shared_info_.upcall_rises(0);
    if (asserted_ && rises == rises_) return;
    // The guest cleared it and nobody looked: an edge-triggered input has to see the line fall.
    lower_locked();
    rises_ = rises;
    asserted_ = true;
    drive_locked(true);
}

void CallbackLine::lower_if_cleared() {
    const std::scoped_lock lock(mutex_);
    if (!shared_info_.upcall_pending(0)) lower_locked();
}

void CallbackLine::lower_locked() {
    if (!asserted_) return;
    asserted_ = false;
    drive_locked(false);
}

void CallbackLine::drive_locked(bool asserted) {
    if (gsi_ != 0) ports_.drive_callback_line(gsi_, asserted);
}

}  // namespace xenshim
