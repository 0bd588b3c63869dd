/* Greets: the smallest agent that has an input, an event and a result. */
#include <leasehold.h>

static lh_error run(const lh_json *input, lh_json **result) {
    lh_str name = LH("world");
    LH_TRY(lh_input_str_opt(input, "name", &name));
    if (name.len == 0) {
        return lh_fail(LH_INVALID_REQUEST, "input: name: must not be empty");
    }
    lh_text greeting = lh_text_new();
    lh_text_add(&greeting, LH("Hello, "));
    lh_text_add(&greeting, name);
    lh_text_add(&greeting, LH("!"));
    lh_info(LH_FMT, LH_ARG(lh_text_str(&greeting)));
    *result = lh_json_set(lh_json_object(), "greeting", lh_json_str(lh_text_str(&greeting)));
    return lh_ok();
}

LH_AGENT(run)
