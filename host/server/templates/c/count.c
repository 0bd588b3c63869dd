#include "count.h"

#include <stdbool.h>
#include <string.h>

static bool is_space(char c) { return c != '\0' && strchr(" \t\n\v\f\r", c) != NULL; }

/* In UTF-8 every byte begins a character but those of the form 10xxxxxx. */
static bool begins_character(char c) { return ((unsigned char)c & 0xC0) != 0x80; }

struct report examine(const char *text, size_t len) {
    struct report report = { 0, 0, text, 0 };
    size_t longest = 0;
    for (size_t at = 0; at < len;) {
        if (is_space(text[at])) {
            report.lines += text[at++] == '\n';
            continue;
        }
        size_t from = at, characters = 0;
        for (; at < len && !is_space(text[at]); at++) {
            characters += begins_character(text[at]);
        }
        report.words++;
        if (characters >= longest) {
            longest = characters;
            report.longest = text + from;
            report.longest_len = at - from;
        }
    }
    // The last line may lack its line end.
    report.lines += len > 0 && text[len - 1] != '\n';
    return report;
}
