/* Runs the C tests: see test.h. */
#include "test.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TESTS 4096

static struct {
    const char *name;
    test_function *function;
} tests[MAX_TESTS];
static unsigned nr_tests, nr_failures;

void test_register(const char *name, test_function *function)
{
    if (nr_tests == MAX_TESTS)
        abort();
    tests[nr_tests].name = name;
    tests[nr_tests++].function = function;
}

void test_fail(const char *file, int line, const char *what)
{
    printf("%s:%d: not true: %s\n", file, line, what);
    nr_failures++;
}

void test_fail_eq(const char *file, int line, const char *what, uint64_t got, uint64_t want)
{
    printf("%s:%d: %s is 0x%" PRIx64 ", should be 0x%" PRIx64 "\n", file, line, what, got, want);
    nr_failures++;
}

static bool is_wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i]))
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0;
    for (unsigned i = 0; i < nr_tests; i++) {
        if (!is_wanted(tests[i].name, argc, argv))
            continue;
        unsigned before = nr_failures;
        tests[i].function();
        if (nr_failures == before) {
            passed++;
        } else {
            failed++;
            printf("FAILED %s\n", tests[i].name);
        }
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed || !passed;
}
