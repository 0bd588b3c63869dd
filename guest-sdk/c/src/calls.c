/* Calls under way: which there are, so that one that is used up is an error and not a trap. */
#include <stdalign.h>
#include <stdlib.h>

#include "internal.h"

struct live {
    int32_t handle;
    uint32_t serial;
    lhi_maker maker;
};

/* Not of the job's memory: a call may outlive the scope it was begun in. */
static struct {
    struct live *ptr;
    size_t count;
    size_t capacity;
    uint32_t serials;
} live;

lh_call lhi_begun(leasehold_agent_calls_own_pending_call_t call, lhi_maker maker) {
    if (live.count == live.capacity) {
        size_t capacity = live.capacity == 0 ? 16 : live.capacity * 2;
        struct live *grown = realloc(live.ptr, capacity * sizeof *grown);
        if (grown == NULL) {
            lhi_out_of_memory(capacity * sizeof *grown);
        }
        live.ptr = grown;
        live.capacity = capacity;
    }
    struct live begun = { call.__handle, ++live.serials, maker };
    live.ptr[live.count++] = begun;
    lh_call named = { begun.handle, begun.serial };
    return named;
}

static struct live *find(lh_call call) {
    for (size_t i = 0; i < live.count; i++) {
        if (live.ptr[i].handle == call.handle && live.ptr[i].serial == call.serial) {
            return &live.ptr[i];
        }
    }
    return NULL;
}

static lh_error check(const struct live *call, lhi_maker maker) {
    if (call == NULL) {
        return lh_fail(LH_INVALID_REQUEST, "call: was not begun, or is finished or dropped already");
    }
    if ((call->maker & maker) == 0) {
        return lh_fail(LH_INVALID_REQUEST, "call: was begun by another interface");
    }
    return lh_ok();
}

lh_error lhi_borrow(lh_call call, lhi_maker maker, leasehold_agent_calls_borrow_pending_call_t *borrowed) {
    LH_TRY(check(find(call), maker));
    borrowed->__handle = call.handle;
    return lh_ok();
}

lh_error lhi_use_up(lh_call *call, lhi_maker maker, leasehold_agent_calls_own_pending_call_t *own) {
    struct live *known = find(*call);
    LH_TRY(check(known, maker));
    own->__handle = call->handle;
    *known = live.ptr[--live.count];
    memset(call, 0, sizeof *call);
    return lh_ok();
}

#define LHI_ANY ((lhi_maker)(LHI_NET | LHI_TOOL | LHI_MODEL | LHI_TASK))

lh_str lh_call_id(lh_call call) {
    leasehold_agent_calls_borrow_pending_call_t borrowed;
    if (lhi_borrow(call, LHI_ANY, &borrowed).code != LH_OK) {
        return LH_NONE;
    }
    agent_string_t id;
    leasehold_agent_calls_method_pending_call_call_id(borrowed, &id);
    return lhi_take(id);
}

void lh_call_drop(lh_call *call) {
    leasehold_agent_calls_own_pending_call_t own;
    if (find(*call) != NULL && lhi_use_up(call, LHI_ANY, &own).code == LH_OK) {
        leasehold_agent_calls_pending_call_drop_own(own);
    }
}

lh_error lh_wait_any(const lh_call *calls, size_t count, uint64_t timeout_ms, size_t *index) {
    leasehold_agent_calls_list_borrow_pending_call_t list = {
        lhi_alloc(count * sizeof *list.ptr, alignof(max_align_t)),
        count,
    };
    for (size_t i = 0; i < count; i++) {
        LH_TRY(lhi_borrow(calls[i], LHI_ANY, &list.ptr[i]));
    }
    agent_option_u32_t first;
    agent_error_t error;
    uint64_t *patience = timeout_ms == LH_FOREVER ? NULL : &timeout_ms;
    if (!leasehold_agent_calls_wait_any(&list, patience, &first, &error)) {
        return lhi_error(error);
    }
    *index = first.is_some ? first.val : LH_NO_INDEX;
    return lh_ok();
}

lh_outcome lh_call_finish(lh_call *call) {
    lh_outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    struct live *known = find(*call);
    switch (known == NULL ? 0 : (int)known->maker) {
        case LHI_NET: outcome.error = lh_net_finish(call, &outcome.response); break;
        case LHI_TOOL: outcome.error = lh_tool_finish(call, &outcome.answer); break;
        case LHI_MODEL: outcome.error = lh_model_finish(call, &outcome.answer); break;
        case LHI_TASK: outcome.error = lh_delegate_finish(call, &outcome.answer); break;
        default: outcome.error = check(NULL, LHI_ANY);
    }
    return outcome;
}

lh_outcome *lh_finish_all(lh_call *calls, size_t count) {
    lh_outcome *outcomes = lhi_alloc(count * sizeof *outcomes, alignof(max_align_t));
    for (size_t i = 0; i < count; i++) {
        outcomes[i] = lh_call_finish(&calls[i]);
    }
    return outcomes;
}
