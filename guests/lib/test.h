// A guest that tests is a list of named tests. Each prints exactly one line,
//     test NAME: pass | FAIL why | skip why | ERROR why
// optionally after indented detail lines, and the last line is the verdict of all. ERROR means
// that the test could not be carried out; it is never a verdict on Xen's behaviour.
#pragma once

#include "runtime.h"

struct test {
    const char* name;
    void (*run)(void);
};

extern const struct test guest_tests[];

#define TESTS(...) const struct test guest_tests[] = {__VA_ARGS__, {NULL, NULL}}

__attribute__((noreturn, format(printf, 1, 2))) void test_fail(const char* fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void test_skip(const char* fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void test_error(const char* fmt, ...);

#define FAIL test_fail
#define SKIP test_skip
#define ERROR test_error

#define CHECK(condition)                         \
    do {                                         \
        if (!(condition)) {                      \
            test_fail("not so: %s", #condition); \
        }                                        \
    } while (0)

// Compares and, if different, ends the test naming the thing and both values.
void expect(const char* what, unsigned long long got, unsigned long long want);
// That a page which was populated holds zeroes. On Xen it holds what its last owner left, if that
// one lives (it scrubs only what the dead leave), so this is not asked where runs are compared.
void expect_fresh(unsigned long gfn);
// The same for a hypercall's result, shown as Xen's errors are written.
void expect_result(const char* what, long got, long want);

// Shows a result that is not compared here: it is for laying beside the real Xen's (tests/golden).
void show_result(const char* what, long got);

#define EXPECT(got, want) expect(#got, (unsigned long long)(got), (unsigned long long)(want))
#define EXPECT_RESULT(got, want) expect_result(#got, (got), (want))

// For what must work before the question can be put.
#define NEED(call)                                                   \
    do {                                                             \
        long need_ = (call);                                         \
        if (need_ != 0) {                                            \
            char name_[24];                                          \
            test_error("%s = %s", #call, result_name(name_, need_)); \
        }                                                            \
    } while (0)

// "-EINVAL", "0", "0x40011": into a buffer of 24 bytes.
const char* result_name(char* buffer, long result);

// Tables of facts: a mismatch is a detail line, and table_end() fails the test if there were any.
void table_fact(const char* what, long got, long want);
void table_end(void);
