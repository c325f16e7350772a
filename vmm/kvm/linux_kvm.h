// <linux/kvm.h> as C sees it.
//
// Debian 12's header declares flexible arrays through a macro that puts an empty struct in front
// of them. In C++ an empty struct has size 1, which moves the array, grows the struct and, as
// ioctl numbers hold the struct's size, changes those too. So the macro is replaced here, and this
// is the one place that includes the kernel's header.
#pragma once

#include <linux/stddef.h>

#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]  // NOLINT: the kernel's own name

#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_irq_routing) == 8);
