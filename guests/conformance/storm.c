// A guest that rings for its backends all the time, with nothing for them to do: it gets no more of
// the host by that, and is served as before when it has something (XSA-332).

#include "test.h"

#define STORM_MS 1000

static unsigned long rings;

static void ring_for(uint32_t port, unsigned ms) {
    uint64_t end = tsc_after_ms(ms);
    while (rdtsc() < end) {
        EXPECT_RESULT(port_send(port), 0);
        rings++;
    }
}

// Asks the xenstore for its own number, and rings until there is an answer.
static void ask(void) {
    struct xenstore_domain_interface* ring = xenstore_ring();
    struct xsd_sockmsg header = {.type = XS_READ, .req_id = 7, .len = 6};
    if (!xenstore_send(&header, sizeof(header), 16) || !xenstore_send("domid", 6, 6)) {
        ERROR("the xenstore takes no request");
    }
    uint64_t limit = tsc_after_ms(5000);
    while (ACCESS(ring->rsp_prod) - ACCESS(ring->rsp_cons) < sizeof(header) + 1 &&
           rdtsc() < limit) {
        EXPECT_RESULT(port_send(xenstore_port()), 0);
    }
    char reply[64];
    CHECK(xenstore_receive(&header, sizeof(header), 16));
    CHECK(header.len < sizeof(reply));
    CHECK(xenstore_receive(reply, header.len, 64));
}

static void of_the_xenstore(void) {
    rings = 0;
    for (unsigned i = 0; i < 10; i++) {
        ring_for(xenstore_port(), STORM_MS / 10);
        ask();
    }
    CHECK(rings > 100);
}

static void of_the_console(void) {
    rings = 0;
    for (unsigned i = 0; i < 10; i++) {
        ring_for(console_port(), STORM_MS / 10);
        print("after %lu\n", rings);
        console_drain();
    }
    CHECK(rings > 100);
    ask();
}

TESTS({"storm.xenstore", of_the_xenstore}, {"storm.console", of_the_console});
