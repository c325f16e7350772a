// The guest's own services: who we run on, console, xenstore, events, time, the command line.
#pragma once

#include "cpu.h"
#include "xen.h"

// ---- what we run on ---------------------------------------------------------------------------

extern uint32_t xen_base;  // first of the Xen CPUID leaves; 0: not on Xen
// With the word `direct` on the command line, the instruction that makes the hypercalls; else NULL:
// it is the page's own. Only the kvm-xen transport is asked by both.
extern const char* direct_calls;
const struct hvm_start_info* start_info(void);

// The command line is a list of words; `key=value` words have a value.
bool has_option(const char* key);
const char* option(const char* key, char* buffer, size_t size);  // NULL if absent
uint64_t option_number(const char* key, uint64_t otherwise);

// End of the RAM entry that starts at 0, from the start-info's memory map.
uint64_t ram_end(void);
// The flavour this guest was started as: given on the command line (`flavour=pvh`).
bool is_pvh(void);

void shutdown(unsigned reason) __attribute__((noreturn));

// ---- params -----------------------------------------------------------------------------------

long get_param(unsigned index, uint64_t* value);
long set_param(unsigned index, uint64_t value);

// ---- console ----------------------------------------------------------------------------------

// Xen says where it is, or the command line: console_pfn=GFN console_port=PORT, for the profiles
// that do not tell (docs/profiles.md).
struct xencons_interface* console_ring(void);  // NULL if there is none
uint32_t console_port(void);
void console_write(const char* text, size_t size);
bool console_drain(void);  // waits until the other end has read everything

// ---- shared info and events -------------------------------------------------------------------

// Maps it on first use, onto a page of the image.
struct shared_info* shared_info(void);
struct vcpu_info* vcpu_info(unsigned cpu);
long map_shared_info(unsigned long gfn);
extern uint8_t shared_info_page[4096];

long port_send(uint32_t port);
long port_close(uint32_t port);
long port_unmask(uint32_t port);
long port_status(uint32_t port, struct evtchn_status* status);
long bind_ipi(unsigned cpu, uint32_t* port);
long bind_virq(unsigned virq, unsigned cpu, uint32_t* port);
bool port_pending(uint32_t port);
bool port_take(uint32_t port);  // clears the pending bit; true if it was set
void port_mask(uint32_t port, bool masked);
long poll_port(uint32_t port, uint64_t deadline_ns);

// Upcalls: a handler that a trap_handler may call. It clears vcpu_info's pending flag and
// selector and calls `function` for each unmasked pending port of this vCPU, its bit cleared.
void upcall_scan(void (*function)(uint32_t port));
long set_callback_vector(unsigned vector);

// ---- time -------------------------------------------------------------------------------------

uint64_t xen_time(void);  // nanoseconds since boot, by vcpu_info of vCPU 0; 0 if not fed
uint64_t xen_time_of(unsigned cpu);
uint64_t time_from(volatile struct vcpu_time_info* time);
uint64_t tsc_after_ms(unsigned ms);  // for time limits, which must not depend on what is tested

// For what must come: long, because a busy host may run nobody for a second.
#define PATIENCE_MS 10000

// Waits, yielding, until the condition holds; the value is whether it did.
#define WAIT_UNTIL(condition, ms)                               \
    ({                                                          \
        uint64_t wait_end_ = tsc_after_ms(ms);                  \
        bool held_;                                             \
        while (!(held_ = (condition)) && rdtsc() < wait_end_) { \
            yield();                                            \
        }                                                       \
        held_;                                                  \
    })

// The same without hypercalls, for waits during which the guest must not exit by itself.
#define SPIN_UNTIL(condition, ms)                               \
    ({                                                          \
        uint64_t wait_end_ = tsc_after_ms(ms);                  \
        bool held_;                                             \
        while (!(held_ = (condition)) && rdtsc() < wait_end_) { \
            pause();                                            \
        }                                                       \
        held_;                                                  \
    })

// ---- memory -----------------------------------------------------------------------------------

// The `index`th page of RAM counted down from 64 KiB below the end of low RAM: pages that hold
// nothing, far away from the image and from what a loader puts next to it.
unsigned long spare_gfn(unsigned index);
long reservation(unsigned long cmd, unsigned long* gfns, unsigned long count, unsigned order);
long domid_op(unsigned cmd, uint16_t domid);
long add_to_physmap(unsigned space, unsigned long index, unsigned long gfn);

// ---- xenstore ---------------------------------------------------------------------------------

// Sends one request and waits for its reply. Returns the reply's payload length, or -1 if there
// was no reply in time, or -2 and the error's name in `reply`. Always NUL-terminates.
int xenstore_request(uint32_t type, const void* payload, uint32_t size, char* reply,
                     uint32_t reply_size);
int xenstore_read(const char* path, char* reply, uint32_t reply_size);
int xenstore_write(const char* path, const char* value);
// Raw access to the ring, in pieces of at most `piece` bytes. False: nothing within a second.
bool xenstore_send(const void* data, uint32_t size, uint32_t piece);
bool xenstore_receive(void* data, uint32_t size, uint32_t piece);
struct xenstore_domain_interface* xenstore_ring(void);
uint32_t xenstore_port(void);

// The guest's own part.
void guest_main(void);
