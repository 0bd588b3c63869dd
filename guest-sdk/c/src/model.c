/* Models. */
#include "internal.h"

lh_error lh_model_list(lh_strs *models) {
    agent_list_string_t list;
    agent_error_t error;
    if (!leasehold_agent_model_list(&list, &error)) {
        return lhi_error(error);
    }
    *models = lhi_take_strs(list);
    return lh_ok();
}

lh_error lh_model_ask(lh_str model, lh_str question, lh_str *answer) {
    lh_json *message = lh_json_object();
    lh_json_set(message, "role", lh_json_str(LH("user")));
    lh_json_set(message, "content", lh_json_str(question));
    lh_json *request = lh_json_set(lh_json_object(), "messages", lh_json_push(lh_json_array(), message));
    lh_json *completion;
    LH_TRY(lh_model_complete(model, request, &completion));
    *answer = lh_model_text(completion);
    return lh_has(*answer) ? lh_ok() : lh_fail(LH_INTERNAL_ERROR, "the model's answer has no text");
}

/* Shows a request to the host, after a look at it. */
static lh_error show(lh_str model, const lh_json *request, agent_string_t *shown, agent_string_t *json) {
    lh_str text;
    LH_TRY(lhi_check(model, "model"));
    LH_TRY(lh_json_write(request, &text));
    *shown = lhi_show(model);
    *json = lhi_show(text);
    return lh_ok();
}

lh_error lh_model_complete(lh_str model, const lh_json *request, lh_json **answer) {
    agent_string_t shown, json, given;
    agent_error_t error;
    LH_TRY(show(model, request, &shown, &json));
    bool answered = leasehold_agent_model_complete(&shown, &json, &given, &error);
    return answered ? lhi_answer(given, answer) : lhi_error(error);
}

typedef bool (*begin)(agent_string_t *, agent_string_t *, leasehold_agent_model_own_pending_call_t *, agent_error_t *);

static lh_error begin_by(begin begin, lh_str model, const lh_json *request, lh_call *call) {
    agent_string_t shown, json;
    leasehold_agent_model_own_pending_call_t own;
    agent_error_t error;
    LH_TRY(show(model, request, &shown, &json));
    if (!begin(&shown, &json, &own, &error)) {
        return lhi_error(error);
    }
    *call = lhi_begun(own, LHI_MODEL);
    return lh_ok();
}

lh_error lh_model_start(lh_str model, const lh_json *request, lh_call *call) {
    return begin_by(leasehold_agent_model_start, model, request, call);
}

lh_error lh_model_stream(lh_str model, const lh_json *request, lh_call *call) {
    return begin_by(leasehold_agent_model_start_stream, model, request, call);
}

lh_error lh_model_finish(lh_call *call, lh_json **answer) {
    leasehold_agent_model_own_pending_call_t own;
    agent_string_t given;
    agent_error_t error;
    LH_TRY(lhi_use_up(call, LHI_MODEL, &own));
    return leasehold_agent_model_finish(own, &given, &error) ? lhi_answer(given, answer) : lhi_error(error);
}

lh_error lh_model_next(lh_call call, lh_json **chunk) {
    leasehold_agent_model_borrow_pending_call_t borrowed;
    leasehold_agent_model_option_json_t given;
    agent_error_t error;
    LH_TRY(lhi_borrow(call, LHI_MODEL, &borrowed));
    if (!leasehold_agent_model_next(borrowed, &given, &error)) {
        return lhi_error(error);
    }
    *chunk = NULL;
    return given.is_some ? lhi_answer(given.val, chunk) : lh_ok();
}

lh_error lh_model_next_text(lh_call call, lh_str *words) {
    for (;;) {
        lh_json *chunk;
        LH_TRY(lh_model_next(call, &chunk));
        *words = lh_json_text(lh_json_find(chunk, "/choices/0/delta/content"));
        if (chunk == NULL || words->len > 0) {
            return lh_ok();
        }
    }
}

lh_str lh_model_text(const lh_json *answer) {
    return lh_json_text(lh_json_find(answer, "/choices/0/message/content"));
}
