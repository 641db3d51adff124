/* What the core may use of <string.h> where there is no libc: port/wasm.c has them. */
#ifndef KVMLAB_PORT_STRING_H
#define KVMLAB_PORT_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int value, size_t len);
int memcmp(const void *a, const void *b, size_t len);

/* -ffreestanding takes the compiler's knowledge of these away; copies of a known small size must stay loads and stores. */
#define memcpy(to, from, len) __builtin_memcpy(to, from, len)
#define memmove(to, from, len) __builtin_memmove(to, from, len)
#define memset(to, value, len) __builtin_memset(to, value, len)
#define memcmp(a, b, len) __builtin_memcmp(a, b, len)

#endif
