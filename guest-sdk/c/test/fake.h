/* A host for the tests: what an agent asks is written down, and answered with what the test put there. */
#ifndef FAKE_H
#define FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fake {
    /* What was asked, a line a call. */
    char asked[1 << 16];
    /* The code and message with which every call fails; 0 for none. It is that of `lh_code`. */
    int fails;
    /* What the next calls answer that answer a text, bytes or JSON; the last one again and again. */
    const char *answers[8];
    size_t answer;
    /* How many more blocks of memory there are; SIZE_MAX for no end. */
    size_t blocks;
    /* Whether log events are printed, too: to be read from a process that ends. */
    bool prints;
    /* What `read-range` reads. */
    const char *file;
    size_t file_len;
    /* Calls that are neither finished nor dropped. */
    int under_way;
    /* What `wait-any` answers; negative for nobody. */
    int first;
    bool cancelled;
    int dirs; /* how many levels of directories a listing shows */
    const char *parts[8];
};

extern struct fake fake;

/* Begins a test. */
void fake_reset(void);

#endif
