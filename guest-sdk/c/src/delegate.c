/* Delegation. */
#include <stdalign.h>

#include "internal.h"

/* One pattern of a task's lease; the last that was added comes first. */
typedef struct lh_grant {
    struct lh_grant *before;
    lh_str name_space;
    lh_str pattern;
} lh_grant;

lh_task lh_task_of(lh_str agent) {
    lh_task task = { agent, NULL, NULL, LH_NONE, 0 };
    return task;
}

void lh_task_grant(lh_task *task, lh_str name_space, lh_str pattern) {
    lh_grant *grant = lhi_alloc(sizeof *grant, alignof(lh_grant));
    grant->before = task->lease;
    grant->name_space = name_space;
    grant->pattern = pattern;
    task->lease = grant;
}

void lh_task_budget(lh_task *task, lh_str amount) { lh_task_grant(task, LH("cost.budget"), amount); }

/* Gives the patterns of a namespace, in the order in which they were added. */
static agent_list_string_t patterns(const lh_grant *lease, lh_str name_space) {
    agent_list_string_t list = { NULL, 0 };
    for (const lh_grant *grant = lease; grant != NULL; grant = grant->before) {
        list.len += lh_equal(grant->name_space, name_space);
    }
    list.ptr = lhi_alloc(list.len * sizeof *list.ptr, alignof(max_align_t));
    size_t index = list.len;
    for (const lh_grant *grant = lease; grant != NULL; grant = grant->before) {
        if (lh_equal(grant->name_space, name_space)) {
            list.ptr[--index] = lhi_show(grant->pattern);
        }
    }
    return list;
}

/* Tells whether a namespace has a pattern that was added after this one. */
static bool named_later(const lh_grant *lease, const lh_grant *grant) {
    for (; lease != grant; lease = lease->before) {
        if (lh_equal(lease->name_space, grant->name_space)) {
            return true;
        }
    }
    return false;
}

/* Shows a task to the host, after a look at its texts. */
static lh_error show(const lh_task *task, leasehold_agent_delegate_task_t *shown) {
    lh_str input;
    LH_TRY(lhi_check(task->agent, "agent"));
    LH_TRY(lhi_check(task->expires_at, "expires_at"));
    LH_TRY(lh_json_write(task->input, &input));
    size_t count = 0;
    for (const lh_grant *grant = task->lease; grant != NULL; grant = grant->before) {
        LH_TRY(lhi_check(grant->name_space, "lease"));
        LH_TRY(lhi_check(grant->pattern, "lease"));
        count += !named_later(task->lease, grant);
    }
    shown->agent = lhi_show(task->agent);
    shown->input = lhi_show(input);
    shown->lease.ptr = lhi_alloc(count * sizeof *shown->lease.ptr, alignof(max_align_t));
    shown->lease.len = count;
    for (const lh_grant *grant = task->lease; grant != NULL; grant = grant->before) {
        if (!named_later(task->lease, grant)) {
            agent_tuple2_string_list_string_t *entry = &shown->lease.ptr[--count];
            entry->f0 = lhi_show(grant->name_space);
            entry->f1 = patterns(task->lease, grant->name_space);
        }
    }
    shown->expires_at.is_some = lh_has(task->expires_at);
    shown->expires_at.val = lhi_show(task->expires_at);
    shown->max_runtime_sec.is_some = task->max_runtime_sec > 0;
    shown->max_runtime_sec.val = task->max_runtime_sec;
    return lh_ok();
}

lh_error lh_delegate_run(const lh_task *task, lh_json **result) {
    leasehold_agent_delegate_task_t shown;
    agent_string_t given;
    agent_error_t error;
    LH_TRY(show(task, &shown));
    return leasehold_agent_delegate_run(&shown, &given, &error) ? lhi_answer(given, result) : lhi_error(error);
}

typedef bool (*begin)(leasehold_agent_delegate_task_t *, leasehold_agent_delegate_own_pending_call_t *,
                      agent_error_t *);

static lh_error begin_by(begin begin, const lh_task *task, lh_call *call) {
    leasehold_agent_delegate_task_t shown;
    leasehold_agent_delegate_own_pending_call_t own;
    agent_error_t error;
    LH_TRY(show(task, &shown));
    if (!begin(&shown, &own, &error)) {
        return lhi_error(error);
    }
    *call = lhi_begun(own, LHI_TASK);
    return lh_ok();
}

lh_error lh_delegate_start(const lh_task *task, lh_call *call) {
    return begin_by(leasehold_agent_delegate_start, task, call);
}

lh_error lh_delegate_watch(const lh_task *task, lh_call *call) {
    return begin_by(leasehold_agent_delegate_start_stream, task, call);
}

lh_error lh_delegate_finish(lh_call *call, lh_json **result) {
    leasehold_agent_delegate_own_pending_call_t own;
    agent_string_t given;
    agent_error_t error;
    LH_TRY(lhi_use_up(call, LHI_TASK, &own));
    return leasehold_agent_delegate_finish(own, &given, &error) ? lhi_answer(given, result) : lhi_error(error);
}

lh_error lh_delegate_job_id(lh_call call, lh_str *id) {
    leasehold_agent_delegate_borrow_pending_call_t borrowed;
    agent_string_t given;
    agent_error_t error;
    LH_TRY(lhi_borrow(call, LHI_TASK, &borrowed));
    if (!leasehold_agent_delegate_job_id(borrowed, &given, &error)) {
        return lhi_error(error);
    }
    *id = lhi_take(given);
    return lh_ok();
}

lh_error lh_delegate_next_event(lh_call call, lh_json **event) {
    leasehold_agent_delegate_borrow_pending_call_t borrowed;
    leasehold_agent_delegate_option_json_t given;
    agent_error_t error;
    LH_TRY(lhi_borrow(call, LHI_TASK, &borrowed));
    if (!leasehold_agent_delegate_next_event(borrowed, &given, &error)) {
        return lhi_error(error);
    }
    *event = NULL;
    return given.is_some ? lhi_answer(given.val, event) : lh_ok();
}
