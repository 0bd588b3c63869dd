/* Errors: a code, spelt as the contract does, and a message. */
#include "internal.h"

/* In the order of `lh_code`, which is that of the contract, after `ok`. */
static const char *const NAMES[] = {
    "ok",
    "permission-denied",
    "lease-subset-violation",
    "lease-expired",
    "budget-exhausted",
    "job-not-found",
    "agent-not-available",
    "agent-version-not-available",
    "cancelled",
    "timeout",
    "invalid-request",
    "internal-error",
    "not-found",
    "already-exists",
    "not-a-directory",
    "not-a-file",
    "not-empty",
    "too-large",
    "unknown-outcome",
};

#define NAMES_COUNT (sizeof NAMES / sizeof NAMES[0])

_Static_assert(NAMES_COUNT == LH_UNKNOWN_OUTCOME + 1, "every code has a name");
_Static_assert(LH_UNKNOWN_OUTCOME == LEASEHOLD_AGENT_TYPES_ERROR_CODE_UNKNOWN_OUTCOME + 1, "as in the contract");

lh_error lh_fail(lh_code code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    lh_error error = { code, lhi_format(format, arguments) };
    va_end(arguments);
    return error;
}

const char *lh_code_name(lh_code code) {
    return (size_t)code < NAMES_COUNT ? NAMES[code] : "no error code";
}

bool lh_code_of(lh_str name, lh_code *code) {
    for (size_t i = 1; i < NAMES_COUNT; i++) {
        if (lh_equal(name, lh_str_of(NAMES[i]))) {
            *code = (lh_code)i;
            return true;
        }
    }
    return false;
}

bool lh_ends_the_job(lh_code code) {
    return code == LH_CANCELLED || code == LH_LEASE_EXPIRED || code == LH_BUDGET_EXHAUSTED;
}
