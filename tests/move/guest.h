// Where the guest of vcpu_move has what: read by its assembler and by the program that carries it.
// 1 MiB of RAM, identity page tables for 2 MiB.
#define PAGE_TABLES 0x1000 /* four of them */
#define IDT 0x5000
#define GDT 0x6000
#define AP_CODE 0x8000
#define STACK_TOP 0xa000
#define CODE 0x10000
#define MMIO 0x180000 /* beyond the RAM */

/* What the guest finds. */
#define ROUNDS_WANTED 0xb000
#define TICKS_WANTED 0xb008
#define TIMER 0xb010 /* one of TIMER_... */
#define TIMER_NS 0xb014
#define TIMER_TICKS 0xb018 /* of the TSC */
#define USE_AP 0xb01c
#define FX_LOADED 0xb200 /* as FXSAVE leaves it */

/* What it leaves. */
#define ROUNDS 0xc000
#define TICKS 0xc008
#define CHECKS 0xc010
#define WRONG 0xc018   /* how many checks failed; 0xfa17: an exception */
#define UNASKED 0xc020 /* timer interrupts that nobody had asked for */
#define ARMED 0xc024
#define LAST_TSC 0xc028
#define TIMER_SUM 0xc030
#define WRONG_MSR 0xc038
#define WRONG_FX 0xc03c
#define ASLEEP 0xc088
#define SUMS 0xc040 /* eight */
#define AP_COUNT 0xc080
#define BYTES 0xc100
#define FX_FOUND 0xc200

#define TIMER_NONE 0
#define TIMER_ONE_SHOT 1
#define TIMER_PERIODIC 2
#define TIMER_DEADLINE 3
#define TIMER_VECTOR 0x41
#define AP_ID 2

#define PORT_NUMBER 0x31
#define PORT_BYTES 0x32
#define PORT_END 0x33
#define PORT_TIMER 0x34
