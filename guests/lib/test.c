#include "test.h"

enum outcome { PASS, FAILED, SKIPPED, ERRORS, OUTCOMES };

static struct context test_context;
static char why[600];
static unsigned table_mismatches;
static unsigned table_facts;

// What this test has measured and shown already, by hash: loops repeat themselves.
static bool facts_wanted;
static uint32_t facts_shown[1024];
static char facts_text[16384];
static unsigned facts_size;

static void print_facts(void) {
    console_write(facts_text, facts_size);
    facts_size = 0;
}

static void end_test(enum outcome outcome, const char* fmt, va_list args) __attribute__((noreturn));

static void end_test(enum outcome outcome, const char* fmt, va_list args) {
    format(why, sizeof(why), fmt, args);
    context_restore(&test_context, outcome);
}

void test_fail(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    end_test(FAILED, fmt, args);
}

void test_skip(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    end_test(SKIPPED, fmt, args);
}

void test_error(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    end_test(ERRORS, fmt, args);
}

// With the word `facts` on the command line a guest shows all that it compares, so that runs on two
// hypervisors can be laid side by side: a line for each thing and value, the first time a test
// meets the two together.
static void show_fact(const char* what, const char* value) {
    if (!facts_wanted) {
        return;
    }
    uint32_t hash = 2166136261u;  // FNV-1a
    for (const char* s = what; *s != 0; s++) {
        hash = (hash ^ (uint8_t)*s) * 16777619u;
    }
    for (const char* s = value; *s != 0; s++) {
        hash = (hash ^ (uint8_t)*s) * 16777619u;
    }
    hash |= 1;  // 0 is a free place
    uint32_t place = hash / 2 % ARRAY_SIZE(facts_shown);
    for (uint32_t tries = 0; tries < 16; tries++) {
        if (facts_shown[place] == hash) {
            return;
        }
        if (facts_shown[place] == 0) {
            facts_shown[place] = hash;
            break;
        }
        place = (place + 1) % ARRAY_SIZE(facts_shown);
    }
    // Shown when the test is over: printing takes hypercalls, and a test may be about time.
    if (facts_size + strlen(what) + strlen(value) + 8 > sizeof(facts_text)) {
        print_facts();
    }
    facts_size += (unsigned)format_to(facts_text + facts_size, sizeof(facts_text) - facts_size,
                                      "  %s = %s\n", what, value);
}

void expect(const char* what, unsigned long long got, unsigned long long want) {
    char value[24];
    format_to(value, sizeof(value), "0x%llx", got);
    show_fact(what, value);
    if (got != want) {
        test_fail("%s is 0x%llx, should be 0x%llx", what, got, want);
    }
}

void expect_fresh(unsigned long gfn) {
    const volatile unsigned long* words = (const volatile unsigned long*)(gfn * PAGE_SIZE);
    if (facts_wanted) {
        return;
    }
    for (size_t i = 0; i < PAGE_SIZE / sizeof(*words); i++) {
        if (words[i] != 0) {
            test_fail("a populated page holds 0x%lx", words[i]);
        }
    }
}

const char* result_name(char* buffer, long result) {
    static const struct {
        int value;
        const char* name;
    } errors[] = {
        {EPERM, "EPERM"},           {ENOENT, "ENOENT"}, {ESRCH, "ESRCH"},
        {ENXIO, "ENXIO"},           {E2BIG, "E2BIG"},   {ENOMEM, "ENOMEM"},
        {EACCES, "EACCES"},         {EFAULT, "EFAULT"}, {EBUSY, "EBUSY"},
        {EEXIST, "EEXIST"},         {ENODEV, "ENODEV"}, {EINVAL, "EINVAL"},
        {ENOSPC, "ENOSPC"},         {EDOM, "EDOM"},     {ENOSYS, "ENOSYS"},
        {ENODATA, "ENODATA"},       {EILSEQ, "EILSEQ"}, {EOVERFLOW, "EOVERFLOW"},
        {EOPNOTSUPP, "EOPNOTSUPP"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
        if (result == -errors[i].value) {
            format_to(buffer, 24, "-%s", errors[i].name);
            return buffer;
        }
    }
    format_to(buffer, 24, result < 10 && result > -4096 ? "%ld" : "0x%lx", result);
    return buffer;
}

void expect_result(const char* what, long got, long want) {
    char a[24];
    char b[24];
    show_fact(what, result_name(a, got));
    if (got != want) {
        test_fail("%s = %s, should be %s", what, result_name(a, got), result_name(b, want));
    }
}

void show_result(const char* what, long got) {
    char value[24];
    show_fact(what, result_name(value, got));
}

void table_fact(const char* what, long got, long want) {
    char a[24];
    char b[24];
    table_facts++;
    show_fact(what, result_name(a, got));
    if (got != want) {
        table_mismatches++;
        print("  %s: got %s, Xen says %s\n", what, result_name(a, got), result_name(b, want));
    }
}

void table_end(void) {
    if (table_mismatches != 0) {
        test_fail("%u of %u facts differ", table_mismatches, table_facts);
    }
}

// `rounds` on the command line: each test so many times, for the long form of tests that count.
static void run_caught(void* argument) {
    const struct test* test = argument;
    for (uint64_t round = option_number("rounds", 1); round > 0; round--) {
        test->run();
        interrupts_off();
    }
}

__attribute__((weak)) void guest_main(void) {
    unsigned count[OUTCOMES] = {0};
    static const char* const names[OUTCOMES] = {"pass", "FAIL", "skip", "ERROR"};
    char only[40];
    const char* filter = option("only", only, sizeof(only));
    facts_wanted = has_option("facts");
    if (direct_calls != NULL && !facts_wanted) {  // no fact: Xen's page has one of the two itself
        print("hypercalls by %s\n", direct_calls);
    }
    for (const struct test* test = guest_tests; test->name != NULL; test++) {
        if (filter != NULL && strncmp(test->name, filter, strlen(filter)) != 0) {
            continue;
        }
        why[0] = 0;
        memset(facts_shown, 0, sizeof(facts_shown));
        table_mismatches = 0;
        table_facts = 0;
        volatile enum outcome outcome = PASS;
        enum outcome ended = (enum outcome)context_save(&test_context);
        if (ended == PASS) {
            struct trap trap = catch_trap(run_caught, (void*)test);
            if (trap.vector >= 0) {
                outcome = ERRORS;
                format_to(why, sizeof(why), "exception %d, error code 0x%lx, at 0x%lx", trap.vector,
                          trap.error, trap.ip);
            }
        } else {
            outcome = ended;
            catch_reset();
        }
        interrupts_off();
        count[outcome]++;
        print_facts();
        if (outcome == PASS) {
            print("test %s: pass\n", test->name);
        } else {
            print("test %s: %s %s\n", test->name, names[outcome], why);
        }
    }
    enum outcome verdict = count[ERRORS] != 0   ? ERRORS
                           : count[FAILED] != 0 ? FAILED
                           : count[PASS] != 0   ? PASS
                                                : SKIPPED;
    // What could not be carried out has not passed: it counts with the failures.
    print("verdict: %s (%u passed, %u failed, %u skipped)\n", names[verdict], count[PASS],
          count[FAILED] + count[ERRORS], count[SKIPPED]);
}
