/* From the agent's function to the export that the host calls. */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

/*
 * What the bindings want to see linked: an object that says which world this is. `leasehold build` writes that into the
 * component itself.
 */
extern void __component_type_object_force_link_agent(void);
void __component_type_object_force_link_agent(void) {}

/* Copies what is handed to the host: its bindings free it. */
static agent_string_t hand_over(lh_str str) {
    agent_string_t string = { NULL, str.len };
    if (str.len > 0) {
        string.ptr = malloc(str.len);
        if (string.ptr == NULL) {
            lhi_out_of_memory(str.len);
        }
        memcpy(string.ptr, str.ptr, str.len);
    }
    return string;
}

bool exports_agent_run(agent_json_t *input, agent_json_t *ret, agent_error_t *err) {
    // By the line, so that what is printed has its place among the events.
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    lh_str result = LH("null");
    lh_error error = lh_agent_main(lhi_take(*input), &result);
    fflush(stdout);
    if (error.code == LH_OK && !lh_is_utf8(result)) {
        error = lh_fail(LH_INTERNAL_ERROR, "result: is not UTF-8");
    }
    if (error.code == LH_OK) {
        *ret = hand_over(result);
        return true;
    }
    bool known = (size_t)error.code <= LH_UNKNOWN_OUTCOME;
    err->code = known ? (uint8_t)(error.code - 1) : LEASEHOLD_AGENT_TYPES_ERROR_CODE_INTERNAL_ERROR;
    err->message = hand_over(lhi_lossy(error.message));
    return false;
}

/* Adds to what is wrong where it is wrong. */
static lh_error at(const char *where, lh_code code, lh_error error) {
    return lh_fail(code, "%s: " LH_FMT, where, LH_ARG(error.message));
}

lh_error lh_answer(lh_str input, lh_str *result, lh_run run) {
    lh_json *parsed = NULL, *value = NULL;
    lh_error error = lh_json_parse(input, &parsed);
    if (error.code != LH_OK) {
        return at("input", error.code, error);
    }
    LH_TRY(run(parsed, &value));
    error = lh_json_write(value, result);
    return error.code == LH_OK ? error : at("result", LH_INTERNAL_ERROR, error);
}

/* Finds a field of the input. `*field` is NULL if there is none and it may be missing. */
static lh_error find(const lh_json *input, const char *name, bool optional, const lh_json **field) {
    lh_json_kind kind = lh_json_kind_of(input);
    *field = NULL;
    if (kind != LH_JSON_OBJECT && !(optional && kind == LH_JSON_NULL)) {
        return lh_fail(LH_INVALID_REQUEST, "input: expected an object, got %s", lh_json_kind_name(kind));
    }
    const lh_json *found = lh_json_get(input, name);
    if (optional) {
        *field = lh_json_kind_of(found) == LH_JSON_NULL ? NULL : found;
        return lh_ok();
    }
    if (found == NULL) {
        return lh_fail(LH_INVALID_REQUEST, "input: %s: is missing", name);
    }
    *field = found;
    return lh_ok();
}

static lh_error unexpected(const char *name, const char *expected, const lh_json *field) {
    lh_json_kind kind = lh_json_kind_of(field);
    if (kind == LH_JSON_NUMBER) {
        lh_str number = lh_json_number_text(field);
        return lh_fail(LH_INVALID_REQUEST, "input: %s: expected %s, got the number " LH_FMT, name, expected,
                       LH_ARG(number));
    }
    return lh_fail(LH_INVALID_REQUEST, "input: %s: expected %s, got %s", name, expected, lh_json_kind_name(kind));
}

static bool to_str(const lh_json *value, lh_str *out) {
    if (lh_json_kind_of(value) != LH_JSON_STRING) {
        return false;
    }
    *out = lh_json_text(value);
    return true;
}

/* The two functions of a type: one for what has to be there, one for what need not. */
#define INPUT(suffix, type, read, expected)                                             \
    lh_error lh_input_##suffix(const lh_json *input, const char *name, type *value) {     \
        const lh_json *field;                                                           \
        LH_TRY(find(input, name, false, &field));                                       \
        return read(field, value) ? lh_ok() : unexpected(name, expected, field);        \
    }                                                                                   \
    lh_error lh_input_##suffix##_opt(const lh_json *input, const char *name, type *value) { \
        const lh_json *field;                                                           \
        LH_TRY(find(input, name, true, &field));                                        \
        return field == NULL || read(field, value) ? lh_ok() : unexpected(name, expected, field); \
    }

INPUT(str, lh_str, to_str, "a string")
INPUT(bool, bool, lh_json_to_bool, "true or false")
INPUT(int, int64_t, lh_json_to_int, "an integer of 64 bits")
INPUT(uint, uint64_t, lh_json_to_uint, "an integer of 64 bits that is not negative")
INPUT(double, double, lh_json_to_double, "a number")
