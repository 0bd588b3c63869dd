#include "fake.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../generated/agent.h"

struct fake fake;

void fake_reset(void) {
    memset(&fake, 0, sizeof fake);
    fake.blocks = SIZE_MAX;
}

static bool has_block(void) {
    if (fake.blocks != SIZE_MAX && fake.blocks-- == 0) {
        fake.blocks = 0;
        return false;
    }
    return true;
}

void *fake_malloc(size_t size);
void *fake_realloc(void *block, size_t size);
void *fake_malloc(size_t size) { return has_block() ? malloc(size) : NULL; }
void *fake_realloc(void *block, size_t size) { return has_block() ? realloc(block, size) : NULL; }

/* ---- What is written down ---- */

__attribute__((__format__(__printf__, 1, 2))) static void asked(const char *format, ...) {
    size_t len = strlen(fake.asked);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fake.asked + len, sizeof fake.asked - len, format, arguments);
    va_end(arguments);
}

#define S "%.*s"
#define A(string) (int)(string)->len, (const char *)(string)->ptr

static void asked_option(const char *name, const agent_string_t *option) {
    if (option != NULL) {
        asked(" %s=" S, name, A(option));
    }
}

/* ---- What is answered: as the host does, in blocks of malloc with a NUL behind them ---- */

static agent_string_t give_n(const char *text, size_t len) {
    agent_string_t string = { (uint8_t *)1, len };
    if (len > 0) {
        string.ptr = malloc(len + 1);
        memcpy(string.ptr, text, len);
        string.ptr[len] = '\0';
    }
    return string;
}

static agent_string_t give(const char *text) { return give_n(text, strlen(text)); }

static const char *next_answer(void) {
    const char *answer = fake.answers[fake.answer];
    if (fake.answer + 1 < 8 && fake.answers[fake.answer + 1] != NULL) {
        fake.answer++;
    }
    return answer == NULL ? "null" : answer;
}

static bool answers(agent_error_t *error) {
    if (fake.fails == 0) {
        return true;
    }
    error->code = (uint8_t)(fake.fails - 1);
    error->message = give("as the test wanted");
    return false;
}

static bool answers_text(agent_string_t *ret, agent_error_t *error) {
    if (!answers(error)) {
        return false;
    }
    *ret = give(next_answer());
    return true;
}

static bool begins(leasehold_agent_calls_own_pending_call_t *ret, agent_error_t *error) {
    if (!answers(error)) {
        return false;
    }
    // As the host does, handles that are free are used again.
    ret->__handle = ++fake.under_way;
    return true;
}

static void ends(leasehold_agent_calls_own_pending_call_t call) {
    asked("ends %d\n", call.__handle);
    fake.under_way--;
}

/* ---- fs ---- */

bool leasehold_agent_fs_read(agent_string_t *path, agent_list_u8_t *ret, agent_error_t *err) {
    asked("fs.read " S "\n", A(path));
    agent_string_t text;
    if (!answers_text(&text, err)) {
        return false;
    }
    ret->ptr = text.ptr;
    ret->len = text.len;
    return true;
}

bool leasehold_agent_fs_read_range(agent_string_t *path, uint64_t offset, uint64_t length, agent_list_u8_t *ret,
                                   agent_error_t *err) {
    (void)path;
    if (!answers(err)) {
        return false;
    }
    size_t from = offset < fake.file_len ? (size_t)offset : fake.file_len;
    size_t len = fake.file_len - from < length ? fake.file_len - from : (size_t)length;
    agent_string_t bytes = give_n(fake.file + from, len);
    ret->ptr = bytes.ptr;
    ret->len = bytes.len;
    return true;
}

bool leasehold_agent_fs_list(agent_string_t *path, leasehold_agent_fs_list_entry_t *ret, agent_error_t *err) {
    asked("fs.list " S "\n", A(path));
    if (!answers(err)) {
        return false;
    }
    bool deeper = fake.dirs-- > 0;
    ret->len = deeper ? 2 : 0;
    ret->ptr = deeper ? malloc(2 * sizeof *ret->ptr) : (void *)8;
    if (deeper) {
        leasehold_agent_fs_entry_t entries[] = { { give("a"), LEASEHOLD_AGENT_FS_KIND_DIRECTORY, 0 },
                                                 { give("b.txt"), LEASEHOLD_AGENT_FS_KIND_FILE, 7 } };
        memcpy(ret->ptr, entries, sizeof entries);
    }
    return true;
}

bool leasehold_agent_fs_stat(agent_string_t *path, leasehold_agent_fs_metadata_t *ret, agent_error_t *err) {
    asked("fs.stat " S "\n", A(path));
    if (!answers(err)) {
        return false;
    }
    ret->kind = LEASEHOLD_AGENT_FS_KIND_FILE;
    ret->size = fake.file_len;
    ret->modified = give("2026-05-13T19:30:00.000Z");
    return true;
}

bool leasehold_agent_fs_write(agent_string_t *path, agent_list_u8_t *contents, agent_error_t *err) {
    asked("fs.write " S " %zu\n", A(path), contents->len);
    return answers(err);
}

bool leasehold_agent_fs_append(agent_string_t *path, agent_list_u8_t *contents, agent_error_t *err) {
    asked("fs.append " S " %zu\n", A(path), contents->len);
    return answers(err);
}

bool leasehold_agent_fs_create_dir(agent_string_t *path, agent_error_t *err) {
    asked("fs.create-dir " S "\n", A(path));
    return answers(err);
}

bool leasehold_agent_fs_remove(agent_string_t *path, agent_error_t *err) {
    asked("fs.remove " S "\n", A(path));
    return answers(err);
}

/* ---- calls ---- */

void leasehold_agent_calls_method_pending_call_call_id(leasehold_agent_calls_borrow_pending_call_t self,
                                                       agent_string_t *ret) {
    char id[32];
    snprintf(id, sizeof id, "call_%06d", self.__handle);
    *ret = give(id);
}

bool leasehold_agent_calls_wait_any(leasehold_agent_calls_list_borrow_pending_call_t *calls, uint64_t *timeout_ms,
                                    agent_option_u32_t *ret, agent_error_t *err) {
    asked("wait");
    for (size_t i = 0; i < calls->len; i++) {
        asked(" %d", calls->ptr[i].__handle);
    }
    asked(timeout_ms == NULL ? "\n" : " for %d\n", timeout_ms == NULL ? 0 : (int)*timeout_ms);
    ret->is_some = fake.first >= 0;
    ret->val = (uint32_t)fake.first;
    return answers(err);
}

void leasehold_agent_calls_pending_call_drop_own(leasehold_agent_calls_own_pending_call_t handle) {
    asked("dropped: ");
    ends(handle);
}

leasehold_agent_calls_borrow_pending_call_t leasehold_agent_calls_borrow_pending_call(
    leasehold_agent_calls_own_pending_call_t handle) {
    leasehold_agent_calls_borrow_pending_call_t borrowed = { handle.__handle };
    return borrowed;
}

/* ---- net ---- */

static void asked_request(const char *what, leasehold_agent_net_request_t *request) {
    asked("%s " S " " S " redirects=%u", what, A(&request->method), A(&request->url), request->redirects);
    for (size_t i = 0; i < request->headers.len; i++) {
        asked(" " S ":" S, A(&request->headers.ptr[i].f0), A(&request->headers.ptr[i].f1));
    }
    if (request->timeout_ms.is_some) {
        asked(" timeout=%d", (int)request->timeout_ms.val);
    }
    asked(" body=" S "\n", A(&request->body));
}

static bool responds(leasehold_agent_net_response_t *ret, agent_error_t *err) {
    agent_string_t body;
    if (!answers_text(&body, err)) {
        return false;
    }
    ret->status = 404;
    ret->url = give("http://there/");
    ret->headers.len = 1;
    ret->headers.ptr = malloc(sizeof *ret->headers.ptr);
    agent_string_t value = give("text/plain");
    leasehold_agent_net_header_t header = { give("Content-Type"), { value.ptr, value.len } };
    ret->headers.ptr[0] = header;
    ret->body.ptr = body.ptr;
    ret->body.len = body.len;
    return true;
}

bool leasehold_agent_net_fetch(leasehold_agent_net_request_t *request, leasehold_agent_net_response_t *ret,
                               agent_error_t *err) {
    asked_request("net.fetch", request);
    return responds(ret, err);
}

bool leasehold_agent_net_start(leasehold_agent_net_request_t *request, leasehold_agent_net_own_pending_call_t *ret,
                               agent_error_t *err) {
    asked_request("net.start", request);
    return begins(ret, err);
}

bool leasehold_agent_net_finish(leasehold_agent_net_own_pending_call_t call, leasehold_agent_net_response_t *ret,
                                agent_error_t *err) {
    ends(call);
    return responds(ret, err);
}

bool leasehold_agent_net_start_stream(leasehold_agent_net_request_t *request,
                                      leasehold_agent_net_own_pending_call_t *ret, agent_error_t *err) {
    asked_request("net.start-stream", request);
    ret->__handle = ++fake.under_way;
    (void)err;
    return true;
}

bool leasehold_agent_net_head(leasehold_agent_net_borrow_pending_call_t call, leasehold_agent_net_response_t *ret,
                              agent_error_t *err) {
    (void)call;
    return responds(ret, err);
}

static bool next_part(bool *is_some, agent_string_t *val, agent_error_t *err) {
    if (!answers(err)) {
        return false;
    }
    *is_some = fake.parts[0] != NULL;
    if (*is_some) {
        *val = give(fake.parts[0]);
        memmove(&fake.parts[0], &fake.parts[1], 7 * sizeof fake.parts[0]);
    }
    return true;
}

bool leasehold_agent_net_next(leasehold_agent_net_borrow_pending_call_t call, agent_option_list_u8_t *ret,
                              agent_error_t *err) {
    (void)call;
    agent_string_t part = { NULL, 0 };
    bool answered = next_part(&ret->is_some, &part, err);
    ret->val.ptr = part.ptr;
    ret->val.len = part.len;
    return answered;
}

/* ---- tool, model ---- */

bool leasehold_agent_tool_list(leasehold_agent_tool_list_description_t *ret, agent_error_t *err) {
    if (!answers(err)) {
        return false;
    }
    ret->len = 2;
    ret->ptr = calloc(2, sizeof *ret->ptr);
    for (size_t i = 0; i < 2; i++) {
        ret->ptr[i].name = give(i == 0 ? "one" : "two");
        ret->ptr[i].description = give("");
        ret->ptr[i].input_schema = give("{\"type\":\"object\"}");
        ret->ptr[i].output_schema.is_some = i == 1;
        if (i == 1) {
            ret->ptr[i].output_schema.val = give("true");
        }
    }
    return true;
}

#define ASKS(function, what)                                                                                \
    bool function(agent_string_t *name, agent_string_t *json, agent_string_t *ret, agent_error_t *err) {    \
        asked(what " " S " " S "\n", A(name), A(json));                                                     \
        return answers_text(ret, err);                                                                      \
    }
#define STARTS(function, what)                                                                              \
    bool function(agent_string_t *name, agent_string_t *json, leasehold_agent_calls_own_pending_call_t *ret, \
                  agent_error_t *err) {                                                                     \
        asked(what " " S " " S "\n", A(name), A(json));                                                     \
        return begins(ret, err);                                                                            \
    }
#define FINISHES(function)                                                                                  \
    bool function(leasehold_agent_calls_own_pending_call_t call, agent_string_t *ret, agent_error_t *err) { \
        ends(call);                                                                                         \
        return answers_text(ret, err);                                                                      \
    }

ASKS(leasehold_agent_tool_call, "tool.call")
STARTS(leasehold_agent_tool_start, "tool.start")
FINISHES(leasehold_agent_tool_finish)
ASKS(leasehold_agent_model_complete, "model.complete")
STARTS(leasehold_agent_model_start, "model.start")
STARTS(leasehold_agent_model_start_stream, "model.start-stream")
FINISHES(leasehold_agent_model_finish)
FINISHES(leasehold_agent_delegate_finish)

bool leasehold_agent_model_list(agent_list_string_t *ret, agent_error_t *err) {
    if (!answers(err)) {
        return false;
    }
    ret->len = 2;
    ret->ptr = malloc(2 * sizeof *ret->ptr);
    ret->ptr[0] = give("tier-fast/small");
    ret->ptr[1] = give("tier-fast/large");
    return true;
}

bool leasehold_agent_model_next(leasehold_agent_model_borrow_pending_call_t call,
                                leasehold_agent_model_option_json_t *ret, agent_error_t *err) {
    (void)call;
    return next_part(&ret->is_some, &ret->val, err);
}

/* ---- delegate ---- */

static void asked_task(const char *what, leasehold_agent_delegate_task_t *task) {
    asked("%s " S " " S, what, A(&task->agent), A(&task->input));
    for (size_t i = 0; i < task->lease.len; i++) {
        asked(" " S "=", A(&task->lease.ptr[i].f0));
        for (size_t j = 0; j < task->lease.ptr[i].f1.len; j++) {
            asked("%s" S, j == 0 ? "" : ",", A(&task->lease.ptr[i].f1.ptr[j]));
        }
    }
    asked_option("expires", task->expires_at.is_some ? &task->expires_at.val : NULL);
    if (task->max_runtime_sec.is_some) {
        asked(" max=%u", task->max_runtime_sec.val);
    }
    asked("\n");
}

bool leasehold_agent_delegate_run(leasehold_agent_delegate_task_t *task, agent_string_t *ret, agent_error_t *err) {
    asked_task("delegate.run", task);
    return answers_text(ret, err);
}

bool leasehold_agent_delegate_start(leasehold_agent_delegate_task_t *task,
                                    leasehold_agent_delegate_own_pending_call_t *ret, agent_error_t *err) {
    asked_task("delegate.start", task);
    return begins(ret, err);
}

bool leasehold_agent_delegate_start_stream(leasehold_agent_delegate_task_t *task,
                                           leasehold_agent_delegate_own_pending_call_t *ret, agent_error_t *err) {
    asked_task("delegate.start-stream", task);
    return begins(ret, err);
}

bool leasehold_agent_delegate_job_id(leasehold_agent_delegate_borrow_pending_call_t call, agent_string_t *ret,
                                     agent_error_t *err) {
    (void)call;
    return answers_text(ret, err);
}

bool leasehold_agent_delegate_next_event(leasehold_agent_delegate_borrow_pending_call_t call,
                                         leasehold_agent_delegate_option_json_t *ret, agent_error_t *err) {
    (void)call;
    return next_part(&ret->is_some, &ret->val, err);
}

/* ---- metrics, events, output, job ---- */

bool leasehold_agent_metrics_emit(agent_string_t *name, agent_string_t *value, agent_string_t *unit,
                                  agent_list_tuple2_string_string_t *dimensions, agent_error_t *err) {
    asked("metric " S "=" S, A(name), A(value));
    asked_option("unit", unit);
    for (size_t i = 0; i < dimensions->len; i++) {
        asked(" " S ":" S, A(&dimensions->ptr[i].f0), A(&dimensions->ptr[i].f1));
    }
    asked("\n");
    return answers(err);
}

void leasehold_agent_events_log(leasehold_agent_events_level_t level, agent_string_t *message) {
    static const char *const levels[] = { "debug", "info", "warn", "error" };
    asked("%s " S "\n", levels[level], A(message));
    if (fake.prints) {
        printf("%s " S "\n", levels[level], A(message));
        fflush(stdout);
    }
}

void leasehold_agent_events_thought(agent_string_t *text) { asked("thought " S "\n", A(text)); }

bool leasehold_agent_events_status(agent_string_t *phase, agent_string_t *message, agent_error_t *err) {
    asked("status " S, A(phase));
    asked_option("message", message);
    asked("\n");
    return answers(err);
}

bool leasehold_agent_events_progress(uint64_t current, uint64_t *total, agent_string_t *units, agent_string_t *message,
                                     agent_error_t *err) {
    asked("progress %d", (int)current);
    if (total != NULL) {
        asked(" of %d", (int)*total);
    }
    asked_option("units", units);
    asked_option("message", message);
    asked("\n");
    return answers(err);
}

bool leasehold_agent_events_artifact_ref(leasehold_agent_events_reference_t *artifact, agent_error_t *err) {
    asked("artifact " S " " S, A(&artifact->uri), A(&artifact->content_type));
    if (artifact->byte_size.is_some) {
        asked(" size=%d", (int)artifact->byte_size.val);
    }
    asked_option("sha256", artifact->sha256.is_some ? &artifact->sha256.val : NULL);
    asked("\n");
    return answers(err);
}

bool leasehold_agent_events_vendor(agent_string_t *kind, agent_string_t *body, agent_error_t *err) {
    asked("vendor " S " " S "\n", A(kind), A(body));
    return answers(err);
}

bool leasehold_agent_output_write_text(agent_string_t *text, agent_error_t *err) {
    asked("text %zu\n", text->len);
    return answers(err);
}

bool leasehold_agent_output_write_bytes(agent_list_u8_t *bytes, agent_error_t *err) {
    asked("bytes %zu\n", bytes->len);
    return answers(err);
}

bool leasehold_agent_output_finish(agent_error_t *err) {
    asked("finish\n");
    return answers(err);
}

void leasehold_agent_job_id(agent_string_t *ret) { *ret = give("job_01"); }
void leasehold_agent_job_agent(agent_string_t *ret) { *ret = give("test@1.0.0"); }
void leasehold_agent_job_trace_id(agent_string_t *ret) { *ret = give(""); }

bool leasehold_agent_job_expires_at(agent_string_t *ret) {
    *ret = give(next_answer());
    return true;
}

void leasehold_agent_job_budget(leasehold_agent_job_list_tuple2_string_decimal_t *ret) {
    ret->len = 2;
    ret->ptr = malloc(2 * sizeof *ret->ptr);
    leasehold_agent_job_tuple2_string_decimal_t left[] = { { give("EUR"), give("-0.10") },
                                                           { give("USD"), give("0.75") } };
    memcpy(ret->ptr, left, sizeof left);
}

void leasehold_agent_job_grants(agent_string_t *name_space, agent_list_string_t *ret) {
    asked("grants " S "\n", A(name_space));
    ret->len = 0;
    ret->ptr = (void *)8;
}

bool leasehold_agent_job_cancel_requested(void) { return fake.cancelled; }
