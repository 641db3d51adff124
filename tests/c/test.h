/* The C tests' harness: TEST(name) { CHECK(…); CHECK_EQ(got, want); } in any file that meson.build names.
 *
 * All files are one program. It runs every test, or those whose name contains an argument, and prints what pytest
 * and people can count: one line per failure, then "N passed, N failed". Tests see the core's own headers. */
#ifndef KVMLAB_TEST_H
#define KVMLAB_TEST_H

#include <stdbool.h>
#include <stdint.h>

typedef void test_function(void);

void test_register(const char *name, test_function *function);
void test_fail(const char *file, int line, const char *what);
void test_fail_eq(const char *file, int line, const char *what, uint64_t got, uint64_t want);

/* A test runs to its end even after a failure; put `return` after a CHECK whose failure would crash what follows. */
#define TEST(name)                                                                                                     \
    static test_function name;                                                                                         \
    __attribute__((constructor)) static void name##_register(void) { test_register(#name, name); }                     \
    static void name(void)

#define CHECK(condition) ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition))

#define CHECK_EQ(got, want)                                                                                            \
    do {                                                                                                               \
        uint64_t got_ = (uint64_t)(got), want_ = (uint64_t)(want);                                                     \
        if (got_ != want_)                                                                                             \
            test_fail_eq(__FILE__, __LINE__, #got, got_, want_);                                                       \
    } while (0)

#endif
