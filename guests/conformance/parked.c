// A task that is interrupted in the middle of a hypercall and put aside: its frame, which is all
// that there is of the call, lies in its own stack while others run. It goes on when its turn
// comes, on whichever vCPU, and after someone changed it. Two kernel stacks, an upcall (a timer's)
// that comes while an operation is stopped (the cases run this with --preempt).
//
// Where an interrupt falls cannot be known: rounds with other delays are made until one falls
// behind the first unit of the call.

#include "test.h"

#define VECTOR 0xf3
#define EXTENTS 100
#define MOST_ROUNDS 400
#define POISON(n) ((unsigned long)0x5eed0000 + (n))

static unsigned long gfns[EXTENTS];
static struct xen_memory_reservation extents;
static struct multicall_entry entries[3];
static uint32_t timer_port;

// ---- a call that shows all its registers
// ---------------------------------------------------------

struct regs {
#ifdef __x86_64__
    unsigned long ax, bx, cx, dx, si, di, bp, r8, r9, r10, r11, r12, r13, r14, r15;
#else
    unsigned long ax, bx, cx, dx, si, di, bp;
#endif
};
void call_with(struct regs* regs, const void* stub);

#ifdef __x86_64__
asm(".text\n"
    "call_with:\n"
    "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "    push %rsi\n"  // the stub
    "    push %rdi\n"
    "    mov %rdi, %rax\n"
    "    mov 8(%rax), %rbx; mov 16(%rax), %rcx; mov 24(%rax), %rdx; mov 32(%rax), %rsi\n"
    "    mov 40(%rax), %rdi; mov 48(%rax), %rbp; mov 56(%rax), %r8; mov 64(%rax), %r9\n"
    "    mov 72(%rax), %r10; mov 80(%rax), %r11; mov 88(%rax), %r12; mov 96(%rax), %r13\n"
    "    mov 104(%rax), %r14; mov 112(%rax), %r15\n"
    "    call *8(%rsp)\n"
    "    xchg %rdi, (%rsp)\n"
    "    mov %rax, (%rdi); mov %rbx, 8(%rdi); mov %rcx, 16(%rdi); mov %rdx, 24(%rdi)\n"
    "    mov %rsi, 32(%rdi); mov %rbp, 48(%rdi); mov %r8, 56(%rdi); mov %r9, 64(%rdi)\n"
    "    mov %r10, 72(%rdi); mov %r11, 80(%rdi); mov %r12, 88(%rdi); mov %r13, 96(%rdi)\n"
    "    mov %r14, 104(%rdi); mov %r15, 112(%rdi)\n"
    "    pop 40(%rdi)\n"
    "    pop %rsi\n"
    "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "    ret\n");
#else
asm(".text\n"
    "call_with:\n"
    "    push %ebx; push %esi; push %edi; push %ebp\n"
    "    mov 20(%esp), %eax\n"
    "    push 24(%esp)\n"  // the stub
    "    push %eax\n"
    "    mov 4(%eax), %ebx; mov 8(%eax), %ecx; mov 12(%eax), %edx; mov 16(%eax), %esi\n"
    "    mov 20(%eax), %edi; mov 24(%eax), %ebp\n"
    "    call *4(%esp)\n"
    "    xchg %edi, (%esp)\n"
    "    mov %eax, (%edi); mov %ebx, 4(%edi); mov %ecx, 8(%edi); mov %edx, 12(%edi)\n"
    "    mov %esi, 16(%edi); mov %ebp, 24(%edi)\n"
    "    pop 20(%edi)\n"
    "    add $4, %esp\n"
    "    pop %ebp; pop %edi; pop %esi; pop %ebx\n"
    "    ret\n");
#endif

// The first two arguments and where they are kept, in a call's registers and in a frame.
#ifdef __x86_64__
#define ARG1 di
#define ARG2 si
#else
#define ARG1 bx
#define ARG2 cx
#endif

static struct regs poisoned(unsigned long arg1, unsigned long arg2) {
    struct regs regs;
    unsigned long* words = (unsigned long*)&regs;
    for (unsigned i = 0; i < sizeof(regs) / sizeof(*words); i++) {
        words[i] = POISON(i);
    }
    regs.ARG1 = arg1;
    regs.ARG2 = arg2;
    return regs;
}

static const uint8_t* stub_of(unsigned number) {
    return hypercall_page + number * 32;
}

// The trapping instruction, behind the stub's MOV of the number.
static unsigned long trap_of(unsigned number) {
    return (unsigned long)stub_of(number) + 5;
}

// ---- the task
// -------------------------------------------------------------------------------------

enum state { IDLE, RUNNING, PARKED, DONE };

static uint8_t task_stack[16384] __attribute__((aligned(16)));
static struct {
    volatile enum state state;
    volatile bool park;  // put it aside when it is interrupted in mid-call
    volatile unsigned cpu;
    unsigned number;
    struct regs before, after;
    struct context in_handler;
    struct trap_frame* volatile frame;
    struct regs* regs;
} task;
static struct context scheduler[MAX_CPUS];
static volatile unsigned upcalls, parks;

static void on_port(uint32_t port) {
    upcalls++;
}

// How far the call is that a frame shows; 0: it has not begun, or it is none.
static unsigned long progress_of(const struct trap_frame* frame) {
    if (task.state != RUNNING || frame->ip != trap_of(task.number)) {
        return 0;
    }
    if (task.number == __HYPERVISOR_memory_op) {
        return (unsigned long)frame->ARG1 >> 6;
    }
    // A list that stands at its second entry, which shows how far that one is.
    return (unsigned long)frame->ARG1 == ARG(&entries[1]) ? entries[1].args[0] >> 6 : 0;
}

static void on_upcall(struct trap_frame* frame) {
    upcall_scan(on_port);
    if (!task.park || progress_of(frame) == 0) {
        return;
    }
    parks++;
    task.frame = frame;
    if (context_save(&task.in_handler) == 0) {
        task.state = PARKED;
        context_restore(&scheduler[this_cpu()], 1);
    }
}

static void task_main(void) {
    task.after = task.before;
    interrupts_on();
    call_with(&task.after, stub_of(task.number));
    interrupts_off();
    task.cpu = this_cpu();
    task.state = DONE;
    context_restore(&scheduler[task.cpu], 1);
}

static void start_task(void) {
    task.state = RUNNING;
    if (context_save(&scheduler[this_cpu()]) == 0) {
        context_start(task_stack + sizeof(task_stack), task_main);
    }
}

static void resume_task(void) {
    task.state = RUNNING;
    if (context_save(&scheduler[this_cpu()]) == 0) {
        context_restore(&task.in_handler, 1);
    }
}

static void arm(uint64_t delay_ns) {
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = xen_time() + delay_ns};
    NEED(vcpu_op(VCPUOP_set_singleshot_timer, 0, &timer));
}

// Runs the call on the task's stack until an interrupt falls into it. `undo` makes another try
// possible when none did.
static void park(unsigned number, struct regs regs, void (*undo)(void)) {
    for (unsigned round = 0; round < MOST_ROUNDS; round++) {
        task.number = number;
        task.before = regs;
        task.park = true;
        arm(20000 + 5000 * (round % 100));
        start_task();
        if (task.state == PARKED) {
            return;
        }
        undo();
    }
    ERROR("no interrupt fell into a call in %u rounds, %u upcalls", MOST_ROUNDS, upcalls);
}

static void set_up(void) {
    static bool done;
    if (!done) {
        shared_info();
        set_handler(VECTOR, on_upcall);
        NEED(set_callback_vector(VECTOR));
        NEED(bind_virq(VIRQ_TIMER, 0, &timer_port));
        port_mask(timer_port, false);
        done = true;
    }
    for (unsigned i = 0; i < EXTENTS; i++) {
        gfns[i] = spare_gfn(i);
    }
    memset(&extents, 0, sizeof(extents));
    extents.nr_extents = EXTENTS;
    extents.domid = DOMID_SELF;
    set_xen_guest_handle(extents.extent_start, (xen_pfn_t*)gfns);
}

static long pages(void) {
    return domid_op(XENMEM_current_reservation, DOMID_SELF);
}

// After a call that gave all of them back.
static void take_all_back(void) {
    reservation(XENMEM_populate_physmap, gfns, EXTENTS, 0);
}

// Whichever of them are there: RAM that is populated over stays on the account for ever, so they
// are given back first. A decrease stops at each one that is not there.
static void take_back(void) {
    for (unsigned i = 0; i < EXTENTS; i++) {
        i += (unsigned)reservation(XENMEM_decrease_reservation, gfns + i, EXTENTS - i, 0);
    }
    take_all_back();
}

static struct regs decrease(void) {
    return poisoned(XENMEM_decrease_reservation, ARG(&extents));
}

// Parks a decrease of all extents and says how far it came.
static unsigned long park_decrease(void) {
    set_up();
    take_back();
    park(__HYPERVISOR_memory_op, decrease(), take_all_back);
    return (unsigned long)task.frame->ARG1 >> 6;
}

static void expect_finished(long result, long before, unsigned long gone) {
    expect("state of the task", task.state, DONE);
    expect_result("result", (long)task.after.ax, result);
    expect("pages", (unsigned long)pages(), (unsigned long)before - gone);
    take_back();
    expect("pages taken back", (unsigned long)pages(), (unsigned long)before);
}

// What other tasks do meanwhile: many calls, long ones among them.
static void others_beside(bool alone) {
    static unsigned long other[8];
    static struct multicall_entry list[4];
    long before = pages();
    for (unsigned i = 0; i < 8; i++) {
        other[i] = spare_gfn(EXTENTS + 16 + i);
    }
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t value = 0;
        switch (i % 5) {
            case 0: EXPECT_RESULT(xen_version(XENVER_version, NULL), 0x40011); break;
            case 1: EXPECT_RESULT(reservation(XENMEM_decrease_reservation, other, 8, 0), 8); break;
            case 2: EXPECT_RESULT(reservation(XENMEM_populate_physmap, other, 8, 0), 8); break;
            case 3: EXPECT_RESULT(get_param(HVM_PARAM_CALLBACK_IRQ, &value), 0); break;
            default:
                for (unsigned e = 0; e < 4; e++) {
                    memset(&list[e], 0, sizeof(list[e]));
                    list[e].op = __HYPERVISOR_xen_version;
                }
                EXPECT_RESULT(multicall(list, 4), 0);
                expect("last entry", list[3].result, 0x40011);
        }
    }
    if (alone) {
        expect("pages after the others", (unsigned long)pages(), (unsigned long)before);
    }
}

static void others(void) {
    others_beside(true);
}

// ---- the tests
// -----------------------------------------------------------------------------------

// At the trapping instruction, the number in RAX, the cursor in the first argument, nothing else.
static void frame(void) {
    set_up();
    take_back();
    long before = pages();
    unsigned long cursor = park_decrease();
    const struct trap_frame* f = task.frame;
    const struct regs* r = &task.before;
    CHECK(cursor > 0 && cursor < EXTENTS);
    expect("AX", f->ax, __HYPERVISOR_memory_op);
    expect("instruction", f->ip, trap_of(__HYPERVISOR_memory_op));
    expect("first argument", f->ARG1, cursor << 6 | XENMEM_decrease_reservation);
    expect("second argument", f->ARG2, r->ARG2);
    expect("DX", f->dx, r->dx);
    expect("BP", f->bp, r->bp);
#ifdef __x86_64__
    expect("BX", f->bx, r->bx);
    // RCX and R11 are the stub's and the trap's to keep as well.
    expect("CX", f->cx, r->cx);
    expect("R8", f->r8, r->r8);
    expect("R9", f->r9, r->r9);
    expect("R10", f->r10, r->r10);
    expect("R11", f->r11, r->r11);
    expect("R12", f->r12, r->r12);
    expect("R13", f->r13, r->r13);
    expect("R14", f->r14, r->r14);
    expect("R15", f->r15, r->r15);
#else
    expect("SI", f->si, r->si);
    expect("DI", f->di, r->di);
#endif
    CHECK((f->flags & FLAGS_IF) != 0);
    expect("nr_extents", extents.nr_extents, EXTENTS);
    expect("pages", (unsigned long)pages(), (unsigned long)before - cursor);
    task.park = false;
    resume_task();
    expect_finished(EXTENTS, before, EXTENTS);
}

static void thousand_calls(void) {
    set_up();
    take_back();
    long before = pages();
    park_decrease();
    others();
    task.park = false;
    resume_task();
    // All but the result and the cursor is as the task set it.
    expect("BP", task.after.bp, task.before.bp);
    expect("DX", task.after.dx, task.before.dx);
    expect("second argument", task.after.ARG2, task.before.ARG2);
    expect_finished(EXTENTS, before, EXTENTS);
}

// Put aside again and again within one call.
static void many_times(void) {
    set_up();
    take_back();
    long before = pages();
    park_decrease();
    unsigned long last = 0;
    unsigned in_vain = 0;
    while (task.state == PARKED) {
        unsigned long cursor = (unsigned long)task.frame->ARG1 >> 6;
        // The same once more if the interrupt fell between our return and the call.
        CHECK(cursor >= last);
        in_vain = cursor == last ? in_vain + 1 : 0;
        last = cursor;
        xen_version(XENVER_version, NULL);
        arm(50000 << (in_vain < 8 ? in_vain : 8));
        resume_task();
    }
    expect_finished(EXTENTS, before, EXTENTS);
}

// The cursor is a register like any other: what it says is done.
static void cursor_lowered(void) {
    set_up();
    take_back();
    long before = pages();
    unsigned long cursor = park_decrease();
    task.frame->ARG1 = (cursor - 1) << 6 | XENMEM_decrease_reservation;
    task.park = false;
    resume_task();
    expect_finished((long)cursor - 1, before, cursor);  // that extent is gone already
}

static void cursor_raised(void) {
    set_up();
    take_back();
    long before = pages();
    unsigned long cursor;
    do {
        cursor = park_decrease();
        if (cursor + 5 >= EXTENTS) {
            task.park = false;
            resume_task();
            take_back();
        }
    } while (cursor + 5 >= EXTENTS);
    task.frame->ARG1 = (cursor + 5) << 6 | XENMEM_decrease_reservation;
    task.park = false;
    resume_task();
    expect_finished(EXTENTS, before, EXTENTS - 5);
}

static void cursor_beyond(void) {
    set_up();
    take_back();
    long before = pages();
    unsigned long cursor = park_decrease();
    task.frame->ARG1 = 0x3ffff << 6 | XENMEM_decrease_reservation;
    task.park = false;
    resume_task();
    expect_finished(0x3ffff, before, cursor);
}

static void another_call(void) {
    set_up();
    take_back();
    long before = pages();
    unsigned long cursor = park_decrease();
    task.frame->ax = __HYPERVISOR_xen_version;
    task.frame->ARG1 = XENVER_version;
    task.park = false;
    resume_task();
    expect_finished(0x40011, before, cursor);
}

static void dropped(void) {
    set_up();
    take_back();
    long before = pages();
    unsigned long cursor = park_decrease();
    task.state = IDLE;
    others();
    expect("pages", (unsigned long)pages(), (unsigned long)before - cursor);
    take_back();
    expect("pages taken back", (unsigned long)pages(), (unsigned long)before);
}

static void populate(void) {
    set_up();
    take_back();
    long before = pages();
    EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, EXTENTS, 0), EXTENTS);
    for (unsigned round = 0; round < MOST_ROUNDS; round++) {
        task.number = __HYPERVISOR_memory_op;
        task.before = poisoned(XENMEM_populate_physmap, ARG(&extents));
        task.park = true;
        arm(20000 + 5000 * (round % 100));
        start_task();
        if (task.state == PARKED) {
            break;
        }
        EXPECT_RESULT(reservation(XENMEM_decrease_reservation, gfns, EXTENTS, 0), EXTENTS);
    }
    if (task.state != PARKED) {
        ERROR("no interrupt fell into a call in %u rounds", MOST_ROUNDS);
    }
    unsigned long cursor = (unsigned long)task.frame->ARG1 >> 6;
    expect("pages while parked", (unsigned long)pages(), (unsigned long)before - EXTENTS + cursor);
    // What was populated is there and stays; the rest comes.
    volatile uint32_t* word = (volatile uint32_t*)(gfns[0] * PAGE_SIZE);
    *word = 0xcafe;
    others();
    task.park = false;
    resume_task();
    expect("content", *word, 0xcafe);
    expect_finished(EXTENTS, before, 0);
}

// A list of calls: the frame shows which entry, and the entry itself how far.
static void make_list(void) {
    take_back();
    memset(entries, 0, sizeof(entries));
    entries[0].op = __HYPERVISOR_xen_version;
    entries[1].op = __HYPERVISOR_memory_op;
    entries[1].args[0] = XENMEM_decrease_reservation;
    entries[1].args[1] = ARG(&extents);
    entries[2].op = __HYPERVISOR_xen_version;
}

static void in_multicall(void) {
    set_up();
    take_back();
    long before = pages();
    make_list();
    park(__HYPERVISOR_multicall, poisoned(ARG(entries), 3), make_list);
    expect("entries left", task.frame->ARG2, 2);
    unsigned long cursor = entries[1].args[0] >> 6;
    expect("the entry's operation", entries[1].args[0] & 0x3f, XENMEM_decrease_reservation);
    expect("the entry's result", entries[1].result, __HYPERVISOR_memory_op);
    expect_result("the entry before", (long)entries[0].result, 0x40011);
    expect("pages", (unsigned long)pages(), (unsigned long)before - cursor);
    others();
    task.park = false;
    resume_task();
    expect_result("the entry", (long)entries[1].result, EXTENTS);
    expect_result("the entry after", (long)entries[2].result, 0x40011);
    expect_finished(0, before, EXTENTS);
}

// ---- another vCPU
// --------------------------------------------------------------------------------

static volatile bool ap_runs, ap_go;

static void ap_work(unsigned cpu) {
    ap_runs = true;
    for (;;) {
        if (ap_go) {
            resume_task();
            barrier();
            ap_go = false;
        }
        pause();
    }
}

static void on_other_vcpu(void) {
    if (vcpu_op(VCPUOP_is_up, 1, NULL) == -ENOENT) {
        SKIP("one vCPU");
    }
    set_up();
    take_back();
    long before = pages();
    apic_enable(x2apic_available());
    if (!ap_runs &&
        (!cpu_start(1, START_SIPI, ap_work, NULL) || !SPIN_UNTIL(ap_runs, PATIENCE_MS))) {
        ERROR("vCPU 1 does not run");
    }
    for (unsigned round = 0; round < 4; round++) {
        unsigned long cursor = park_decrease();
        others();
        unsigned long skipped = 0;
        if (round % 2 == 1 && cursor + 5 < EXTENTS) {
            skipped = 5;
            task.frame->ARG1 = (cursor + skipped) << 6 | XENMEM_decrease_reservation;
        }
        task.park = false;
        ap_go = true;
        others_beside(false);  // both at once
        CHECK(SPIN_UNTIL(!ap_go, PATIENCE_MS));
        expect("vCPU that finished it", task.cpu, 1);
        expect_finished(EXTENTS, before, EXTENTS - skipped);
    }
}

TESTS({"parked.frame", frame}, {"parked.thousand_calls", thousand_calls},
      {"parked.many_times", many_times}, {"parked.cursor_lowered", cursor_lowered},
      {"parked.cursor_raised", cursor_raised}, {"parked.cursor_beyond", cursor_beyond},
      {"parked.another_call", another_call}, {"parked.dropped", dropped},
      {"parked.populate", populate}, {"parked.in_multicall", in_multicall},
      {"parked.on_other_vcpu", on_other_vcpu});
