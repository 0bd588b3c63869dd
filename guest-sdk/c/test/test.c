/* The tests of the library, against a host that answers what it is told to: `make test`. */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <leasehold.h>

#include "../generated/agent.h"
#include "fake.h"

static int checks, failures;

static void check(bool holds, int line, const char *what) {
    checks++;
    if (!holds) {
        failures++;
        fprintf(stderr, "test.c:%d: %s\n", line, what);
    }
}

static void check_str(lh_str is, const char *expected, size_t len, int line, const char *what) {
    checks++;
    if (is.len != len || (len > 0 && memcmp(is.ptr, expected, len) != 0)) {
        failures++;
        fprintf(stderr, "test.c:%d: %s\n  is       %.*s\n  expected %.*s\n", line, what, (int)is.len,
                is.ptr == NULL ? "(none)" : is.ptr, (int)len, expected);
    }
}

#define CHECK(holds) check(holds, __LINE__, #holds)
#define IS(str, expected) check_str(str, expected, strlen(expected), __LINE__, #str)
#define IS_N(str, literal) check_str(str, literal, sizeof(literal) - 1, __LINE__, #str)
#define OK(call) IS(lh_str_of(lh_code_name((call).code)), "ok")
#define ASKED(expected) check_str(lh_str_of(fake.asked), expected, strlen(expected), __LINE__, "what was asked")

/* ---- JSON ---- */

struct text_case {
    const char *text;
    const char *expected; /* what is written, or the message of the error */
};

static void what_is_json_is_read_and_written(void) {
    static const struct text_case table[] = {
        { "null", "null" },
        { " true ", "true" },
        { "false", "false" },
        { "\t\r\n 0 \n", "0" },
        { "-0", "-0" },
        { "0.10", "0.10" },         // a decimal stays as it is written
        { "1E+2", "1E+2" },
        { "12345678901234567890123456789", "12345678901234567890123456789" },
        { "1e-400", "1e-400" },
        { "\"\"", "\"\"" },
        { "\"a\\/b\"", "\"a/b\"" },
        { "\"\\\"\\\\\\b\\f\\n\\r\\t\"", "\"\\\"\\\\\\b\\f\\n\\r\\t\"" },
        { "\"\\u0000\\u001F\\u007f\"", "\"\\u0000\\u001f\x7f\"" },
        { "\"\\u00e9\\u20AC\\uD83D\\uDE00\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"" },
        { "\"\xF4\x8F\xBF\xBF\"", "\"\xF4\x8F\xBF\xBF\"" }, // the last character there is
        { "[]", "[]" },
        { "[ 1 , [ ] , { } ]", "[1,[],{}]" },
        { "{}", "{}" },
        { "{ \"a\" : 1 , \"\" : { \"b\" : [ null ] } }", "{\"a\":1,\"\":{\"b\":[null]}}" },
        { "{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":2}" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        lh_json *value;
        lh_str written = LH_NONE;
        lh_error error = lh_json_parse(lh_str_of(table[i].text), &value);
        if (error.code == LH_OK) {
            error = lh_json_write(value, &written);
        }
        OK(error);
        check_str(written, table[i].expected, strlen(table[i].expected), __LINE__, table[i].text);
    }
}

static void what_is_no_json_is_refused_with_the_place(void) {
    static const struct text_case table[] = {
        { "", "expected a value, and the text ends at line 1 column 1" },
        { " \n ", "expected a value, and the text ends at line 2 column 2" },
        { "nul", "expected a value at line 1 column 1" },
        { "True", "expected a value at line 1 column 1" },
        { "1 2", "more after the value at line 1 column 3" },
        { "{} x", "more after the value at line 1 column 4" },
        { "01", "more after the value at line 1 column 2" },
        { "-", "expected a digit at line 1 column 2" },
        { "+1", "expected a value at line 1 column 1" },
        { "1.", "expected a digit at line 1 column 3" },
        { ".5", "expected a value at line 1 column 1" },
        { "1e", "expected a digit at line 1 column 3" },
        { "1e+", "expected a digit at line 1 column 4" },
        { "0x1", "more after the value at line 1 column 2" },
        { "NaN", "expected a value at line 1 column 1" },
        { "'a'", "expected a value at line 1 column 1" },
        { "\"", "a string without its end at line 1 column 1" },
        { "\"a", "a string without its end at line 1 column 1" },
        { "\"a\\", "a string without its end at line 1 column 1" },
        { "\"a\\\"", "a string without its end at line 1 column 1" },
        { "\"a\nb\"", "a control character in a string at line 1 column 3" },
        { "\"\\x\"", "an escape that there is not at line 1 column 2" },
        { "\"\\u12\"", "an escape that there is not at line 1 column 2" },
        { "\"\\u12g4\"", "an escape that there is not at line 1 column 2" },
        { "\"\\uD800\"", "half of a surrogate pair at line 1 column 2" },
        { "\"\\uD800\\u0041\"", "half of a surrogate pair at line 1 column 2" },
        { "\"\\uD800\\n\"", "half of a surrogate pair at line 1 column 2" },
        { "\"\\uDC00\"", "half of a surrogate pair at line 1 column 2" },
        { "[", "expected a value, and the text ends at line 1 column 2" },
        { "[1", "expected `,` or `]` at line 1 column 3" },
        { "[1,]", "expected a value at line 1 column 4" },
        { "[1 2]", "expected `,` or `]` at line 1 column 4" },
        { "[1}", "expected `,` or `]` at line 1 column 3" },
        { "{", "expected a name in quotes at line 1 column 2" },
        { "{\"a\"", "expected `:` at line 1 column 5" },
        { "{\"a\":", "expected a value, and the text ends at line 1 column 6" },
        { "{\"a\":1", "expected `,` or `}` at line 1 column 7" },
        { "{\"a\":1,}", "expected a name in quotes at line 1 column 8" },
        { "{a:1}", "expected a name in quotes at line 1 column 2" },
        { "{\n  \"a\": 1\n  \"b\": 2\n}", "expected `,` or `}` at line 3 column 3" },
        { "\"\xFF\"", "JSON: is not UTF-8" },
        { "\"\xC0\x80\"", "JSON: is not UTF-8" },
        { "\"\xED\xA0\x80\"", "JSON: is not UTF-8" },
        { "\xEF\xBB\xBF" "1", "expected a value at line 1 column 1" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        lh_json *value;
        // In a block of its own, so that the sanitizer sees a read behind the end.
        size_t len = strlen(table[i].text);
        char *block = malloc(len == 0 ? 1 : len);
        memcpy(block, table[i].text, len);
        lh_error error = lh_json_parse(lh_str_n(block, len), &value);
        free(block);
        CHECK(error.code == LH_INVALID_REQUEST);
        check_str(error.message, table[i].expected, strlen(table[i].expected), __LINE__, table[i].text);
    }
    lh_json *value;
    CHECK(lh_json_parse(LH_NONE, &value).code == LH_INVALID_REQUEST);
    CHECK(lh_json_parse(LH("1\0"), &value).code == LH_INVALID_REQUEST);
}

static void every_beginning_of_a_text_is_read_without_a_step_beyond(void) {
    static const char text[] = "{\"a\\u00e9\\ud83d\\ude00\":[1.5e+3,true,false,null,\"\xC3\xA9\\n\",{\"b\":-0.1}]}";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        char *block = malloc(len == 0 ? 1 : len);
        memcpy(block, text, len);
        lh_json *value;
        CHECK(lh_json_parse(lh_str_n(block, len), &value).code == LH_INVALID_REQUEST);
        free(block);
    }
    lh_json *value;
    OK(lh_json_parse(lh_str_of(text), &value));
}

static void a_text_is_at_most_128_levels_deep(void) {
    for (int deep = 127; deep <= 100000; deep = deep == 129 ? 100000 : deep + 1) {
        lh_text text = lh_text_new();
        for (int i = 0; i < deep; i++) {
            lh_text_add(&text, i % 2 == 0 ? LH("[") : LH("{\"a\":"));
        }
        lh_text_add(&text, LH("null"));
        for (int i = deep; i-- > 0;) {
            lh_text_add(&text, i % 2 == 0 ? LH("]") : LH("}"));
        }
        lh_json *value;
        lh_str written;
        lh_error error = lh_json_parse(lh_text_str(&text), &value);
        CHECK((error.code == LH_OK) == (deep <= 128));
        if (error.code == LH_OK) {
            OK(lh_json_write(value, &written));
            CHECK(lh_equal(written, lh_text_str(&text)));
            lh_json *deeper = lh_json_push(lh_json_array(), value);
            CHECK((lh_json_write(deeper, &written).code == LH_OK) == (deep < 128));
        }
        if (deep == 100000) {
            break;
        }
    }
    lh_json *ring = lh_json_array();
    lh_str written;
    IS(lh_json_write(lh_json_push(ring, ring), &written).message, "JSON: deeper than 128 levels");
}

static void values_are_found_and_what_is_missing_is_null(void) {
    lh_json *value;
    OK(lh_json_parse(
        LH("{\"a\":[10,{\"b\":\"x\\u0000y\"}],\"a/b\":1,\"m~n\":2,\"\":3,\"a\":[20,{\"b\":\"z\"}]}"),
        &value));
    int64_t number = 0;
    CHECK(lh_json_to_int(lh_json_find(value, "/a/0"), &number) && number == 20); // the last of a name counts
    IS(lh_json_text(lh_json_find(value, "/a/1/b")), "z");
    CHECK(lh_json_to_int(lh_json_find(value, "/a~1b"), &number) && number == 1);
    CHECK(lh_json_to_int(lh_json_find(value, "/m~0n"), &number) && number == 2);
    CHECK(lh_json_to_int(lh_json_find(value, "/"), &number) && number == 3);
    CHECK(lh_json_find(value, "") == value);
    static const char *const nothing[] = { "a",   "/b",    "/a/2", "/a/-1",
                                           "/a/", "/a/00", "/a/0/0", "/a/99999999999999999999" };
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        check(lh_json_find(value, nothing[i]) == NULL, __LINE__, nothing[i]);
    }
    IS_N(lh_json_text(lh_json_get(lh_json_at(lh_json_at(value, 0), 1), "b")), "x\0y");
    IS(lh_json_name(value, 1), "a/b");
    CHECK(lh_json_count(value) == 5 && lh_json_count(NULL) == 0);
    CHECK(lh_json_get(NULL, "a") == NULL && lh_json_at(NULL, 0) == NULL && !lh_has(lh_json_name(NULL, 0)));
    CHECK(!lh_has(lh_json_text(value)) && !lh_has(lh_json_number_text(NULL)));
    CHECK(lh_json_get(lh_json_at(lh_json_get(value, "x"), 0), "y") == NULL);
}

static void a_number_is_given_only_if_it_fits(void) {
    static const struct {
        const char *text;
        bool is_int, is_uint;
        int64_t as_int;
        uint64_t as_uint;
    } table[] = {
        { "0", true, true, 0, 0 },
        { "-0", true, true, 0, 0 },
        { "-0.0e5", true, true, 0, 0 },
        { "7", true, true, 7, 7 },
        { "-7", true, false, -7, 0 },
        { "3.0", true, true, 3, 3 },
        { "3.5", false, false, 0, 0 },
        { "1e2", true, true, 100, 100 },
        { "1.25E2", true, true, 125, 125 },
        { "1.255e2", false, false, 0, 0 },
        { "1200e-2", true, true, 12, 12 },
        { "1250e-2", false, false, 0, 0 },
        { "0e999999999999", true, true, 0, 0 },
        { "1e999999999999", false, false, 0, 0 },
        { "1e-999999999999", false, false, 0, 0 },
        { "9223372036854775807", true, true, INT64_MAX, INT64_MAX },
        { "9223372036854775808", false, true, 0, UINT64_C(9223372036854775808) },
        { "-9223372036854775808", true, false, INT64_MIN, 0 },
        { "-9223372036854775809", false, false, 0, 0 },
        { "18446744073709551615", false, true, 0, UINT64_MAX },
        { "18446744073709551616", false, false, 0, 0 },
        { "1844674407370955161.5e1", false, true, 0, UINT64_MAX },
        { "184467440737095516160e-1", false, false, 0, 0 },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        lh_json *value = lh_json_number(lh_str_of(table[i].text));
        int64_t as_int = 0;
        uint64_t as_uint = 0;
        bool right = lh_json_to_int(value, &as_int) == table[i].is_int && as_int == table[i].as_int
                     && lh_json_to_uint(value, &as_uint) == table[i].is_uint && as_uint == table[i].as_uint;
        check(right, __LINE__, table[i].text);
    }
    double number = 1;
    CHECK(lh_json_to_double(lh_json_number(LH("-2.5e-1")), &number) && number == -0.25);
    CHECK(!lh_json_to_double(lh_json_number(LH("1e400")), &number) && number == -0.25);
    CHECK(!lh_json_to_double(lh_json_str(LH("1")), &number) && !lh_json_to_double(NULL, &number));
    CHECK(lh_json_kind_of(lh_json_number(LH("1x"))) == LH_JSON_NULL);
    CHECK(lh_json_kind_of(lh_json_number(LH_NONE)) == LH_JSON_NULL);
    IS(lh_json_number_text(lh_json_int(INT64_MIN)), "-9223372036854775808");
    IS(lh_json_number_text(lh_json_uint(UINT64_MAX)), "18446744073709551615");
    IS(lh_json_number_text(lh_json_double(0.1)), "0.1");
    IS(lh_json_number_text(lh_json_double(1.0 / 3)), "0.3333333333333333");
    CHECK(lh_json_kind_of(lh_json_double(1e308 * 10)) == LH_JSON_NULL);
}

static void values_are_put_together(void) {
    lh_json *object = lh_json_object();
    lh_json_set(object, "a", lh_json_int(1));
    lh_json_set_n(object, LH("n\0n"), lh_json_str(LH("\x01\0")));
    lh_json_set(object, "list", lh_json_push(lh_json_push(lh_json_array(), NULL), lh_json_bool(true)));
    lh_json_set(object, "a", lh_json_str(LH_NONE));
    lh_str texts[] = { LH("x"), LH("y") }, written;
    lh_json_set(object, "strs", lh_json_strs((lh_strs){ texts, 2 }));
    OK(lh_json_write(object, &written));
    IS(written, "{\"a\":\"\",\"n\\u0000n\":\"\\u0001\\u0000\",\"list\":[null,true],\"strs\":[\"x\",\"y\"]}");
    CHECK(written.ptr[written.len] == '\0');
    OK(lh_json_write(NULL, &written));
    IS(written, "null");
    IS(lh_json_write(lh_json_str(LH("\xFF")), &written).message, "JSON: a string: is not UTF-8");
    CHECK(lh_json_write(lh_json_set_n(lh_json_object(), LH("\xFF"), NULL), &written).code == LH_INVALID_REQUEST);
}

/* ---- Texts and memory ---- */

static void utf8_is_what_unicode_says(void) {
    static const struct {
        const char *text;
        bool is;
    } table[] = {
        { "", true },
        { "a\xC2\x80\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", true },
        { "\xED\x9F\xBF\xEE\x80\x80", true },   // beside the surrogates
        { "\x80", false },
        { "\xC1\xBF", false },                   // longer than need be
        { "\xE0\x9F\xBF", false },
        { "\xF0\x8F\xBF\xBF", false },
        { "\xED\xA0\x80", false },               // a surrogate
        { "\xF4\x90\x80\x80", false },           // over U+10FFFF
        { "\xF5\x80\x80\x80", false },
        { "\xC2", false },                       // cut off
        { "\xE2\x82", false },
        { "\xF0\x9F\x98", false },
        { "\xC2" "a", false },
        { "\xF0\x9F\x98" "a", false },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        CHECK(lh_is_utf8(lh_str_of(table[i].text)) == table[i].is);
    }
    lh_info("%s", "a\xFF\xC3\xA9\xE2\x82");
    ASKED("info a\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD\n");
}

static void texts_grow_and_scopes_give_back(void) {
    lh_text text = lh_text_new();
    lh_json *array = lh_json_array();
    IS(lh_text_str(&text), "");
    for (int i = 0; i < 1000; i++) {
        lh_scope scope = lh_enter();
        lh_scope inner = lh_enter();
        memset(lh_alloc(10000), 'x', 10000);
        lh_str small = lh_format("%d,", i);
        CHECK(small.ptr[small.len] == '\0');
        lh_leave(inner);
        lh_text_addf(&text, "%d,", i);
        lh_json_push(array, NULL); // grows, and what was made before the scope stays
        if (i % 2 == 0) {
            lh_leave(scope);
        }
    }
    CHECK(text.len == 3890 && memcmp(text.ptr, "0,1,2,", 6) == 0 && text.ptr[3890] == '\0');
    CHECK(lh_json_count(array) == 1000);
    lh_text_add(&text, lh_text_str(&text)); // a part of itself
    CHECK(text.len == 7780 && memcmp(text.ptr + 3890, "0,1,2,", 6) == 0);
    lh_scope scope = lh_enter();
    lh_error error = lh_leave_with(scope, lh_fail(LH_NOT_FOUND, "no chapter %d", 7));
    CHECK(error.code == LH_NOT_FOUND);
    IS(error.message, "no chapter 7");
    OK(lh_leave_with(lh_enter(), lh_ok()));
    CHECK(!lh_has(lh_copy(LH_NONE)) && lh_has(lh_copy(LH(""))) && lh_equal(LH_NONE, LH("")));
    CHECK(((uintptr_t)lh_alloc(1) & 7) == 0 && *(char *)lh_alloc(1) == 0);
}

static void errors_have_names(void) {
    for (int code = LH_PERMISSION_DENIED; code <= LH_UNKNOWN_OUTCOME; code++) {
        lh_code found = LH_OK;
        CHECK(lh_code_of(lh_str_of(lh_code_name((lh_code)code)), &found) && (int)found == code);
    }
    lh_code code;
    CHECK(!lh_code_of(LH("PERMISSION_DENIED"), &code) && !lh_code_of(LH("ok"), &code));
    IS(lh_str_of(lh_code_name(LH_PERMISSION_DENIED)), "permission-denied");
    IS(lh_str_of(lh_code_name((lh_code)99)), "no error code");
    CHECK(lh_ends_the_job(LH_CANCELLED) && lh_ends_the_job(LH_BUDGET_EXHAUSTED) && !lh_ends_the_job(LH_NOT_FOUND));
    fake.fails = LH_UNKNOWN_OUTCOME;
    lh_error error = lh_fs_append(LH("/a"), LH("b"));
    CHECK(error.code == LH_UNKNOWN_OUTCOME);
    IS(error.message, "as the test wanted");
}

/* ---- The agent ---- */

static lh_run agent;
static lh_run_raw raw;

static lh_error either(lh_str input, lh_str *result) {
    return raw != NULL ? raw(input, result) : lh_answer(input, result, agent);
}

LH_AGENT_RAW(either)

/* Runs an agent as the host does; gives its result, or its error as `code: message`. */
static lh_str run_by_host(const char *input) {
    agent_string_t given = { (uint8_t *)1, strlen(input) }, result = { NULL, 0 };
    if (given.len > 0) {
        given.ptr = malloc(given.len + 1);
        memcpy(given.ptr, input, given.len + 1);
    }
    agent_error_t error = { 0, { NULL, 0 } };
    bool is_result = exports_agent_run(&given, &result, &error);
    agent_string_t *text = is_result ? &result : &error.message;
    lh_text whole = lh_text_new();
    if (!is_result) {
        lh_text_addf(&whole, "%s: ", lh_code_name((lh_code)(error.code + 1)));
    }
    lh_text_add(&whole, lh_str_n((char *)text->ptr, text->len));
    free(text->ptr);
    return lh_text_str(&whole);
}

static lh_error reads_input(const lh_json *input, lh_json **result) {
    lh_str path = LH_NONE, units = LH("files");
    int64_t offset = -1;
    uint64_t length = 0;
    double ratio = 0;
    bool deep = false;
    LH_TRY(lh_input_str(input, "path", &path));
    LH_TRY(lh_input_str_opt(input, "units", &units));
    LH_TRY(lh_input_int_opt(input, "offset", &offset));
    LH_TRY(lh_input_uint_opt(input, "length", &length));
    LH_TRY(lh_input_double_opt(input, "ratio", &ratio));
    LH_TRY(lh_input_bool_opt(input, "deep", &deep));
    *result = lh_json_str(lh_format(LH_FMT " " LH_FMT " %d %u %g %d", LH_ARG(path), LH_ARG(units), (int)offset,
                                    (unsigned)length, ratio, deep));
    return lh_ok();
}

static void an_input_is_read_and_a_wrong_one_gets_the_reason(void) {
    static const struct text_case table[] = {
        { "{\"path\":\"/a\"}", "\"/a files -1 0 0 0\"" },
        { "{\"path\":\"/a\",\"offset\":-5,\"length\":7,\"ratio\":0.5,\"deep\":true,\"units\":\"x\",\"more\":[]}",
          "\"/a x -5 7 0.5 1\"" },
        { "{\"path\":\"/a\",\"offset\":null}", "\"/a files -1 0 0 0\"" },
        { "{}", "invalid-request: input: path: is missing" },
        { "null", "invalid-request: input: expected an object, got null" },
        { "[]", "invalid-request: input: expected an object, got an array" },
        { "{\"path\":null}", "invalid-request: input: path: expected a string, got null" },
        { "{\"path\":7}", "invalid-request: input: path: expected a string, got the number 7" },
        { "{\"path\":\"/a\",\"offset\":1.5}",
          "invalid-request: input: offset: expected an integer of 64 bits, got the number 1.5" },
        { "{\"path\":\"/a\",\"length\":-1}",
          "invalid-request: input: length: expected an integer of 64 bits that is not negative, got the number -1" },
        { "{\"path\":\"/a\",\"deep\":\"yes\"}", "invalid-request: input: deep: expected true or false, got a string" },
        { "{\"path\":\"/a\",\"ratio\":{}}", "invalid-request: input: ratio: expected a number, got an object" },
        { "{", "invalid-request: input: expected a name in quotes at line 1 column 2" },
        { "", "invalid-request: input: expected a value, and the text ends at line 1 column 1" },
    };
    agent = reads_input;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        check_str(run_by_host(table[i].text), table[i].expected, strlen(table[i].expected), __LINE__, table[i].text);
    }
}

static lh_error gives_nothing(const lh_json *input, lh_json **result) {
    (void)input, (void)result;
    return lh_ok();
}

static lh_error gives_bytes(const lh_json *input, lh_json **result) {
    (void)input;
    *result = lh_json_str(LH("\xFF"));
    return lh_ok();
}

static lh_error fails_oddly(const lh_json *input, lh_json **result) {
    (void)input, (void)result;
    lh_error error = { (lh_code)99, LH("what\xFF") };
    return error;
}

static lh_error gives_raw(lh_str input, lh_str *result) {
    *result = lh_equal(input, LH("1")) ? LH("\xFF") : input;
    return lh_ok();
}

static void a_result_is_handed_over(void) {
    agent = gives_nothing;
    IS(run_by_host("{}"), "null");
    agent = gives_bytes;
    IS(run_by_host("{}"), "internal-error: result: JSON: a string: is not UTF-8");
    agent = fails_oddly;
    IS(run_by_host("{}"), "internal-error: what\xEF\xBF\xBD");
    raw = gives_raw;
    IS(run_by_host("[1, 2]"), "[1, 2]");
    IS(run_by_host("1"), "internal-error: result: is not UTF-8");
    raw = NULL;
}

/* ---- What ends the job ---- */

/* Runs in a process of its own. Gives what it printed; `*died` says whether it aborted. */
static lh_str in_a_child(void (*run)(void), bool *died) {
    static char printed[8192];
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0) {
        abort();
    }
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        fake.prints = true;
        run();
        fflush(stdout);
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t got; (got = read(ends[0], printed + len, sizeof printed - 1 - len)) > 0;) {
        len += (size_t)got;
    }
    close(ends[0]);
    printed[len] = '\0';
    int status;
    waitpid(child, &status, 0);
    *died = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    check(*died || (WIFEXITED(status) && WEXITSTATUS(status) == 0), __LINE__, "a child ends or aborts");
    return lh_str_of(printed);
}

static void panics(void) { lh_panic("the index is %s\xFF", "corrupt"); }
static void sets_in_an_array(void) { lh_json_set(lh_json_array(), "a", NULL); }
static void pushes_into_nothing(void) { lh_json_push(NULL, NULL); }

static void wants_too_much(void) {
    fake.blocks = 0;
    lh_alloc(SIZE_MAX / 2);
}

static void what_cannot_happen_ends_the_job_with_a_word(void) {
    static const struct {
        void (*run)(void);
        const char *expected;
    } table[] = {
        { panics, "error the index is corrupt?\n" },
        { sets_in_an_array, "error lh_json_set: a is put into an array, which is no object\n" },
        { pushes_into_nothing, "error lh_json_push: a value is added to null, which is no array\n" },
    };
    bool died;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        IS(in_a_child(table[i].run, &died), table[i].expected);
        CHECK(died);
    }
    IS(in_a_child(wants_too_much, &died),
       lh_format("error out of memory: there is no room for %zu bytes more\n", SIZE_MAX / 2).ptr);
    CHECK(died);
}

/* Uses memory of every kind. */
static void uses_memory(void) {
    lh_json *value;
    lh_str written;
    lh_entries entries;
    fake.dirs = 1;
    if (lh_json_parse(LH("[{\"a\":[1,2,3,4,5,6]},\"text\"]"), &value).code != LH_OK
        || lh_json_write(value, &written).code != LH_OK || lh_fs_list(LH("/a"), &entries).code != LH_OK) {
        abort();
    }
    lh_scope scope = lh_enter();
    memset(lh_alloc(100000), 1, 100000);
    lh_error error = lh_leave_with(scope, lh_fail(LH_TIMEOUT, "late"));
    lh_call call;
    if (error.code != LH_TIMEOUT || lh_tool_start(LH("one"), value, &call).code != LH_OK) {
        abort();
    }
    printf("done\n");
}

static void memory_may_run_out_anywhere(void) {
    size_t survived = 0;
    for (size_t blocks = 0; survived == 0 && blocks < 1000; blocks++) {
        bool died;
        fake.blocks = blocks;
        lh_str said = in_a_child(uses_memory, &died);
        fake.blocks = SIZE_MAX;
        CHECK(died || lh_equal(said, LH("done\n")));
        if (died) {
            check(said.len > 20 && memcmp(said.ptr, "error out of memory:", 20) == 0, __LINE__, said.ptr);
        } else {
            survived = blocks;
        }
    }
    CHECK(survived > 5); // it was refused in so many places, and then there was enough
}

/* ---- The host's interfaces ---- */

static void events_say_what_was_meant(void) {
    lh_debug("%d", 1);
    lh_info(LH_FMT "!", LH_ARG(LH("two")));
    lh_warn("three");
    lh_log_error("%s", "");
    lh_thought("so %s", "it is");
    OK(lh_status(LH("files"), LH("all")));
    OK(lh_status(LH("files"), LH_NONE));
    OK(lh_progress(1, 4, LH("steps"), LH("first")));
    OK(lh_progress(1, LH_UNKNOWN, LH_NONE, LH_NONE));
    OK(lh_artifact(LH("file:///a"), LH("text/plain"), 13, LH_NONE));
    OK(lh_artifact(LH("file:///a"), LH("text/plain"), LH_UNKNOWN, LH("00")));
    OK(lh_vendor(LH("x-vendor.a.b"), lh_json_set(lh_json_object(), "n", lh_json_int(1))));
    lh_pair kind = { LH("kind"), LH("done") };
    OK(lh_metric(LH("steps"), LH("3"), LH("n"), &kind, 1));
    OK(lh_metric(LH("steps"), LH("3"), LH_NONE, NULL, 0));
    OK(lh_cost(LH("inference"), LH("0.25"), LH("USD")));
    ASKED("debug 1\ninfo two!\nwarn three\nerror \nthought so it is\n"
          "status files message=all\nstatus files\n"
          "progress 1 of 4 units=steps message=first\nprogress 1\n"
          "artifact file:///a text/plain size=13\nartifact file:///a text/plain sha256=00\n"
          "vendor x-vendor.a.b {\"n\":1}\n"
          "metric steps=3 unit=n kind:done\nmetric steps=3\nmetric cost.inference=0.25 unit=USD\n");
}

static void what_is_not_utf8_never_reaches_the_host(void) {
    const lh_str bad = LH("\xFF");
    lh_str text;
    lh_strs texts;
    lh_entries entries;
    lh_metadata metadata;
    lh_response response;
    lh_json *value;
    lh_call call;
    lh_pair pair = { bad, LH("") };
    lh_task task = lh_task_of(bad), granted = lh_task_of(LH("a"));
    lh_task_grant(&granted, LH("fs.read"), bad);
    lh_request request = lh_request_of(LH("GET"), LH("http://a/"));
    lh_request_header(&request, bad, LH(""));
    lh_error errors[] = {
        lh_fs_read(bad, &text), lh_fs_read_range(bad, 0, 1, &text), lh_fs_list(bad, &entries),
        lh_fs_stat(bad, &metadata), lh_fs_write(bad, LH("")), lh_fs_append(bad, LH("")), lh_fs_create_dir(bad),
        lh_fs_remove(bad), lh_status(bad, LH_NONE), lh_status(LH(""), bad), lh_progress(0, 0, bad, LH_NONE),
        lh_progress(0, 0, LH_NONE, bad), lh_artifact(bad, LH(""), 0, LH_NONE), lh_artifact(LH(""), bad, 0, LH_NONE),
        lh_artifact(LH(""), LH(""), 0, bad), lh_vendor(bad, NULL), lh_metric(bad, LH("1"), LH_NONE, NULL, 0),
        lh_metric(LH("a"), bad, LH_NONE, NULL, 0), lh_metric(LH("a"), LH("1"), bad, NULL, 0),
        lh_metric(LH("a"), LH("1"), LH_NONE, &pair, 1), lh_output_text(bad), lh_job_grants(bad, &texts),
        lh_net_get(bad, &response), lh_net_send(&request, &response), lh_net_start(&request, &call),
        lh_net_open(&request, &call, &response), lh_tool_call(bad, NULL, &value), lh_tool_start(bad, NULL, &call),
        lh_model_ask(bad, LH(""), &text), lh_model_ask(LH("m"), bad, &text), lh_model_start(bad, NULL, &call),
        lh_delegate_run(&task, &value), lh_delegate_start(&granted, &call),
    };
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        char which[32];
        snprintf(which, sizeof which, "call %zu of the table", i);
        check(errors[i].code == LH_INVALID_REQUEST, __LINE__, which);
    }
    ASKED("");
}

static lh_error note(void *context, const lh_entry *entry, bool *skip) {
    lh_text *seen = (lh_text *)context;
    lh_text_addf(seen, LH_FMT " ", LH_ARG(entry->path));
    *skip = lh_equal(entry->path, LH("/w/a/a/a"));
    return lh_ok();
}

static lh_error give_up(void *context, const lh_entry *entry, bool *skip) {
    (void)context, (void)entry, (void)skip;
    return lh_fail(LH_CANCELLED, "enough");
}

static void files_are_read_listed_and_walked(void) {
    lh_str text;
    lh_entries entries;
    lh_metadata metadata;
    fake.answers[0] = "caf\xC3\xA9";
    fake.answers[1] = "caf\xE9";
    fake.dirs = 1;
    OK(lh_fs_read_text(LH("/a"), &text));
    IS(text, "caf\xC3\xA9");
    IS(lh_fs_read_text(LH("/a"), &text).message, "/a is not UTF-8");
    OK(lh_fs_read(LH("/a"), &text));
    IS(text, "caf\xE9");
    OK(lh_fs_list(LH("/w//"), &entries));
    CHECK(entries.len == 2 && entries.ptr[0].kind == LH_DIRECTORY && entries.ptr[1].size == 7);
    IS(entries.ptr[1].path, "/w/b.txt");
    IS(entries.ptr[1].name, "b.txt");
    OK(lh_fs_list(LH("/"), &entries));
    CHECK(entries.len == 0);
    OK(lh_fs_stat(LH("/a"), &metadata));
    IS(lh_str_of(lh_kind_name(metadata.kind)), "file");
    OK(lh_fs_write(LH("/b"), LH("12\0")));
    OK(lh_fs_create_dir(LH("/c")));
    OK(lh_fs_remove(LH("/c")));
    ASKED("fs.read /a\nfs.read /a\nfs.read /a\nfs.list /w//\nfs.list /\nfs.stat /a\nfs.write /b 3\nfs.create-dir /c\n"
          "fs.remove /c\n");

    lh_text seen = lh_text_new();
    fake.dirs = 3;
    OK(lh_fs_walk(LH("/w"), note, &seen));
    IS(lh_text_str(&seen), "/w/a /w/a/a /w/a/a/a /w/a/a/b.txt /w/a/b.txt /w/b.txt ");
    fake.dirs = 1000; // as a file system without end would
    seen.len = 0;
    CHECK(lh_fs_walk(LH("/w"), give_up, NULL).code == LH_CANCELLED);
    fake.fails = LH_PERMISSION_DENIED;
    CHECK(lh_fs_walk(LH("/w"), note, &seen).code == LH_PERMISSION_DENIED);
}

static void a_file_is_read_by_lines_however_its_parts_are_cut(void) {
    // A line over several parts, an empty one, both line ends, a NUL, and a last line without its end.
    static char contents[600000];
    size_t len = 0;
    memset(contents, 'x', 300000);
    len = 300000;
    memcpy(contents + len, "\n\ntwo\r\na\0b\n\r\nlast", 17);
    len += 17;
    fake.file = contents;
    fake.file_len = len;
    lh_file file;
    lh_str line;
    OK(lh_fs_open(LH("/a"), &file));
    OK(lh_file_line(&file, &line));
    CHECK(line.len == 300000);
    static const char *const expected[] = { "", "two", "a", "", "last" };
    for (size_t i = 0; i < 5; i++) {
        OK(lh_file_line(&file, &line));
        check_str(lh_str_of(line.ptr), expected[i], strlen(expected[i]), __LINE__, "a line");
        CHECK(i != 2 || line.len == 3);
    }
    for (int i = 0; i < 2; i++) {
        OK(lh_file_line(&file, &line));
        CHECK(!lh_has(line));
    }
    char buffer[1000];
    size_t got, sum = 0;
    OK(lh_fs_open(LH("/a"), &file));
    do {
        OK(lh_file_read(&file, buffer, sizeof buffer, &got));
        CHECK(memcmp(buffer, contents + sum, got) == 0);
        sum += got;
    } while (got > 0);
    CHECK(sum == len);
    fake.file_len = 0;
    OK(lh_fs_open(LH("/a"), &file));
    OK(lh_file_line(&file, &line));
    CHECK(!lh_has(line));
    fake.fails = LH_LEASE_EXPIRED;
    CHECK(lh_fs_open(LH("/a"), &file).code == LH_LEASE_EXPIRED);
}

static void a_call_that_is_used_up_is_an_error(void) {
    lh_call one, two, copy, none = { 0, 0 };
    lh_json *value;
    lh_response response;
    size_t first;
    fake.answers[0] = "{\"n\":1}";
    OK(lh_tool_start(LH("one"), NULL, &one));
    lh_request request = lh_request_of(LH("GET"), LH("http://a/"));
    OK(lh_net_start(&request, &two));
    copy = one;
    IS(lh_call_id(one), "call_000001");
    CHECK(lh_net_finish(&one, &response).code == LH_INVALID_REQUEST); // begun by another interface, and still there
    lh_call both[] = { one, two };
    fake.first = 1;
    OK(lh_wait_any(both, 2, LH_FOREVER, &first));
    CHECK(first == 1);
    fake.first = -1;
    OK(lh_wait_any(both, 2, 20, &first));
    CHECK(first == LH_NO_INDEX);
    OK(lh_tool_finish(&one, &value));
    CHECK(one.handle == 0 && lh_json_count(value) == 1);
    CHECK(lh_tool_finish(&one, &value).code == LH_INVALID_REQUEST);
    CHECK(lh_tool_finish(&copy, &value).code == LH_INVALID_REQUEST);
    CHECK(lh_wait_any(both, 2, 0, &first).code == LH_INVALID_REQUEST);
    CHECK(!lh_has(lh_call_id(copy)));
    lh_call_drop(&copy);
    lh_call_drop(&none);
    lh_call_drop(&two);
    lh_call_drop(&two);
    CHECK(fake.under_way == 0);
    OK(lh_tool_start(LH("one"), NULL, &one)); // the handle is used again, the copy is not taken for it
    CHECK(one.handle == copy.handle && lh_tool_finish(&copy, &value).code == LH_INVALID_REQUEST);
    fake.fails = LH_TIMEOUT;
    CHECK(lh_tool_finish(&one, &value).code == LH_TIMEOUT);
    CHECK(lh_tool_finish(&one, &value).code == LH_INVALID_REQUEST && fake.under_way == 0);
    ASKED("tool.start one {}\nnet.start GET http://a/ redirects=10 body=\nwait 1 2\nwait 1 2 for 20\nends 1\n"
          "dropped: ends 2\ntool.start one {}\nends 1\n");
}

static void many_calls_are_finished_in_their_order(void) {
    lh_call calls[50];
    lh_task task = lh_task_of(LH("echo"));
    lh_request request = lh_request_of(LH("GET"), LH("http://a/"));
    fake.answers[0] = "\"done\"";
    for (size_t i = 0; i < 50; i++) {
        switch (i % 4) {
            case 0: OK(lh_tool_start(LH("t"), NULL, &calls[i])); break;
            case 1: OK(lh_model_start(LH("m"), lh_json_object(), &calls[i])); break;
            case 2: OK(lh_delegate_start(&task, &calls[i])); break;
            default: OK(lh_net_start(&request, &calls[i]));
        }
    }
    lh_call_drop(&calls[7]);
    lh_outcome *outcomes = lh_finish_all(calls, 50);
    for (size_t i = 0; i < 50; i++) {
        if (i == 7) {
            CHECK(outcomes[i].error.code == LH_INVALID_REQUEST && outcomes[i].answer == NULL);
        } else if (i % 4 == 3) {
            CHECK(outcomes[i].error.code == LH_OK && outcomes[i].response.status == 404 && outcomes[i].answer == NULL);
        } else {
            IS(lh_json_text(outcomes[i].answer), "done");
        }
    }
    CHECK(fake.under_way == 0);
}

static void requests_and_responses(void) {
    lh_response response;
    lh_json *value;
    lh_request request = lh_request_of(LH("POST"), LH("http://a/"));
    OK(lh_request_json(&request, lh_json_push(lh_json_array(), lh_json_int(1))));
    lh_request other = request;
    lh_request_header(&request, LH("x"), LH("\xFF"));
    request.timeout_ms = 5;
    request.redirects = 0;
    fake.answers[0] = "{\"n\":1}";
    fake.answers[1] = "";
    OK(lh_net_send(&request, &response));
    OK(lh_net_send(&other, &response));
    ASKED("net.fetch POST http://a/ redirects=0 content-type:application/json x:\xFF timeout=5 body=[1]\n"
          "net.fetch POST http://a/ redirects=10 content-type:application/json body=[1]\n");
    IS(lh_response_header(&response, "content-TYPE"), "text/plain");
    CHECK(!lh_has(lh_response_header(&response, "content-typ")));
    IS(lh_response_ok(&response).message, "http://there/ answered 404");
    CHECK(lh_response_json(&response, &value).code == LH_INVALID_REQUEST && response.body.len == 0);
    response.status = 204;
    OK(lh_response_ok(&response));

    lh_call stream;
    lh_str part;
    fake.parts[0] = "one";
    fake.parts[1] = "";
    OK(lh_net_open(&request, &stream, &response));
    OK(lh_net_next(stream, &part));
    IS(part, "one");
    OK(lh_net_next(stream, &part));
    CHECK(lh_has(part) && part.len == 0);
    OK(lh_net_next(stream, &part));
    CHECK(!lh_has(part));
    lh_call_drop(&stream);
    CHECK(lh_net_next(stream, &part).code == LH_INVALID_REQUEST);
    fake.fails = LH_INTERNAL_ERROR;
    CHECK(lh_net_open(&request, &stream, &response).code == LH_INTERNAL_ERROR && fake.under_way == 0);
}

static void tools_models_and_tasks(void) {
    lh_tools tools;
    lh_strs models;
    lh_json *value;
    lh_str text;
    lh_call call;
    OK(lh_tool_list(&tools));
    CHECK(tools.len == 2 && tools.ptr[0].output_schema == NULL && tools.ptr[1].output_schema != NULL);
    IS(lh_json_text(lh_json_get(tools.ptr[0].input_schema, "type")), "object");
    OK(lh_model_list(&models));
    IS(models.ptr[1], "tier-fast/large");
    fake.answers[0] = "{\"choices\":[{\"message\":{\"content\":\"a lease\"}}]}";
    fake.answers[1] = "{\"choices\":[]}";
    fake.answers[2] = "not JSON";
    OK(lh_model_ask(LH("m"), LH("what?"), &text));
    IS(text, "a lease");
    IS(lh_model_ask(LH("m"), LH("what?"), &text).message, "the model's answer has no text");
    IS(lh_tool_call(LH("one"), NULL, &value).message, "answer: expected a value at line 1 column 1");
    fake.parts[0] = "{\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}";
    fake.parts[1] = "{\"choices\":[{\"delta\":{\"content\":\"say \"}}]}";
    fake.parts[2] = "{\"choices\":[]}";
    fake.parts[3] = "{\"choices\":[{\"delta\":{\"content\":\"it\"}}]}";
    OK(lh_model_stream(LH("m"), lh_json_object(), &call));
    OK(lh_model_next_text(call, &text));
    IS(text, "say ");
    OK(lh_model_next_text(call, &text));
    IS(text, "it");
    OK(lh_model_next_text(call, &text));
    CHECK(!lh_has(text));
    lh_call_drop(&call);

    lh_task task = lh_task_of(LH("echo@1.0.0"));
    task.input = lh_json_bool(true);
    lh_task_grant(&task, LH("fs.read"), LH("/a"));
    lh_task_budget(&task, LH("USD:0.10"));
    lh_task_grant(&task, LH("fs.read"), LH("/b"));
    task.expires_at = LH("2026-05-13T19:30:00.000Z");
    task.max_runtime_sec = 9;
    lh_task plain = lh_task_of(LH("echo"));
    fake.asked[0] = '\0';
    fake.answer = 0;
    OK(lh_delegate_run(&task, &value));
    OK(lh_delegate_watch(&plain, &call));
    fake.parts[0] = "{\"kind\":\"log\"}";
    OK(lh_delegate_next_event(call, &value));
    IS(lh_json_text(lh_json_get(value, "kind")), "log");
    OK(lh_delegate_next_event(call, &value));
    CHECK(value == NULL);
    OK(lh_delegate_job_id(call, &text));
    fake.fails = LH_PERMISSION_DENIED;
    CHECK(lh_delegate_finish(&call, &value).code == LH_PERMISSION_DENIED);
    ASKED("delegate.run echo@1.0.0 true cost.budget=USD:0.10 fs.read=/a,/b expires=2026-05-13T19:30:00.000Z max=9\n"
          "delegate.start-stream echo null\nends 1\n");
}

static void small_writes_become_few_calls_and_none_is_lost(void) {
    lh_writer writer = lh_text_writer();
    lh_str ten = LH("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
    OK(lh_write(&writer, LH("x"))); // so that the writer is full in the middle of a character
    for (int i = 0; i < 7000; i++) {
        OK(lh_write(&writer, lh_str_n(ten.ptr, 5)));
        OK(lh_write(&writer, lh_str_n(ten.ptr + 5, 5)));
    }
    OK(lh_writer_flush(&writer));
    OK(lh_writer_flush(&writer));
    OK(lh_writef(&writer, "the %s", "end"));
    OK(lh_writer_finish(&writer));
    ASKED("text 65535\ntext 4466\ntext 7\nfinish\n");
    fake.asked[0] = '\0';
    writer = lh_bytes_writer();
    OK(lh_write(&writer, LH("\xFF")));
    OK(lh_writer_finish(&writer));
    OK(lh_output_textf("%d", 7));
    OK(lh_output_bytes(LH("\0")));
    ASKED("bytes 1\nfinish\ntext 1\nbytes 1\n");
    writer = lh_text_writer();
    OK(lh_write(&writer, LH("cut\xC3")));
    CHECK(lh_writer_finish(&writer).code == LH_INVALID_REQUEST); // nothing is lost in silence
    fake.fails = LH_TOO_LARGE;
    OK(lh_write(&writer, LH("x")));
    CHECK(lh_writer_flush(&writer).code == LH_TOO_LARGE);
    OK(lh_writer_flush(&writer));
}

static void the_job_is_known(void) {
    lh_strs patterns;
    IS(lh_job_id(), "job_01");
    IS(lh_job_agent(), "test@1.0.0");
    IS(lh_job_trace_id(), "");
    fake.answers[0] = "2026-05-13T19:30:00.000Z";
    IS(lh_job_expires_at(), "2026-05-13T19:30:00.000Z");
    CHECK(lh_job_budget().len == 2);
    IS(lh_job_left(LH("EUR")), "-0.10");
    CHECK(!lh_has(lh_job_left(LH("GBP"))));
    OK(lh_job_grants(LH("fs.read"), &patterns));
    CHECK(patterns.len == 0);
    OK(lh_job_sleep(1));
    OK(lh_job_check_cancelled());
    fake.cancelled = true;
    CHECK(lh_job_sleep(1).code == LH_CANCELLED && lh_job_check_cancelled().code == LH_CANCELLED);
    OK(lh_job_sleep(0));
}

static void decimals_are_exact(void) {
    static const struct {
        const char *a, *b;
        int order;
    } table[] = {
        { "0.75", "0.76", -1 }, { "0.7434", "0.76", -1 }, { "0.76", "0.760", 0 },  { "10", "9", 1 },
        { "10.0", "010", 0 },   { "-1", "0", -1 },        { "-2", "-1", -1 },      { "-0.5", "-0.49", -1 },
        { "-0", "0.00", 0 },    { "0.1", "0.09", 1 },     { "1.5", "1", 1 },       { "1", "1.5", -1 },
        { ".5", "0.5", 0 },     { "5.", "5", 0 },         { "x", "0", 0 },         { "", "-1", 1 },
        { "1.2.3", "0", 0 },    { "0.0000000000000000000000000001", "0", 1 },
        { "9999999999999999999999999999", "9999999999999999999999999998", 1 },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        lh_str a = lh_str_of(table[i].a), b = lh_str_of(table[i].b);
        check(lh_decimal_compare(a, b) == table[i].order, __LINE__, table[i].a);
        check(lh_decimal_compare(b, a) == -table[i].order, __LINE__, table[i].b);
    }
    static const struct {
        double value;
        const char *text;
    } written[] = {
        { 0, "0" },         { 0.1, "0.1" },   { -3, "-3" },      { 2.5, "2.5" },           { 100, "100" },
        { 1e-9, "0.000000001" }, { 1e21, "1000000000000000000000" }, { 12345.678, "12345.678" }, { 0.25, "0.25" },
        { 1.0 / 3, "0.3333333333333333" },
    };
    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
        IS(lh_decimal(written[i].value), written[i].text);
    }
    CHECK(!lh_has(lh_decimal(1e308 * 10)));
}

static void instants_become_millis(void) {
    static const struct {
        const char *text;
        bool is;
        int64_t millis;
    } table[] = {
        { "1970-01-01T00:00:00.000Z", true, 0 },
        { "1969-12-31T23:59:59.999Z", true, -1 },
        { "2000-02-29T12:00:00.000Z", true, 951825600000 },
        { "2000-03-01T00:00:00.000Z", true, 951868800000 },
        { "2026-05-13T19:30:00.020Z", true, 1778700600020 },
        { "9999-12-31T23:59:59.999Z", true, 253402300799999 },
        { "0000-01-01T00:00:00.000Z", true, -62167219200000 },
        { "2026-13-13T19:30:00.000Z", false, 0 },
        { "2026-05-13T19:30:00Z", false, 0 },
        { "2026-05-13 19:30:00.000Z", false, 0 },
        { "2026-05-13T19:3x:00.000Z", false, 0 },
        { "", false, 0 },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        int64_t millis = 0;
        bool right = lh_timestamp_millis(lh_str_of(table[i].text), &millis) == table[i].is && millis == table[i].millis;
        check(right, __LINE__, table[i].text);
    }
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
#define TEST(name) { #name, name }
        TEST(what_is_json_is_read_and_written),
        TEST(what_is_no_json_is_refused_with_the_place),
        TEST(every_beginning_of_a_text_is_read_without_a_step_beyond),
        TEST(a_text_is_at_most_128_levels_deep),
        TEST(values_are_found_and_what_is_missing_is_null),
        TEST(a_number_is_given_only_if_it_fits),
        TEST(values_are_put_together),
        TEST(utf8_is_what_unicode_says),
        TEST(texts_grow_and_scopes_give_back),
        TEST(errors_have_names),
        TEST(an_input_is_read_and_a_wrong_one_gets_the_reason),
        TEST(a_result_is_handed_over),
        TEST(what_cannot_happen_ends_the_job_with_a_word),
        TEST(memory_may_run_out_anywhere),
        TEST(events_say_what_was_meant),
        TEST(what_is_not_utf8_never_reaches_the_host),
        TEST(files_are_read_listed_and_walked),
        TEST(a_file_is_read_by_lines_however_its_parts_are_cut),
        TEST(a_call_that_is_used_up_is_an_error),
        TEST(many_calls_are_finished_in_their_order),
        TEST(requests_and_responses),
        TEST(tools_models_and_tasks),
        TEST(small_writes_become_few_calls_and_none_is_lost),
        TEST(the_job_is_known),
        TEST(decimals_are_exact),
        TEST(instants_become_millis),
    };
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    size_t count = sizeof tests / sizeof tests[0];
    for (size_t i = 0; i < count; i++) {
        int before = failures;
        fake_reset();
        // A test leaves nothing behind, as a job does not.
        lh_scope scope = lh_enter();
        tests[i].run();
        lh_leave(scope);
        printf("%s %s\n", failures == before ? "ok  " : "FAIL", tests[i].name);
    }
    printf("%zu tests, %d checks, %d failed\n", count, checks, failures);
    return failures == 0 ? 0 : 1;
}
