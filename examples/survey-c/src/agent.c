/* Uses everything an agent can touch; README.md in the folder above tells the scenario step by step. */
#include <inttypes.h>
#include <stdio.h>

#include <leasehold.h>

static lh_error wait_for_cancellation(void);
static lh_error files(void);
static lh_error services(lh_str base);
static lh_error delegation(void);
static lh_error money(lh_str base);
static lh_error the_end(lh_json **result);

static lh_error run(const lh_json *input, lh_json **result) {
    bool wait = false;
    lh_str base;
    LH_TRY(lh_input_bool_opt(input, "wait", &wait));
    if (wait) {
        return wait_for_cancellation();
    }
    LH_TRY(lh_input_str(input, "url", &base));
    LH_TRY(files());
    LH_TRY(services(base));
    LH_TRY(delegation());
    LH_TRY(money(base));
    return the_end(result);
}

LH_AGENT(run)

static lh_error wait_for_cancellation(void) {
    LH_TRY(lh_status(LH("waiting"), LH_NONE));
    while (lh_job_sleep(20).code == LH_OK) {
    }
    lh_info("cancellation noticed");
    return lh_fail(LH_CANCELLED, "stopped as asked");
}

/* Tells with which code something was refused that has to be refused. */
static lh_error tell_refusal(const char *word, lh_error error) {
    if (error.code == LH_OK) {
        return lh_fail(LH_INTERNAL_ERROR, "%s: it was allowed", word);
    }
    lh_warn("%s: %s", word, lh_code_name(error.code));
    return lh_ok();
}

static lh_error step_done(uint64_t step, const char *name) {
    return lh_progress(step, 4, LH("steps"), lh_str_of(name));
}

static lh_error files(void) {
    const lh_str notes = LH("/workspace/notes.md"), survey = LH("/outbox/survey.txt"), made = LH("/outbox/made");
    lh_info("survey begins");
    LH_TRY(lh_status(LH("files"), LH("what the lease shows")));

    lh_entries letters;
    LH_TRY(lh_fs_list(LH("/workspace/letters"), &letters));
    lh_text names = lh_text_new();
    for (size_t i = 0; i < letters.len; i++) {
        lh_text_addf(&names, "%s" LH_FMT, i == 0 ? "" : ", ", LH_ARG(letters.ptr[i].name));
    }
    lh_info("letters: " LH_FMT, LH_ARG(lh_text_str(&names)));

    lh_metadata metadata;
    LH_TRY(lh_fs_stat(notes, &metadata));
    lh_info("notes.md: %s, %" PRIu64 " bytes", lh_kind_name(metadata.kind), metadata.size);
    lh_str text, part, written;
    LH_TRY(lh_fs_read_text(notes, &text));
    size_t lines = 0;
    for (size_t i = 0; i < text.len; i++) {
        lines += text.ptr[i] == '\n';
    }
    lh_info("notes.md: %zu lines", lines);
    LH_TRY(lh_fs_read_range(notes, 2, 5, &part));
    lh_info("from 2: " LH_FMT, LH_ARG(part));

    LH_TRY(lh_fs_write(survey, LH("first\n")));
    LH_TRY(lh_fs_append(survey, LH("second\n")));
    LH_TRY(lh_fs_read(survey, &written));
    lh_info("outbox: %zu bytes", written.len);
    LH_TRY(lh_fs_create_dir(made));
    LH_TRY(lh_fs_remove(made));
    lh_info("made and removed");
    LH_TRY(lh_artifact(LH("file:///outbox/survey.txt"), LH("text/plain"), written.len, LH_NONE));

    LH_TRY(tell_refusal("denied", lh_fs_read(LH("/private/key.txt"), &text)));
    lh_error missing = lh_fs_read(LH("/workspace/missing.md"), &text);
    lh_info("missing: %s", lh_code_name(missing.code));
    return step_done(1, "files");
}

static lh_error tools(void);
static lh_error pages(lh_str base);
static lh_error calls(lh_str base);
static lh_error models(void);

static lh_error services(lh_str base) {
    LH_TRY(lh_status(LH("services"), LH_NONE));
    lh_thought("the operator offers tools and models");
    LH_TRY(tools());
    LH_TRY(pages(base));
    LH_TRY(calls(base));
    LH_TRY(models());
    return step_done(2, "services");
}

static lh_error tools(void) {
    const lh_str upper = LH("upper");
    lh_tools offered;
    LH_TRY(lh_tool_list(&offered));
    lh_text names = lh_text_new();
    for (size_t i = 0; i < offered.len; i++) {
        lh_text_addf(&names, "%s" LH_FMT, i == 0 ? "" : ", ", LH_ARG(offered.ptr[i].name));
    }
    lh_info("tools: " LH_FMT, LH_ARG(lh_text_str(&names)));
    lh_json *arguments = lh_json_set(lh_json_object(), "text", lh_json_str(LH("lease"))), *answer;
    LH_TRY(lh_tool_call(upper, arguments, &answer));
    lh_info("upper: " LH_FMT, LH_ARG(lh_json_text(lh_json_get(answer, "text"))));
    return tell_refusal("refused", lh_tool_call(upper, lh_json_object(), &answer));
}

static lh_str under(lh_str base, const char *path) { return lh_format(LH_FMT "/%s", LH_ARG(base), path); }

static lh_error pages(lh_str base) {
    lh_response response;
    lh_request page = lh_request_of(LH("GET"), under(base, "page"));
    lh_request_header(&page, LH("x-survey"), LH("yes"));
    LH_TRY(lh_net_send(&page, &response));
    lh_info("page: %u, " LH_FMT, response.status, LH_ARG(response.body));

    lh_request echo = lh_request_of(LH("POST"), under(base, "echo"));
    lh_json *answer;
    int64_t n = 0;
    LH_TRY(lh_request_json(&echo, lh_json_set(lh_json_object(), "n", lh_json_int(1))));
    LH_TRY(lh_net_send(&echo, &response));
    LH_TRY(lh_response_json(&response, &answer));
    lh_json_to_int(lh_json_get(answer, "n"), &n);
    lh_info("echo: %" PRId64, n);

    LH_TRY(lh_net_get(under(base, "missing"), &response));
    lh_info("missing page: %u", response.status);
    return lh_ok();
}

static lh_error start(lh_str base, const char *path, lh_call *call) {
    lh_request request = lh_request_of(LH("GET"), under(base, path));
    return lh_net_start(&request, call);
}

static lh_error calls(lh_str base) {
    lh_call racers[2];
    lh_response response;
    size_t first;
    LH_TRY(start(base, "slow", &racers[0]));
    LH_TRY(start(base, "fast", &racers[1]));
    LH_TRY(lh_wait_any(racers, 2, LH_FOREVER, &first));
    lh_info("first: %zu", first);
    LH_TRY(lh_net_finish(&racers[first], &response));
    lh_info("fast: " LH_FMT, LH_ARG(response.body));
    LH_TRY(lh_net_get(under(base, "release"), &response));
    LH_TRY(lh_net_finish(&racers[0], &response));
    lh_info("slow: " LH_FMT, LH_ARG(response.body));

    lh_call never;
    LH_TRY(start(base, "never", &never));
    LH_TRY(lh_wait_any(&never, 1, 20, &first));
    lh_info("in time: %s", first == LH_NO_INDEX ? "no" : "yes");
    lh_call_drop(&never);

    lh_request parts = lh_request_of(LH("GET"), under(base, "parts"));
    lh_call stream;
    lh_str part;
    size_t bytes = 0;
    LH_TRY(lh_net_open(&parts, &stream, &response));
    do {
        LH_TRY(lh_net_next(stream, &part));
        bytes += part.len;
    } while (lh_has(part));
    lh_call_drop(&stream);
    lh_info("parts: %zu bytes", bytes);
    return lh_ok();
}

static lh_json *chat(lh_str question) {
    lh_json *message = lh_json_set(lh_json_object(), "role", lh_json_str(LH("user")));
    lh_json_set(message, "content", lh_json_str(question));
    lh_json *request = lh_json_set(lh_json_object(), "messages", lh_json_push(lh_json_array(), message));
    return lh_json_set(request, "max_tokens", lh_json_int(16));
}

static lh_error models(void) {
    const lh_str small = LH("tier-fast/small");
    lh_strs offered;
    LH_TRY(lh_model_list(&offered));
    lh_text names = lh_text_new();
    for (size_t i = 0; i < offered.len; i++) {
        lh_text_addf(&names, "%s" LH_FMT, i == 0 ? "" : ", ", LH_ARG(offered.ptr[i]));
    }
    lh_info("models: " LH_FMT, LH_ARG(lh_text_str(&names)));

    lh_json *answer;
    LH_TRY(lh_model_complete(small, chat(LH("say lease")), &answer));
    lh_info("model: " LH_FMT, LH_ARG(lh_model_text(answer)));

    lh_call stream;
    lh_str words;
    lh_text streamed = lh_text_new();
    LH_TRY(lh_model_stream(small, chat(LH("say it in parts")), &stream));
    do {
        LH_TRY(lh_model_next_text(stream, &words));
        lh_text_add(&streamed, words);
    } while (lh_has(words));
    lh_call_drop(&stream);
    lh_str text = lh_text_str(&streamed);
    while (text.len > 0 && strchr(" \t\r\n", text.ptr[text.len - 1]) != NULL) {
        text.len--;
    }
    lh_info("streamed: " LH_FMT, LH_ARG(text));
    return lh_ok();
}

static lh_task echo_of(const char *from) {
    lh_task task = lh_task_of(LH("echo"));
    task.input = lh_json_set(lh_json_object(), "from", lh_json_str(lh_str_of(from)));
    lh_task_budget(&task, LH("USD:0.10"));
    return task;
}

static lh_error delegation(void) {
    LH_TRY(lh_status(LH("delegation"), LH_NONE));
    lh_json *result;
    lh_task task = echo_of("survey");
    LH_TRY(lh_delegate_run(&task, &result));
    lh_info("echo: " LH_FMT, LH_ARG(lh_json_text(lh_json_get(result, "from"))));

    lh_call call;
    size_t first;
    task = echo_of("start");
    LH_TRY(lh_delegate_start(&task, &call));
    LH_TRY(lh_wait_any(&call, 1, LH_FOREVER, &first));
    LH_TRY(lh_delegate_finish(&call, &result));
    lh_info("started: " LH_FMT, LH_ARG(lh_json_text(lh_json_get(result, "from"))));

    lh_task wider = lh_task_of(LH("echo")), nobody = lh_task_of(LH("nobody"));
    lh_task_grant(&wider, LH("fs.read"), LH("/**"));
    LH_TRY(tell_refusal("refused", lh_delegate_run(&wider, &result)));
    LH_TRY(tell_refusal("refused", lh_delegate_run(&nobody, &result)));
    return step_done(3, "delegation");
}

static lh_error money(lh_str base) {
    LH_TRY(lh_status(LH("money"), LH_NONE));
    lh_pair kind = { LH("kind"), LH("done") };
    LH_TRY(lh_metric(LH("survey.steps"), LH("3"), LH("steps"), &kind, 1));
    lh_response held;
    LH_TRY(lh_net_get(under(base, "hold"), &held));
    lh_info("held: " LH_FMT, LH_ARG(held.body));

    LH_TRY(lh_cost(LH("inference"), LH("0.25"), LH("USD")));
    lh_str left = lh_job_left(LH("USD"));
    lh_info("budget: %s", lh_has(left) && lh_decimal_compare(left, LH("0.76")) < 0 ? "less" : "not less");
    LH_TRY(lh_cost(LH("inference"), LH("5"), LH("USD")));
    lh_str notes;
    return tell_refusal("refused", lh_fs_read(LH("/workspace/notes.md"), &notes));
}

static lh_error the_end(lh_json **result) {
    LH_TRY(lh_vendor(LH("x-vendor.leasehold.survey"), lh_json_set(lh_json_object(), "steps", lh_json_int(26))));
    printf("printed\n");
    LH_TRY(step_done(4, "money"));
    LH_TRY(lh_output_text(LH("one\n")));
    LH_TRY(lh_output_text(LH("two\n")));
    LH_TRY(lh_output_text(LH("three\n")));
    LH_TRY(lh_output_finish());
    *result = lh_json_str(LH("survey complete"));
    return lh_ok();
}
