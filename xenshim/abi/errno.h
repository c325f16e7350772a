// Xen's error numbers, as the guest sees them (negated) in RAX. From Xen's public/errno.h; a host
// errno is never passed through.
#pragma once

#include <cstdint>

#include "vmm/base/result.h"

namespace xenshim {

enum Errno : std::int32_t {
    XEN_EPERM = 1,
    XEN_ENOENT = 2,
    XEN_ESRCH = 3,
    XEN_E2BIG = 7,
    XEN_EAGAIN = 11,
    XEN_ENOMEM = 12,
    XEN_EACCES = 13,
    XEN_EFAULT = 14,
    XEN_EBUSY = 16,
    XEN_EEXIST = 17,
    XEN_EXDEV = 18,
    XEN_ENODEV = 19,
    XEN_ENXIO = 6,
    XEN_EINVAL = 22,
    XEN_ENOSPC = 28,
    XEN_EDOM = 33,
    XEN_ERANGE = 34,
    XEN_ENOSYS = 38,
    XEN_ENODATA = 61,
    XEN_EOVERFLOW = 75,
    XEN_EILSEQ = 84,
    XEN_EOPNOTSUPP = 95,
    XEN_ENOBUFS = 105,
};

// A guest's mistake is a value: the errno it hears.
template <class T>
using GuestResult = vmm::Expected<T, Errno>;

inline vmm::Failure<Errno> refuse(Errno code) {
    return vmm::Failure{code};
}

}  // namespace xenshim
