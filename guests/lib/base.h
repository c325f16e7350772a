// What a freestanding program has instead of a C library.
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef unsigned char bool_t;
#define bool bool_t
#define true 1
#define false 0

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define PAGE_SIZE 4096ul

// The compiler may call the first four by itself.
void* memcpy(void* to, const void* from, size_t size);
void* memmove(void* to, const void* from, size_t size);
void* memset(void* to, int byte, size_t size);
int memcmp(const void* a, const void* b, size_t size);
size_t strlen(const char* s);
int strcmp(const char* a, const char* b);
int strncmp(const char* a, const char* b, size_t size);

// Knows %s %c %d %u %x %p %%, a width with or without leading zero, `l` and `ll`.
int format(char* to, size_t size, const char* fmt, va_list args);
__attribute__((format(printf, 3, 4))) int format_to(char* to, size_t size, const char* fmt, ...);
__attribute__((format(printf, 1, 2))) void print(const char* fmt, ...);

uint64_t parse_number(const char* s);
