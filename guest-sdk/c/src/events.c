/* Events: what watchers of the job see. */
#include "internal.h"

static void log_at(leasehold_agent_events_level_t level, const char *format, va_list arguments) {
    lh_scope scope = lh_enter();
    agent_string_t message = lhi_show(lhi_lossy(lhi_format(format, arguments)));
    leasehold_agent_events_log(level, &message);
    lh_leave(scope);
}

#define LOG(name, level)                                             \
    void name(const char *format, ...) {                             \
        va_list arguments;                                           \
        va_start(arguments, format);                                 \
        log_at(LEASEHOLD_AGENT_EVENTS_LEVEL_##level, format, arguments); \
        va_end(arguments);                                           \
    }

LOG(lh_debug, DEBUG)
LOG(lh_info, INFO)
LOG(lh_warn, WARN)
LOG(lh_log_error, ERROR)

void lh_thought(const char *format, ...) {
    lh_scope scope = lh_enter();
    va_list arguments;
    va_start(arguments, format);
    agent_string_t text = lhi_show(lhi_lossy(lhi_format(format, arguments)));
    va_end(arguments);
    leasehold_agent_events_thought(&text);
    lh_leave(scope);
}

lh_error lh_status(lh_str phase, lh_str message) {
    LH_TRY(lhi_check(phase, "phase"));
    LH_TRY(lhi_check(message, "message"));
    agent_string_t name = lhi_show(phase), text = lhi_show(message);
    agent_error_t error;
    return leasehold_agent_events_status(&name, lh_has(message) ? &text : NULL, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_progress(uint64_t current, uint64_t total, lh_str units, lh_str message) {
    LH_TRY(lhi_check(units, "units"));
    LH_TRY(lhi_check(message, "message"));
    agent_string_t of = lhi_show(units), text = lhi_show(message);
    agent_error_t error;
    bool told = leasehold_agent_events_progress(current, total == LH_UNKNOWN ? NULL : &total,
                                                lh_has(units) ? &of : NULL, lh_has(message) ? &text : NULL, &error);
    return told ? lh_ok() : lhi_error(error);
}

lh_error lh_artifact(lh_str uri, lh_str content_type, uint64_t size, lh_str sha256) {
    LH_TRY(lhi_check(uri, "uri"));
    LH_TRY(lhi_check(content_type, "content type"));
    LH_TRY(lhi_check(sha256, "sha256"));
    leasehold_agent_events_reference_t artifact = {
        .uri = lhi_show(uri),
        .content_type = lhi_show(content_type),
        .byte_size = { size != LH_UNKNOWN, size },
        .sha256 = { lh_has(sha256), lhi_show(sha256) },
    };
    agent_error_t error;
    return leasehold_agent_events_artifact_ref(&artifact, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_vendor(lh_str kind, const lh_json *body) {
    lh_str text;
    LH_TRY(lhi_check(kind, "kind"));
    LH_TRY(lh_json_write(body, &text));
    agent_string_t name = lhi_show(kind), json = lhi_show(text);
    agent_error_t error;
    return leasehold_agent_events_vendor(&name, &json, &error) ? lh_ok() : lhi_error(error);
}
