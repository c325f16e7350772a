#include "base.h"

// REP MOVS and STOS cost an interpreting host one emulation per element, so the widest element
// is used; nothing in these guests copies or clears much.
void* memcpy(void* to, const void* from, size_t size) {
    void* result = to;
    size_t words = size / sizeof(long);
    size_t bytes = size % sizeof(long);
#ifdef __x86_64__
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words)::"memory");
#else
    asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(words)::"memory");
#endif
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
    return result;
}

void* memmove(void* to, const void* from, size_t size) {
    char* d = to;
    const char* s = from;
    if (d <= s || d >= s + size) {
        return memcpy(to, from, size);
    }
    while (size-- > 0) {
        d[size] = s[size];
        asm volatile("" ::: "memory");  // or the compiler makes this a call to memmove
    }
    return to;
}

void* memset(void* to, int byte, size_t size) {
    void* result = to;
    unsigned long value = (unsigned char)byte * (~0ul / 255);
    size_t words = size / sizeof(long);
    size_t bytes = size % sizeof(long);
#ifdef __x86_64__
    asm volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(value) : "memory");
#else
    asm volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(value) : "memory");
#endif
    asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
    return result;
}

int memcmp(const void* a, const void* b, size_t size) {
    const unsigned char* p = a;
    const unsigned char* q = b;
    for (size_t i = 0; i < size; i++) {
        if (p[i] != q[i]) {
            return p[i] - q[i];
        }
    }
    return 0;
}

size_t strlen(const char* s) {
    size_t n = 0;
    while (s[n] != 0) {
        n++;
        asm volatile("");  // or the compiler makes this a call to strlen
    }
    return n;
}

int strncmp(const char* a, const char* b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (a[i] != b[i] || a[i] == 0) {
            return (unsigned char)a[i] - (unsigned char)b[i];
        }
    }
    return 0;
}

int strcmp(const char* a, const char* b) {
    return strncmp(a, b, ~(size_t)0);
}

uint64_t parse_number(const char* s) {
    uint64_t value = 0;
    unsigned base = 10;
    if (s[0] == '0' && s[1] == 'x') {
        base = 16;
        s += 2;
    }
    for (;; s++) {
        unsigned digit = (unsigned char)*s;
        if (digit >= '0' && digit <= '9') {
            digit -= '0';
        } else if (digit >= 'a' && digit <= 'f') {
            digit = digit - 'a' + 10;
        } else {
            return value;
        }
        if (digit >= base) {
            return value;
        }
        value = value * base + digit;
    }
}

// Divides by a small number and returns the remainder. 64-bit division on a 32-bit machine would
// need libgcc.
static unsigned divide(uint64_t* value, unsigned by) {
#ifdef __x86_64__
    unsigned rest = (unsigned)(*value % by);
    *value /= by;
    return rest;
#else
    uint32_t high = (uint32_t)(*value >> 32);
    uint32_t low = (uint32_t)*value;
    uint32_t rest = high % by;
    high /= by;
    asm("divl %2" : "+a"(low), "+d"(rest) : "r"((uint32_t)by));
    *value = (uint64_t)high << 32 | low;
    return rest;
#endif
}

struct output {
    char* to;
    size_t size;
    size_t used;
};

static void put(struct output* out, char c) {
    if (out->used + 1 < out->size) {
        out->to[out->used++] = c;
    }
}

static void put_number(struct output* out, uint64_t value, unsigned base, int width, char pad,
                       bool negative) {
    char digits[24];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[divide(&value, base)];
    } while (value != 0);
    if (negative) {
        digits[n++] = '-';
    }
    for (int i = n; i < width; i++) {
        put(out, pad);
    }
    while (n > 0) {
        put(out, digits[--n]);
    }
}

int format(char* to, size_t size, const char* fmt, va_list args) {
    struct output out = {to, size, 0};
    for (; *fmt != 0; fmt++) {
        if (*fmt != '%') {
            put(&out, *fmt);
            continue;
        }
        fmt++;
        bool left = false;
        char pad = ' ';
        int width = 0;
        int longs = 0;
        if (*fmt == '-') {
            left = true;
            fmt++;
        }
        if (*fmt == '0') {
            pad = '0';
            fmt++;
        }
        for (; *fmt >= '0' && *fmt <= '9'; fmt++) {
            width = width * 10 + (*fmt - '0');
        }
        for (; *fmt == 'l'; fmt++) {
            longs++;
        }
        uint64_t value = 0;
        bool negative = false;
        switch (*fmt) {
            case 's': {
                const char* s = va_arg(args, const char*);
                int n = 0;
                for (; s[n] != 0; n++) {
                    put(&out, s[n]);
                }
                for (; left && n < width; n++) {
                    put(&out, ' ');
                }
                break;
            }
            case 'c': put(&out, (char)va_arg(args, int)); break;
            case 'd': {
                int64_t number = longs == 0   ? va_arg(args, int)
                                 : longs == 1 ? va_arg(args, long)
                                              : va_arg(args, long long);
                negative = number < 0;
                value = negative ? 0 - (uint64_t)number : (uint64_t)number;
                put_number(&out, value, 10, width, pad, negative);
                break;
            }
            case 'u':
            case 'x':
                value = longs == 0   ? va_arg(args, unsigned)
                        : longs == 1 ? va_arg(args, unsigned long)
                                     : va_arg(args, unsigned long long);
                put_number(&out, value, *fmt == 'u' ? 10 : 16, width, pad, false);
                break;
            case 'p':
                put(&out, '0');
                put(&out, 'x');
                put_number(&out, (uintptr_t)va_arg(args, void*), 16, width, '0', false);
                break;
            case 0: fmt--; break;
            default: put(&out, *fmt); break;
        }
    }
    if (size > 0) {
        to[out.used] = 0;
    }
    return (int)out.used;
}

int format_to(char* to, size_t size, const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = format(to, size, fmt, args);
    va_end(args);
    return n;
}
