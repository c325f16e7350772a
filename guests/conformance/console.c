// The console ring and the other places where a guest can leave text (elf-boot-contract.md 6.6).

#include "test.h"

static struct xencons_interface* ring(void) {
    struct xencons_interface* r = console_ring();
    if (r == NULL) {
        ERROR("no console ring");
    }
    return r;
}

static void must_drain(void) {
    if (!console_drain()) {
        FAIL("%u bytes are still in the ring", ring()->out_prod - ACCESS(ring()->out_cons));
    }
}

static void drains(void) {
    print("  short text\n");
    must_drain();
}

static void burst(void) {
    // As much as the ring holds, produced in one step.
    struct xencons_interface* r = ring();
    must_drain();
    uint32_t prod = r->out_prod;
    for (unsigned i = 0; i < 2048; i++) {
        r->out[(prod + i) % 2048] = i % 64 == 63 ? '\n' : (char)('a' + i / 64 % 26);
    }
    barrier();
    ACCESS(r->out_prod) = prod + 2048;
    EXPECT_RESULT(port_send(console_port()), 0);
    must_drain();
    expect("out_cons", ACCESS(r->out_cons), prod + 2048);
}

static void wraps(void) {
    for (unsigned i = 0; i < 9; i++) {
        print(
            "  line %u of 9, of a length that does not divide the ring's: 0123456789 abcdefghij "
            "klmnopqrst uvwxyz 0123456789 abcdefghij klmnopqrst uvwxyz 0123456789 abcdefghij "
            "klmnopqrst uvwxyz 0123456789 abcdefghij klmnopqrst uvwxyz 0123456789 abcde\n",
            i + 1);
    }
    must_drain();
}

static void masked(void) {
    // Whether we take the event that says "read it" is no business of the other end.
    port_mask(console_port(), true);
    print("  text while the port is masked\n");
    bool drained = console_drain();
    port_mask(console_port(), false);
    CHECK(drained);
}

static void event_back(void) {
    port_take(console_port());
    print("  text, and an event when it is read\n");
    must_drain();
    CHECK(WAIT_UNTIL(port_pending(console_port()), PATIENCE_MS));
}

static void all_bytes(void) {
    // Every value but the ones that would break up the line for whoever reads this.
    char text[224];
    unsigned n = 0;
    for (unsigned byte = 33; byte < 256; byte++) {
        text[n++] = (char)byte;
    }
    text[n++] = '\n';
    console_write(text, n);
    must_drain();
}

static void write_call(void) {
    static const char text[] = "  from CONSOLEIO_write\n";
    long result = console_io(CONSOLEIO_write, sizeof(text) - 1, text);
    if (result != 0 && result != -EPERM && result != -ENOSYS) {
        FAIL("it answers %ld", result);
    }
}

static void write_call_lengths(void) {
    static const char text[] = "x";
    static const unsigned long lengths[] = {0,          0x7fffffff, 0x80000000, 0x80000001,
                                            0xffffffff, 0x40000000,
#ifdef __x86_64__
                                            1ul << 32,  1ul << 63,  ~0ul
#endif
    };
    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        uint64_t limit = tsc_after_ms(1000);
        long result = console_io(CONSOLEIO_write, lengths[i], text);
        if (result > 0) {
            FAIL("length 0x%lx: %ld", lengths[i], result);
        }
        CHECK(rdtsc() < limit);
        result = console_io(CONSOLEIO_write, lengths[i], (void*)UNMAPPED_VA);
        CHECK(result <= 0);
    }
}

static void use_ports(void* argument) {
    static const char text[] = "debug\n";
    const char* from = text;
    size_t count = sizeof(text) - 1;
    out8(0xe9, 'x');
    out8(0xe9, '\n');
    asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(0xe9) : "memory");
    if (is_pvh()) {
        out8(0x12, 'x');  // with devices, this is one of theirs
    }
    (void)in8(0xe9);
}

static void debug_ports(void) {
    struct trap trap = catch_trap(use_ports, NULL);
    expect("vector of a trap", (unsigned)trap.vector, (unsigned)-1);
}

static void indices_survive_nonsense(void) {
    // A producer that runs away is the guest's own damage; the other end must survive it, take no
    // more than a ring's worth, and go on when the indices make sense again.
    struct xencons_interface* r = ring();
    must_drain();
    uint32_t prod = r->out_prod;
    ACCESS(r->out_prod) = prod + 0x80000000;
    port_send(console_port());
    for (unsigned i = 0; i < 50; i++) {
        yield();
    }
    ACCESS(r->out_prod) = prod;
    barrier();
    ACCESS(r->out_cons) = prod;
    port_send(console_port());
    print("  and on it goes\n");
    must_drain();
}

TESTS({"c6.6.drains", drains}, {"c6.6.burst_of_2048", burst}, {"c6.6.wraps", wraps},
      {"c8.5.masked_port", masked}, {"c6.6.event_back", event_back}, {"c6.6.all_bytes", all_bytes},
      {"c6.6.write_call", write_call}, {"c6.6.write_call_lengths", write_call_lengths},
      {"c6.6.debug_ports", debug_ports}, {"console.nonsense_indices", indices_survive_nonsense});
