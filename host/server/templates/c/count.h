/* Everything that needs no host, so that `make test` can try it. */
#ifndef COUNT_H
#define COUNT_H

#include <stddef.h>

struct report {
    size_t lines;
    size_t words;
    const char *longest; /* a part of the text */
    size_t longest_len;  /* in bytes */
};

/* Examines a text in UTF-8. Of several longest words it finds the last. */
struct report examine(const char *text, size_t len);

#endif
