/* Tests what needs no host: `make test`. */
#include <stdio.h>
#include <string.h>

#include "../src/count.h"

int main(void) {
    static const struct {
        const char *text;
        size_t lines, words;
        const char *longest;
    } table[] = {
        { "", 0, 0, "" },
        { "one", 1, 1, "one" },
        { "one three\ntwo\n", 2, 3, "three" },
        { "größe pretty", 1, 2, "pretty" }, // by characters, not by bytes
        { "\n\n \t", 3, 0, "" },
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct report is = examine(table[i].text, strlen(table[i].text));
        if (is.lines != table[i].lines || is.words != table[i].words || is.longest_len != strlen(table[i].longest)
            || memcmp(is.longest, table[i].longest, is.longest_len) != 0) {
            fprintf(stderr, "\"%s\": %zu lines, %zu words, longest \"%.*s\"\n", table[i].text, is.lines, is.words,
                    (int)is.longest_len, is.longest);
            failed++;
        }
    }
    printf("%d of %zu texts failed\n", failed, sizeof table / sizeof table[0]);
    return failed > 0;
}
