/* What the core may use of <stdlib.h> where there is no libc: port/wasm.c has them. */
#ifndef KVMLAB_PORT_STDLIB_H
#define KVMLAB_PORT_STDLIB_H

#include <stddef.h>

void *malloc(size_t len);
void *calloc(size_t count, size_t len);
void *realloc(void *old, size_t len);
void free(void *block);

#endif
