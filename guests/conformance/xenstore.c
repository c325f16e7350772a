// The xenstore ring from its first byte (elf-boot-contract.md 6.7) and the domain's usual nodes
// (xen-417-golden.md L).

#include "test.h"

static char reply[1100];

static unsigned own_domid(void) {
    return cpuid(xen_base + 4, 0).ecx;
}

static int request(uint32_t type, const char* payload, uint32_t size) {
    int n = xenstore_request(type, payload, size, reply, sizeof(reply));
    if (n == -1) {
        FAIL("no answer to a request of type %u", type);
    }
    return n;
}

static int path_request(uint32_t type, const char* path) {
    return request(type, path, (uint32_t)strlen(path) + 1);
}

static void expect_value(const char* path, const char* want) {
    int n = path_request(XS_READ, path);
    if (n < 0) {
        FAIL("%s: %s", path, reply);
    }
    if (strcmp(reply, want) != 0 || n != (int)strlen(want)) {
        FAIL("%s is \"%s\", should be \"%s\"", path, reply, want);
    }
}

static void expect_error(const char* what, int n, const char* want) {
    if (n != -2 || strcmp(reply, want) != 0) {
        FAIL("%s: %s%s, should be %s", what, n == -2 ? "" : "no error, ", reply, want);
    }
}

static void first_byte(void) {
    // Byte by byte in both directions: the other end must put up with any piece.
    struct xsd_sockmsg header = {.type = XS_READ, .req_id = 0x1234, .tx_id = 0, .len = 6};
    char want[16];
    int n = format_to(want, sizeof(want), "%u", own_domid());
    CHECK(xenstore_send(&header, sizeof(header), 1));
    CHECK(xenstore_send("domid", 6, 1));
    CHECK(xenstore_receive(&header, sizeof(header), 1));
    expect("type", header.type, XS_READ);
    expect("req_id", header.req_id, 0x1234);
    expect("tx_id", header.tx_id, 0);
    expect("length, without NUL", header.len, (unsigned)n);
    CHECK(xenstore_receive(reply, header.len, 1));
    if (memcmp(reply, want, (unsigned)n) != 0) {
        FAIL("domid is \"%s\", should be \"%s\"", reply, want);
    }
}

static void relative_and_absolute(void) {
    char path[64];
    char want[16];
    format_to(want, sizeof(want), "%u", own_domid());
    expect_value("domid", want);
    format_to(path, sizeof(path), "/local/domain/%u/domid", own_domid());
    expect_value(path, want);
    CHECK(request(XS_GET_DOMAIN_PATH, want, (uint32_t)strlen(want) + 1) > 0);
    format_to(path, sizeof(path), "/local/domain/%u", own_domid());
    if (strcmp(reply, path) != 0) {
        FAIL("domain path is \"%s\"", reply);
    }
}

static void missing(void) {
    expect_error("a node that is not there", path_request(XS_READ, "nothing/here"), "ENOENT");
    expect_error("removing it", path_request(XS_RM, "data/nothing/here"), "ENOENT");
}

static void read_and_write(void) {
    CHECK(xenstore_write("data/test", "a value") >= 0);
    expect_value("data/test", "a value");
    CHECK(xenstore_write("data/test", "") >= 0);
    expect_value("data/test", "");
    CHECK(xenstore_write("data/deep/er/still", "x") >= 0);
    expect_value("data/deep/er/still", "x");
    expect_value("data/deep/er", "");
}

static void directory(void) {
    CHECK(path_request(XS_MKDIR, "data/dir") >= 0);
    CHECK(xenstore_write("data/dir/one", "1") >= 0);
    CHECK(xenstore_write("data/dir/two", "2") >= 0);
    int n = path_request(XS_DIRECTORY, "data/dir");
    expect("length of the list", (unsigned)n, 8);
    bool ok = memcmp(reply, "one\0two\0", 8) == 0 || memcmp(reply, "two\0one\0", 8) == 0;
    if (!ok) {
        FAIL("the list begins \"%s\"", reply);
    }
    CHECK(path_request(XS_RM, "data/dir") >= 0);
    expect_error("reading below what was removed", path_request(XS_READ, "data/dir/one"), "ENOENT");
}

static void forbidden(void) {
    expect_error("writing domid", xenstore_request(XS_WRITE, "domid\0x", 7, reply, sizeof(reply)),
                 "EACCES");
    expect_error("writing in domain 0",
                 xenstore_request(XS_WRITE, "/local/domain/0/x\0y", 19, reply, sizeof(reply)),
                 "EACCES");
    expect_error("removing one's own root", path_request(XS_RM, "/local"), "EACCES");
}

static void permissions(void) {
    int n = path_request(XS_GET_PERMS, "domid");
    char want[24];
    format_to(want, sizeof(want), "n0");
    CHECK(n > 0);
    if (strcmp(reply, "n0") != 0) {
        FAIL("domid's owner is \"%s\", should be \"n0\"", reply);
    }
    format_to(want, sizeof(want), "r%u", own_domid());
    if (strcmp(reply + 3, want) != 0) {
        FAIL("domid's second entry is \"%s\", should be \"%s\"", reply + 3, want);
    }
    CHECK(path_request(XS_GET_PERMS, "data") > 0);
    format_to(want, sizeof(want), "n%u", own_domid());
    if (strcmp(reply, want) != 0) {
        FAIL("data's owner is \"%s\", should be \"%s\"", reply, want);
    }
}

static void watch(void) {
    // The reply and the first event may come in either order on Xen's own stores.
    struct xsd_sockmsg header = {.type = XS_WATCH, .req_id = 99, .len = 17};
    CHECK(xenstore_send(&header, sizeof(header), 64));
    CHECK(xenstore_send("data/watched\0tok", 17, 64));
    bool answered = false;
    bool fired = false;
    for (unsigned i = 0; i < 2; i++) {
        CHECK(xenstore_receive(&header, sizeof(header), 64));
        CHECK(header.len < sizeof(reply));
        CHECK(xenstore_receive(reply, header.len, 64));
        if (header.type == XS_WATCH_EVENT) {
            fired = true;
            if (strcmp(reply, "data/watched") != 0 || strcmp(reply + 13, "tok") != 0) {
                FAIL("the first event is for \"%s\"", reply);
            }
        } else {
            expect("type of the reply", header.type, XS_WATCH);
            answered = true;
        }
    }
    CHECK(answered);
    CHECK(fired);
    // One event per change, also of a node below.
    static const char write[] = "data/watched/x\0y";
    header = (struct xsd_sockmsg){.type = XS_WRITE, .req_id = 100, .len = sizeof(write) - 1};
    CHECK(xenstore_send(&header, sizeof(header), 64));
    CHECK(xenstore_send(write, sizeof(write) - 1, 64));
    answered = fired = false;
    for (unsigned i = 0; i < 2; i++) {
        CHECK(xenstore_receive(&header, sizeof(header), 64));
        CHECK(header.len < sizeof(reply));
        CHECK(xenstore_receive(reply, header.len, 64));
        if (header.type == XS_WATCH_EVENT) {
            fired = true;
            if (strcmp(reply, "data/watched/x") != 0) {
                FAIL("the event is for \"%s\"", reply);
            }
        } else {
            expect("type of the reply", header.type, XS_WRITE);
            answered = true;
        }
    }
    CHECK(answered);
    CHECK(fired);
}

static void every_type_is_answered(void) {
    // With a payload that means nothing: any answer will do, silence not.
    for (uint32_t type = 0; type < 40; type++) {
        if (type == XS_WATCH_EVENT || type == XS_WATCH) {
            continue;
        }
        request(type, "data/none", 10);
    }
    request(0xffffffff, "x", 2);
}

static void no_payload(void) {
    if (has_option("facts")) {
        // Measured on 4.17.7: "consider_message: Assertion `conn->in == NULL' failed", and the host
        // has no store any more.
        SKIP("a READ without any payload ends Xen's own xenstored");
    }
    request(XS_READ, "", 0);
    request(XS_DIRECTORY, "", 0);
}

static void bad_paths(void) {
    static const char* const paths[] = {
        "",         "/",         "//",       "/local//domain", "data/",
        "data/a b", "data/\x01", "@nothing", "data/../domid"};
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        path_request(XS_READ, paths[i]);
    }
    // No NUL at the end.
    request(XS_READ, "domid", 5);
    // Too long for a path.
    static char longest[4000];
    memset(longest, 'a', sizeof(longest) - 1);
    expect_error("a path of 3999 bytes", path_request(XS_READ, longest), "EINVAL");
    expect_value("store/port", "1");
}

static void events(void) {
    // The other end tells us when it has answered.
    port_take(xenstore_port());
    expect_value("store/port", "1");
    CHECK(port_pending(xenstore_port()));
}

static void many(void) {
    for (unsigned i = 0; i < 60; i++) {
        char value[16];
        format_to(value, sizeof(value), "value %u", i);
        CHECK(xenstore_write("data/many", value) >= 0);
        expect_value("data/many", value);
    }
}

static void nodes(void) {
    static const struct {
        const char *path, *value;
    } known[] = {
        {"cpu/0/availability", "online"},
        {"memory/videoram", "0"},
        {"device/suspend/event-channel", ""},
        {"control/shutdown", ""},
        {"control/feature-poweroff", ""},
        {"control/feature-reboot", ""},
        {"control/feature-suspend", ""},
        {"control/sysrq", ""},
        {"control/platform-feature-multiprocessor-suspend", "1"},
        {"control/platform-feature-xs_reset_watches", "1"},
        {"drivers", ""},
        {"feature", ""},
        {"attr", ""},
        {"error", ""},
        {"store/port", "1"},
        {"store/ring-ref", "1044476"},
        {"console/backend-id", "0"},
        {"console/limit", "1048576"},
        {"console/type", "xenconsoled"},
        {"console/port", "2"},
        {"console/ring-ref", "1044479"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        expect_value(known[i].path, known[i].value);
    }
    char want[80];
    format_to(want, sizeof(want), "/local/domain/0/backend/console/%u/0", own_domid());
    expect_value("console/backend", want);
    if (ram_end() <= 0xc0000000) {
        format_to(want, sizeof(want), "%lu", (unsigned long)(ram_end() / 1024));
        expect_value("memory/static-max", want);
        expect_value("memory/target", want);
    }
}

static void name_and_vm(void) {
    char vm[80];
    char path[96];
    CHECK(path_request(XS_READ, "name") > 0);
    char name[64];
    format_to(name, sizeof(name), "%s", reply);
    CHECK(path_request(XS_READ, "vm") > 0);
    format_to(vm, sizeof(vm), "%s", reply);
    format_to(path, sizeof(path), "%s/name", vm);
    expect_value(path, name);
    // The UUID there is the domain's handle.
    xen_domain_handle_t handle;
    NEED(xen_version(XENVER_guest_handle, &handle));
    char uuid[40];
    unsigned n = 0;
    for (unsigned i = 0; i < 16; i++) {
        n += (unsigned)format_to(uuid + n, sizeof(uuid) - n, "%s%02x",
                                 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", handle[i]);
    }
    format_to(path, sizeof(path), "%s/uuid", vm);
    expect_value(path, uuid);
}

static void absent_nodes(void) {
    static const char* const paths[] = {"rtc", "image", "control/laptop-slate-mode"};
    if (!is_pvh()) {
        SKIP("an HVM domain has more");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(paths); i++) {
        expect_error(paths[i], path_request(XS_READ, paths[i]), "ENOENT");
    }
}

static void oversized_message(void) {
    // A payload of more than 4096 bytes is an error that ends the connection on Xen, or is
    // answered: what matters is that we are still here. Last, since nothing may work after it.
    struct xsd_sockmsg header = {.type = XS_WRITE, .req_id = 5, .len = 0xffffffff};
    xenstore_send(&header, sizeof(header), 64);
    for (unsigned i = 0; i < 100; i++) {
        yield();
    }
    EXPECT_RESULT(xen_version(XENVER_version, NULL), 0x40011);
}

TESTS({"c6.7.first_byte", first_byte}, {"c6.7.relative_and_absolute", relative_and_absolute},
      {"xenstore.missing", missing}, {"xenstore.read_and_write", read_and_write},
      {"xenstore.directory", directory}, {"xenstore.forbidden", forbidden},
      {"xenstore.permissions", permissions}, {"xenstore.watch", watch},
      {"xenstore.every_type_is_answered", every_type_is_answered},
      {"xenstore.no_payload", no_payload}, {"xenstore.bad_paths", bad_paths},
      {"xenstore.events", events}, {"xenstore.many", many}, {"golden.l.nodes", nodes},
      {"golden.l.name_and_vm", name_and_vm}, {"golden.l.absent", absent_nodes},
      {"xenstore.oversized_message", oversized_message});
