// The handlers, one per hypercall, each in a file of its own name.
#pragma once

#include "xenshim/hypercall/call.h"

namespace xenshim {

abi::Outcome memory_op(Call& call);
abi::Outcome multicall(Call& call);
abi::Outcome set_timer_op(Call& call);
abi::Outcome xen_version(Call& call);
abi::Outcome console_io(Call& call);
abi::Outcome grant_table_op(Call& call);
abi::Outcome vm_assist(Call& call);
abi::Outcome vcpu_op(Call& call);
abi::Outcome sched_op(Call& call);
abi::Outcome event_channel_op(Call& call);
abi::Outcome physdev_op(Call& call);
abi::Outcome hvm_op(Call& call);
abi::Outcome dm_op(Call& call);

// privileged.cc: those that only refuse.
abi::Outcome platform_op(Call& call);
abi::Outcome mmuext_op(Call& call);
abi::Outcome sysctl(Call& call);
abi::Outcome domctl(Call& call);
abi::Outcome tmem_op(Call& call);
abi::Outcome xenpmu_op(Call& call);
abi::Outcome hypfs_op(Call& call);
abi::Outcome paging_domctl_cont(Call& call);
abi::Outcome not_compiled_in(Call& call);

}  // namespace xenshim
