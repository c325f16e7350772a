// What a device model does to a guest, done by the guest to itself (--privileges dm): ranges of
// pages get a type, and are said to be modified. The operations are hvm_ops in the older releases
// and dm_ops in the newer ones; the cases run them with and without stops. `privileged=no`: the
// refusals that any guest hears.

#include "device_model.h"

#define PAGES 700  // two looks at whether to stop, at least

static unsigned long first(void) {
    return spare_gfn(PAGES - 1);
}

static void need_privilege(void) {
    char text[8];
    const char* privileged = option("privileged", text, sizeof(text));
    if (privileged != NULL && strcmp(privileged, "no") == 0) {
        SKIP("without the privilege");
    }
}

static void types(void) {
    need_privilege();
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, RAM_RO), 0);
    expect("the page before", type_of(first() - 1), RAM_RW);
    expect("the page behind", type_of(first() + PAGES), RAM_RW);
    for (unsigned i = 0; i < PAGES; i++) {
        expect("a page of the range", type_of(first() + i), RAM_RO);
    }
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, RAM_RW), 0);
    for (unsigned i = 0; i < PAGES; i++) {
        expect("a page of the range, again", type_of(first() + i), RAM_RW);
    }
}

static void holes(void) {
    need_privilege();
    unsigned long page[] = {first()};
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, page, 1, 0), 1);
    expect("a hole", type_of(first()), MMIO_DM);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), 1, RAM_RW), -EINVAL);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), 1, MMIO_DM), 0);
    EXPECT_RESULT(reservation(XENMEM_populate_physmap, page, 1, 0), 1);
    expect("RAM", type_of(first()), RAM_RW);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, 3), -EINVAL);
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), 0, RAM_RO), -EINVAL);
}

static void modified(void) {
    need_privilege();
    EXPECT_RESULT(on_range(HVMOP_modified_memory, first(), PAGES, 0), 0);
}

static void refused(void) {
    char text[8];
    if (option("privileged", text, sizeof(text)) == NULL) {
        SKIP("with the privilege");
    }
    // Nobody is found under DOMID_SELF when a remote domain is looked for.
    EXPECT_RESULT(on_range(HVMOP_set_mem_type, first(), PAGES, RAM_RO), -ESRCH);
    EXPECT_RESULT(on_range(HVMOP_modified_memory, first(), PAGES, 0), -ESRCH);
    expect("a page of the range", type_of(first()), RAM_RW);
}

TESTS({"devmodel.types", types}, {"devmodel.holes", holes}, {"devmodel.modified", modified},
      {"devmodel.refused", refused});
