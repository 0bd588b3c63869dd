/* Tools. */
#include <stdalign.h>

#include "internal.h"

lh_error lh_tool_list(lh_tools *tools) {
    leasehold_agent_tool_list_description_t list;
    agent_error_t error;
    if (!leasehold_agent_tool_list(&list, &error)) {
        return lhi_error(error);
    }
    tools->ptr = lhi_alloc(list.len * sizeof *tools->ptr, alignof(lh_tool));
    tools->len = list.len;
    for (size_t i = 0; i < list.len; i++) {
        lh_tool *tool = &tools->ptr[i];
        tool->name = lhi_take(list.ptr[i].name);
        tool->description = lhi_take(list.ptr[i].description);
        tool->output_schema = NULL;
        LH_TRY(lhi_answer(list.ptr[i].input_schema, &tool->input_schema));
        if (list.ptr[i].output_schema.is_some) {
            LH_TRY(lhi_answer(list.ptr[i].output_schema.val, &tool->output_schema));
        }
    }
    lhi_free_array(list.ptr, list.len);
    return lh_ok();
}

/* Shows a call to the host, after a look at it. */
static lh_error show(lh_str name, const lh_json *arguments, agent_string_t *shown, agent_string_t *json) {
    lh_str text = LH("{}");
    LH_TRY(lhi_check(name, "tool"));
    if (arguments != NULL) {
        LH_TRY(lh_json_write(arguments, &text));
    }
    *shown = lhi_show(name);
    *json = lhi_show(text);
    return lh_ok();
}

lh_error lh_tool_call(lh_str name, const lh_json *arguments, lh_json **answer) {
    agent_string_t shown, json, given;
    agent_error_t error;
    LH_TRY(show(name, arguments, &shown, &json));
    return leasehold_agent_tool_call(&shown, &json, &given, &error) ? lhi_answer(given, answer) : lhi_error(error);
}

lh_error lh_tool_start(lh_str name, const lh_json *arguments, lh_call *call) {
    agent_string_t shown, json;
    leasehold_agent_tool_own_pending_call_t own;
    agent_error_t error;
    LH_TRY(show(name, arguments, &shown, &json));
    if (!leasehold_agent_tool_start(&shown, &json, &own, &error)) {
        return lhi_error(error);
    }
    *call = lhi_begun(own, LHI_TOOL);
    return lh_ok();
}

lh_error lh_tool_finish(lh_call *call, lh_json **answer) {
    leasehold_agent_tool_own_pending_call_t own;
    agent_string_t given;
    agent_error_t error;
    LH_TRY(lhi_use_up(call, LHI_TOOL, &own));
    return leasehold_agent_tool_finish(own, &given, &error) ? lhi_answer(given, answer) : lhi_error(error);
}
