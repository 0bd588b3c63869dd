/* JSON: a tree of values, a reader that takes exactly RFC 8259, and a writer. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

struct member {
    lh_str name; /* of an object's member; none in an array */
    lh_json *value;
};

struct members {
    struct member *ptr;
    size_t count;
    size_t capacity;
    lh_owned *memory;
};

struct lh_json {
    lh_json_kind kind;
    bool boolean;
    lh_str text;             /* of a string, unescaped, or of a number, as it is written */
    struct members *members; /* of an array or an object */
};

/* ---- Values ---- */

static lh_json *make(lh_json_kind kind) {
    lh_json *value = lhi_alloc(sizeof *value, alignof(lh_json));
    memset(value, 0, sizeof *value);
    value->kind = kind;
    if (kind == LH_JSON_ARRAY || kind == LH_JSON_OBJECT) {
        value->members = lhi_alloc(sizeof *value->members, alignof(struct members));
        memset(value->members, 0, sizeof *value->members);
        // Its block is of the scope in which the value was made, however deep in scopes it grows.
        value->members->memory = lhi_own();
    }
    return value;
}

static void add(lh_json *value, lh_str name, lh_json *child) {
    struct members *members = value->members;
    if (members->count == members->capacity) {
        if (members->capacity > SIZE_MAX / 2 / sizeof *members->ptr) {
            lhi_out_of_memory(SIZE_MAX);
        }
        members->capacity = members->capacity == 0 ? 4 : members->capacity * 2;
        members->ptr = lhi_resize(members->memory, members->capacity * sizeof *members->ptr);
    }
    struct member member = { name, child };
    members->ptr[members->count++] = member;
}

lh_json *lh_json_null(void) { return make(LH_JSON_NULL); }
lh_json *lh_json_array(void) { return make(LH_JSON_ARRAY); }
lh_json *lh_json_object(void) { return make(LH_JSON_OBJECT); }

lh_json *lh_json_bool(bool value) {
    lh_json *json = make(LH_JSON_BOOL);
    json->boolean = value;
    return json;
}

static lh_json *number(lh_str text) {
    lh_json *json = make(LH_JSON_NUMBER);
    json->text = text;
    return json;
}

lh_json *lh_json_int(int64_t value) { return number(lh_format("%" PRId64, value)); }
lh_json *lh_json_uint(uint64_t value) { return number(lh_format("%" PRIu64, value)); }

lh_json *lh_json_double(double value) {
    if (!isfinite(value)) {
        return lh_json_null();
    }
    for (int digits = 15;; digits++) {
        lh_str text = lh_format("%.*g", digits, value);
        if (digits == 17 || strtod(text.ptr, NULL) == value) {
            return number(text);
        }
    }
}

lh_json *lh_json_str(lh_str value) {
    lh_json *json = make(LH_JSON_STRING);
    json->text = lh_has(value) ? lh_copy(value) : LH("");
    return json;
}

lh_json *lh_json_strs(lh_strs texts) {
    lh_json *array = lh_json_array();
    for (size_t i = 0; i < texts.len; i++) {
        lh_json_push(array, lh_json_str(texts.ptr[i]));
    }
    return array;
}

lh_json *lh_json_set(lh_json *object, const char *name, lh_json *value) {
    return lh_json_set_n(object, lh_str_of(name), value);
}

lh_json *lh_json_set_n(lh_json *object, lh_str name, lh_json *value) {
    if (lh_json_kind_of(object) != LH_JSON_OBJECT) {
        lh_panic("lh_json_set: " LH_FMT " is put into %s, which is no object", LH_ARG(name),
                 lh_json_kind_name(lh_json_kind_of(object)));
    }
    value = value == NULL ? lh_json_null() : value;
    for (size_t i = object->members->count; i-- > 0;) {
        if (lh_equal(object->members->ptr[i].name, name)) {
            object->members->ptr[i].value = value;
            return object;
        }
    }
    add(object, lh_has(name) ? lh_copy(name) : LH(""), value);
    return object;
}

lh_json *lh_json_push(lh_json *array, lh_json *value) {
    if (lh_json_kind_of(array) != LH_JSON_ARRAY) {
        lh_panic("lh_json_push: a value is added to %s, which is no array", lh_json_kind_name(lh_json_kind_of(array)));
    }
    add(array, LH_NONE, value == NULL ? lh_json_null() : value);
    return array;
}

/* ---- Looking at values ---- */

lh_json_kind lh_json_kind_of(const lh_json *value) { return value == NULL ? LH_JSON_NULL : value->kind; }

const char *lh_json_kind_name(lh_json_kind kind) {
    switch (kind) {
        case LH_JSON_NULL: return "null";
        case LH_JSON_BOOL: return "a boolean";
        case LH_JSON_NUMBER: return "a number";
        case LH_JSON_STRING: return "a string";
        case LH_JSON_ARRAY: return "an array";
        case LH_JSON_OBJECT: return "an object";
    }
    return "no JSON";
}

lh_json *lh_json_get(const lh_json *object, const char *name) { return lh_json_get_n(object, lh_str_of(name)); }

lh_json *lh_json_get_n(const lh_json *object, lh_str name) {
    if (lh_json_kind_of(object) == LH_JSON_OBJECT) {
        for (size_t i = object->members->count; i-- > 0;) {
            if (lh_equal(object->members->ptr[i].name, name)) {
                return object->members->ptr[i].value;
            }
        }
    }
    return NULL;
}

size_t lh_json_count(const lh_json *value) {
    return value == NULL || value->members == NULL ? 0 : value->members->count;
}

lh_json *lh_json_at(const lh_json *value, size_t index) {
    return index < lh_json_count(value) ? value->members->ptr[index].value : NULL;
}

lh_str lh_json_name(const lh_json *object, size_t index) {
    return index < lh_json_count(object) ? object->members->ptr[index].name : LH_NONE;
}

/* Reads an array's index, as RFC 6901 spells it: no sign, no zero in front. */
static bool index_of(lh_str token, size_t *index) {
    size_t value = 0;
    if (token.len == 0 || (token.len > 1 && token.ptr[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < token.len; i++) {
        unsigned digit = (unsigned)(token.ptr[i] - '0');
        if (digit > 9 || value > (SIZE_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *index = value;
    return true;
}

lh_json *lh_json_find(const lh_json *value, const char *pointer) {
    lh_scope scope = lh_enter();
    const lh_json *at = value;
    while (at != NULL && *pointer != '\0') {
        if (*pointer++ != '/') {
            at = NULL;
            break;
        }
        lh_text token = lh_text_new();
        for (; *pointer != '\0' && *pointer != '/'; pointer++) {
            bool escaped = pointer[0] == '~' && (pointer[1] == '0' || pointer[1] == '1');
            lh_text_add(&token, escaped ? (pointer[1] == '0' ? LH("~") : LH("/")) : lh_str_n(pointer, 1));
            pointer += escaped;
        }
        lh_str name = lh_text_str(&token);
        size_t index;
        if (lh_json_kind_of(at) == LH_JSON_ARRAY) {
            at = index_of(name, &index) ? lh_json_at(at, index) : NULL;
        } else {
            at = lh_json_get_n(at, name);
        }
    }
    lh_leave(scope);
    return (lh_json *)(uintptr_t)at;
}

lh_str lh_json_text(const lh_json *value) {
    return lh_json_kind_of(value) == LH_JSON_STRING ? value->text : LH_NONE;
}

lh_str lh_json_number_text(const lh_json *value) {
    return lh_json_kind_of(value) == LH_JSON_NUMBER ? value->text : LH_NONE;
}

bool lh_json_to_bool(const lh_json *value, bool *out) {
    if (lh_json_kind_of(value) != LH_JSON_BOOL) {
        return false;
    }
    *out = value->boolean;
    return true;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Takes a number apart: its digits without a point, and how many zeros to put behind them, or digits to cut off. */
static bool whole(const lh_json *value, bool *negative, uint64_t *magnitude) {
    if (lh_json_kind_of(value) != LH_JSON_NUMBER) {
        return false;
    }
    const char *mantissa = value->text.ptr, *at = mantissa;
    *negative = *at == '-';
    at += *negative;
    mantissa = at;
    int64_t before = 0, exponent = 0;
    size_t digits = 0;
    bool fraction = false;
    for (; is_digit(*at) || *at == '.'; at++) {
        if (*at == '.') {
            fraction = true;
        } else {
            digits++;
            before += !fraction;
        }
    }
    if (*at == 'e' || *at == 'E') {
        bool down = *++at == '-';
        at += *at == '-' || *at == '+';
        for (; is_digit(*at); at++) {
            // Beyond this nothing fits, nor is anything left but zero.
            exponent = exponent > INT32_MAX ? exponent : exponent * 10 + (*at - '0');
        }
        exponent = down ? -exponent : exponent;
    }
    // So many of the digits, or with zeros behind them, make the integer.
    int64_t kept = before + exponent, seen = 0;
    *magnitude = 0;
    for (at = mantissa; digits > 0; at++) {
        if (*at == '.') {
            continue;
        }
        uint64_t digit = (uint64_t)(*at - '0');
        if (seen++ >= kept) {
            if (digit != 0) {
                return false;
            }
        } else if (*magnitude > (UINT64_MAX - digit) / 10) {
            return false;
        } else {
            *magnitude = *magnitude * 10 + digit;
        }
        digits--;
    }
    for (; seen < kept && *magnitude != 0; seen++) {
        if (*magnitude > UINT64_MAX / 10) {
            return false;
        }
        *magnitude *= 10;
    }
    return true;
}

bool lh_json_to_int(const lh_json *value, int64_t *out) {
    bool negative;
    uint64_t magnitude;
    if (!whole(value, &negative, &magnitude) || magnitude > (uint64_t)INT64_MAX + negative) {
        return false;
    }
    // Negated as unsigned, because the least has no positive twin.
    *out = (int64_t)(negative ? 0 - magnitude : magnitude);
    return true;
}

bool lh_json_to_uint(const lh_json *value, uint64_t *out) {
    bool negative;
    uint64_t magnitude;
    if (!whole(value, &negative, &magnitude) || (negative && magnitude != 0)) {
        return false;
    }
    *out = magnitude;
    return true;
}

bool lh_json_to_double(const lh_json *value, double *out) {
    if (lh_json_kind_of(value) != LH_JSON_NUMBER) {
        return false;
    }
    double number = strtod(value->text.ptr, NULL);
    if (!isfinite(number)) {
        return false;
    }
    *out = number;
    return true;
}

/* ---- Reading ---- */

struct reader {
    const char *text;
    const char *at;
    const char *end;
};

static lh_error parse_value(struct reader *reader, int depth, lh_json **value);

/* Says what is wrong with the byte at `at`: by line and column, both from 1 on, the column in bytes. */
static lh_error wrong_at(const struct reader *reader, const char *at, const char *what) {
    size_t line = 1, column = 1;
    for (const char *c = reader->text; c < at; c++) {
        line += *c == '\n';
        column = *c == '\n' ? 1 : column + 1;
    }
    return lh_fail(LH_INVALID_REQUEST, "%s at line %zu column %zu", what, line, column);
}

static lh_error wrong(const struct reader *reader, const char *what) { return wrong_at(reader, reader->at, what); }

static void skip_space(struct reader *reader) {
    while (reader->at < reader->end
           && (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\n' || *reader->at == '\r')) {
        reader->at++;
    }
}

static bool take(struct reader *reader, char c) {
    if (reader->at < reader->end && *reader->at == c) {
        reader->at++;
        return true;
    }
    return false;
}

static bool take_word(struct reader *reader, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(reader->end - reader->at) < len || memcmp(reader->at, word, len) != 0) {
        return false;
    }
    reader->at += len;
    return true;
}

static bool take_digits(struct reader *reader) {
    const char *from = reader->at;
    while (reader->at < reader->end && is_digit(*reader->at)) {
        reader->at++;
    }
    return reader->at > from;
}

/* Takes a number as it is spelt: RFC 8259, section 6. */
static bool take_number(struct reader *reader) {
    take(reader, '-');
    if (!take(reader, '0') && !take_digits(reader)) {
        return false;
    }
    if (take(reader, '.') && !take_digits(reader)) {
        return false;
    }
    if (take(reader, 'e') || take(reader, 'E')) {
        if (!take(reader, '+')) {
            take(reader, '-');
        }
        return take_digits(reader);
    }
    return true;
}

static bool take_hex(struct reader *reader, uint32_t *unit) {
    if (reader->end - reader->at < 4) {
        return false;
    }
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        char c = reader->at[i];
        uint32_t digit;
        if (is_digit(c)) {
            digit = (uint32_t)(c - '0');
        } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
            digit = (uint32_t)((c | 0x20) - 'a' + 10);
        } else {
            return false;
        }
        *unit = *unit << 4 | digit;
    }
    reader->at += 4;
    return true;
}

static char *put_character(char *out, uint32_t c) {
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xC0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *out++ = (char)(0xE0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else {
        *out++ = (char)(0xF0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3F));
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    }
    return out;
}

/* Takes what follows a backslash. */
static lh_error parse_escape(struct reader *reader, char **out) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *from = reader->at - 1;
    if (reader->at < reader->end && *reader->at != '\0' && strchr(letters, *reader->at) != NULL) {
        *(*out)++ = meanings[strchr(letters, *reader->at++) - letters];
        return lh_ok();
    }
    uint32_t unit, low;
    if (!take(reader, 'u') || !take_hex(reader, &unit)) {
        return wrong_at(reader, from, "an escape that there is not");
    }
    if (unit >= 0xD800 && unit <= 0xDFFF) {
        bool paired = unit <= 0xDBFF && take_word(reader, "\\u") && take_hex(reader, &low) && low >= 0xDC00
                      && low <= 0xDFFF;
        if (!paired) {
            return wrong_at(reader, from, "half of a surrogate pair");
        }
        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }
    *out = put_character(*out, unit);
    return lh_ok();
}

/* Takes a string after its first quote. */
static lh_error parse_string(struct reader *reader, lh_str *str) {
    // Its end, and with it the most it can be: no escape is shorter than what it means.
    const char *end = reader->at;
    while (end < reader->end && *end != '"') {
        end += *end == '\\' ? 2 : 1;
    }
    if (end >= reader->end) {
        return wrong_at(reader, reader->at - 1, "a string without its end");
    }
    char *bytes = lhi_alloc((size_t)(end - reader->at) + 1, 1), *out = bytes;
    while (reader->at < end) {
        const char *from = reader->at;
        while (reader->at < end && *reader->at != '\\' && (unsigned char)*reader->at >= 0x20) {
            reader->at++;
        }
        memcpy(out, from, (size_t)(reader->at - from));
        out += reader->at - from;
        if (reader->at == end) {
            break;
        }
        if (*reader->at != '\\') {
            return wrong(reader, "a control character in a string");
        }
        reader->at++;
        LH_TRY(parse_escape(reader, &out));
    }
    reader->at = end + 1;
    *out = '\0';
    *str = lh_str_n(bytes, (size_t)(out - bytes));
    return lh_ok();
}

static lh_error parse_array(struct reader *reader, int depth, lh_json *array) {
    skip_space(reader);
    if (take(reader, ']')) {
        return lh_ok();
    }
    for (;;) {
        lh_json *entry;
        LH_TRY(parse_value(reader, depth, &entry));
        add(array, LH_NONE, entry);
        skip_space(reader);
        if (take(reader, ']')) {
            return lh_ok();
        }
        if (!take(reader, ',')) {
            return wrong(reader, "expected `,` or `]`");
        }
    }
}

static lh_error parse_object(struct reader *reader, int depth, lh_json *object) {
    skip_space(reader);
    if (take(reader, '}')) {
        return lh_ok();
    }
    for (;;) {
        lh_str name;
        lh_json *value;
        skip_space(reader);
        if (!take(reader, '"')) {
            return wrong(reader, "expected a name in quotes");
        }
        LH_TRY(parse_string(reader, &name));
        skip_space(reader);
        if (!take(reader, ':')) {
            return wrong(reader, "expected `:`");
        }
        LH_TRY(parse_value(reader, depth, &value));
        add(object, name, value);
        skip_space(reader);
        if (take(reader, '}')) {
            return lh_ok();
        }
        if (!take(reader, ',')) {
            return wrong(reader, "expected `,` or `}`");
        }
    }
}

static lh_error parse_value(struct reader *reader, int depth, lh_json **value) {
    skip_space(reader);
    if (reader->at == reader->end) {
        return wrong(reader, "expected a value, and the text ends");
    }
    const char *from = reader->at;
    bool opens = *from == '{' || *from == '[';
    if (opens && depth == LH_JSON_DEPTH_MAX) {
        return wrong(reader, "deeper than 128 levels");
    }
    if (take(reader, '{')) {
        return parse_object(reader, depth + 1, *value = make(LH_JSON_OBJECT));
    } else if (take(reader, '[')) {
        return parse_array(reader, depth + 1, *value = make(LH_JSON_ARRAY));
    } else if (take(reader, '"')) {
        *value = make(LH_JSON_STRING);
        return parse_string(reader, &(*value)->text);
    } else if (take_word(reader, "true") || take_word(reader, "false")) {
        *value = lh_json_bool(*from == 't');
    } else if (take_word(reader, "null")) {
        *value = lh_json_null();
    } else if (*from == '-' || is_digit(*from)) {
        if (!take_number(reader)) {
            return wrong(reader, "expected a digit");
        }
        *value = number(lh_copy(lh_str_n(from, (size_t)(reader->at - from))));
    } else {
        return wrong(reader, "expected a value");
    }
    return lh_ok();
}

lh_error lh_json_parse(lh_str text, lh_json **value) {
    LH_TRY(lhi_check(text, "JSON"));
    struct reader reader = { text.ptr, text.ptr, text.ptr == NULL ? NULL : text.ptr + text.len };
    LH_TRY(parse_value(&reader, 0, value));
    skip_space(&reader);
    return reader.at == reader.end ? lh_ok() : wrong(&reader, "more after the value");
}

lh_json *lh_json_number(lh_str text) {
    struct reader reader = { text.ptr, text.ptr, text.ptr == NULL ? NULL : text.ptr + text.len };
    bool is_number = text.len > 0 && take_number(&reader) && reader.at == reader.end;
    return is_number ? number(lh_copy(text)) : lh_json_null();
}

lh_error lhi_answer(agent_string_t text, lh_json **value) {
    lh_error error = lh_json_parse(lhi_take(text), value);
    if (error.code != LH_OK) {
        return lh_fail(LH_INTERNAL_ERROR, "answer: " LH_FMT, LH_ARG(error.message));
    }
    return error;
}

/* ---- Writing ---- */

static void write_string(lh_text *out, lh_str str) {
    static const char letters[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
    lh_text_add(out, LH("\""));
    for (size_t i = 0; i < str.len;) {
        size_t from = i;
        while (i < str.len && str.ptr[i] != '"' && str.ptr[i] != '\\' && (unsigned char)str.ptr[i] >= 0x20) {
            i++;
        }
        lh_text_add(out, lh_str_n(str.ptr + from, i - from));
        if (i == str.len) {
            break;
        }
        char c = str.ptr[i++];
        const char *letter = c == '\0' ? NULL : strchr(letters, c);
        char escape[8];
        int len = letter == NULL ? snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c)
                                 : snprintf(escape, sizeof escape, "\\%c", escapes[letter - letters]);
        lh_text_add(out, lh_str_n(escape, (size_t)len));
    }
    lh_text_add(out, LH("\""));
}

static lh_error write_text(lh_text *out, lh_str str) {
    LH_TRY(lhi_check(str, "JSON: a string"));
    write_string(out, str);
    return lh_ok();
}

static lh_error write_value(lh_text *out, const lh_json *value, int depth) {
    lh_json_kind kind = lh_json_kind_of(value);
    switch (kind) {
        case LH_JSON_NULL: lh_text_add(out, LH("null")); return lh_ok();
        case LH_JSON_BOOL: lh_text_add(out, value->boolean ? LH("true") : LH("false")); return lh_ok();
        case LH_JSON_NUMBER: lh_text_add(out, value->text); return lh_ok();
        case LH_JSON_STRING: return write_text(out, value->text);
        case LH_JSON_ARRAY:
        case LH_JSON_OBJECT: break;
    }
    if (depth == LH_JSON_DEPTH_MAX) {
        return lh_fail(LH_INVALID_REQUEST, "JSON: deeper than 128 levels");
    }
    lh_text_add(out, kind == LH_JSON_OBJECT ? LH("{") : LH("["));
    for (size_t i = 0; i < value->members->count; i++) {
        if (i > 0) {
            lh_text_add(out, LH(","));
        }
        if (kind == LH_JSON_OBJECT) {
            LH_TRY(write_text(out, value->members->ptr[i].name));
            lh_text_add(out, LH(":"));
        }
        LH_TRY(write_value(out, value->members->ptr[i].value, depth + 1));
    }
    lh_text_add(out, kind == LH_JSON_OBJECT ? LH("}") : LH("]"));
    return lh_ok();
}

lh_error lh_json_write(const lh_json *value, lh_str *text) {
    lh_text out = lh_text_new();
    LH_TRY(write_value(&out, value, 0));
    *text = lh_text_str(&out);
    return lh_ok();
}
