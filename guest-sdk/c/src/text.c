/* Texts, and what travels between them and the bindings. */
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/* The length of the character that begins at `at`, or 0 if none of UTF-8 does (Unicode, table 3-7). */
static size_t character(const unsigned char *at, size_t left) {
    unsigned char first = at[0];
    size_t len;
    unsigned char low = 0x80, high = 0xBF;
    if (first < 0x80) {
        return 1;
    } else if (first >= 0xC2 && first <= 0xDF) {
        len = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
        len = 3;
        low = first == 0xE0 ? 0xA0 : 0x80;
        high = first == 0xED ? 0x9F : 0xBF;
    } else if (first >= 0xF0 && first <= 0xF4) {
        len = 4;
        low = first == 0xF0 ? 0x90 : 0x80;
        high = first == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (left < len || at[1] < low || at[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if ((at[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return len;
}

bool lh_is_utf8(lh_str str) {
    for (size_t i = 0; i < str.len;) {
        size_t len = character((const unsigned char *)str.ptr + i, str.len - i);
        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}

lh_str lhi_lossy(lh_str str) {
    if (lh_is_utf8(str)) {
        return str;
    }
    lh_text text = lh_text_new();
    for (size_t i = 0; i < str.len;) {
        size_t len = character((const unsigned char *)str.ptr + i, str.len - i);
        lh_text_add(&text, len == 0 ? LH("\xEF\xBF\xBD") : lh_str_n(str.ptr + i, len));
        i += len == 0 ? 1 : len;
    }
    return lh_text_str(&text);
}

void lhi_mend(char *string) {
    for (size_t left = strlen(string); left > 0;) {
        size_t len = character((const unsigned char *)string, left);
        if (len == 0) {
            *string = '?';
            len = 1;
        }
        string += len;
        left -= len;
    }
}

lh_str lh_copy(lh_str str) {
    if (!lh_has(str)) {
        return str;
    }
    if (str.len == SIZE_MAX) {
        lhi_out_of_memory(str.len);
    }
    char *copy = lhi_alloc(str.len + 1, 1);
    if (str.len > 0) {
        memcpy(copy, str.ptr, str.len);
    }
    copy[str.len] = '\0';
    return lh_str_n(copy, str.len);
}

lh_str lhi_format(const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    if (len < 0) {
        lh_panic("printf cannot print `%s`", format);
    }
    char *text = lhi_alloc((size_t)len + 1, 1);
    vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return lh_str_n(text, (size_t)len);
}

lh_str lh_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    lh_str text = lhi_format(format, arguments);
    va_end(arguments);
    return text;
}

lh_text lh_text_new(void) {
    lh_text text = { NULL, 0, 0, lhi_own() };
    return text;
}

void lh_text_add(lh_text *text, lh_str str) {
    // The NUL at the end is counted.
    if (str.len >= SIZE_MAX / 2 - text->len) {
        lhi_out_of_memory(str.len);
    }
    size_t needed = text->len + str.len + 1;
    if (needed > text->capacity) {
        // What is added may be a part of the text itself.
        bool inside = text->ptr != NULL && str.ptr >= text->ptr && str.ptr <= text->ptr + text->len;
        size_t offset = inside ? (size_t)(str.ptr - text->ptr) : 0;
        size_t doubled = text->capacity * 2;
        text->capacity = needed > doubled ? (needed < 64 ? 64 : needed) : doubled;
        text->ptr = lhi_resize(text->memory, text->capacity);
        if (inside) {
            str.ptr = text->ptr + offset;
        }
    }
    if (str.len > 0) {
        memmove(text->ptr + text->len, str.ptr, str.len);
    }
    text->len += str.len;
    text->ptr[text->len] = '\0';
}

void lh_text_addf(lh_text *text, const char *format, ...) {
    lh_scope scope = lh_enter();
    va_list arguments;
    va_start(arguments, format);
    lh_text_add(text, lhi_format(format, arguments));
    va_end(arguments);
    lh_leave(scope);
}

lh_str lh_text_str(const lh_text *text) {
    return text->ptr == NULL ? LH("") : lh_str_n(text->ptr, text->len);
}

lh_str lhi_take(agent_string_t string) {
    if (string.len == 0) {
        return LH("");
    }
    lhi_own()->block = string.ptr;
    return lh_str_n((const char *)string.ptr, string.len);
}

lh_str lhi_take_bytes(agent_list_u8_t bytes) {
    agent_string_t string = { bytes.ptr, bytes.len };
    return lhi_take(string);
}

lh_strs lhi_take_strs(agent_list_string_t strings) {
    lh_strs taken = { lhi_alloc(strings.len * sizeof *taken.ptr, alignof(lh_str)), strings.len };
    for (size_t i = 0; i < strings.len; i++) {
        taken.ptr[i] = lhi_take(strings.ptr[i]);
    }
    lhi_free_array(strings.ptr, strings.len);
    return taken;
}

void lhi_free_array(void *ptr, size_t len) {
    // Of nothing the host allocates nothing.
    if (len > 0) {
        free(ptr);
    }
}

lh_error lhi_error(agent_error_t error) {
    lh_error taken = { (lh_code)(error.code + 1), lhi_take(error.message) };
    return taken;
}

agent_string_t lhi_show(lh_str str) {
    agent_string_t string = { (uint8_t *)(uintptr_t)str.ptr, str.len };
    return string;
}

agent_list_u8_t lhi_show_bytes(lh_str bytes) {
    agent_list_u8_t list = { (uint8_t *)(uintptr_t)bytes.ptr, bytes.len };
    return list;
}

lh_error lhi_check(lh_str str, const char *what) {
    return lh_is_utf8(str) ? lh_ok() : lh_fail(LH_INVALID_REQUEST, "%s: is not UTF-8", what);
}
