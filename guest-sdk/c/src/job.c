/* The job, and its time. */
#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include <stdalign.h>
#include <time.h>

#include "internal.h"

/* How long a sleep may go on after a cancellation; the host's grace time is longer. */
#define NAP_MAX_MS 1000

static lh_str given_by(void (*give)(agent_string_t *)) {
    agent_string_t text;
    give(&text);
    return lhi_take(text);
}

lh_str lh_job_id(void) { return given_by(leasehold_agent_job_id); }
lh_str lh_job_agent(void) { return given_by(leasehold_agent_job_agent); }
lh_str lh_job_trace_id(void) { return given_by(leasehold_agent_job_trace_id); }

lh_str lh_job_expires_at(void) {
    agent_string_t at;
    return leasehold_agent_job_expires_at(&at) ? lhi_take(at) : LH_NONE;
}

lh_balances lh_job_budget(void) {
    leasehold_agent_job_list_tuple2_string_decimal_t list;
    leasehold_agent_job_budget(&list);
    lh_balances budget = { lhi_alloc(list.len * sizeof *budget.ptr, alignof(lh_balance)), list.len };
    for (size_t i = 0; i < list.len; i++) {
        budget.ptr[i].currency = lhi_take(list.ptr[i].f0);
        budget.ptr[i].left = lhi_take(list.ptr[i].f1);
    }
    lhi_free_array(list.ptr, list.len);
    return budget;
}

lh_str lh_job_left(lh_str currency) {
    lh_balances budget = lh_job_budget();
    for (size_t i = 0; i < budget.len; i++) {
        if (lh_equal(budget.ptr[i].currency, currency)) {
            return budget.ptr[i].left;
        }
    }
    return LH_NONE;
}

lh_error lh_job_grants(lh_str name_space, lh_strs *patterns) {
    LH_TRY(lhi_check(name_space, "namespace"));
    agent_string_t shown = lhi_show(name_space);
    agent_list_string_t list;
    leasehold_agent_job_grants(&shown, &list);
    *patterns = lhi_take_strs(list);
    return lh_ok();
}

bool lh_job_cancel_requested(void) { return leasehold_agent_job_cancel_requested(); }

lh_error lh_job_check_cancelled(void) {
    return lh_job_cancel_requested() ? lh_fail(LH_CANCELLED, "the job is being cancelled") : lh_ok();
}

lh_error lh_job_sleep(uint64_t millis) {
    // Time is counted down, not read from a clock: the calls a run makes are then the same when the host replays it.
    while (millis > 0) {
        uint64_t nap = millis < NAP_MAX_MS ? millis : NAP_MAX_MS;
        struct timespec duration = { (time_t)(nap / 1000), (long)(nap % 1000) * 1000000 };
        nanosleep(&duration, NULL);
        millis -= nap;
        LH_TRY(lh_job_check_cancelled());
    }
    return lh_ok();
}

bool lh_timestamp_millis(lh_str timestamp, int64_t *millis) {
    static const char form[] = "0000-00-00T00:00:00.000Z";
    if (timestamp.len != sizeof form - 1) {
        return false;
    }
    // The numbers in the order in which they stand: year, month, day, hour, minute, second, milliseconds.
    int64_t numbers[7] = { 0 };
    size_t field = 0;
    for (size_t i = 0; i < timestamp.len; i++) {
        char c = timestamp.ptr[i];
        if (form[i] != '0') {
            if (c != form[i]) {
                return false;
            }
            field++;
        } else if (c < '0' || c > '9') {
            return false;
        } else {
            numbers[field] = numbers[field] * 10 + (c - '0');
        }
    }
    int64_t year = numbers[0], month = numbers[1], day = numbers[2];
    if (month < 1 || month > 12 || day < 1 || day > 31 || numbers[3] > 23 || numbers[4] > 59 || numbers[5] > 60) {
        return false;
    }
    // The year is taken to begin in March, so that the leap day comes last and the months before any month have a
    // length that one line can say. Four hundred years are added so that nothing is divided that is negative.
    year += 400 - (month <= 2);
    month = month > 2 ? month - 3 : month + 9;
    int64_t days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719468 - 146097;
    *millis = (((days * 24 + numbers[3]) * 60 + numbers[4]) * 60 + numbers[5]) * 1000 + numbers[6];
    return true;
}
