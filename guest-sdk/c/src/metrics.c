/* Metrics, and the decimals that money is counted in. */
#include <math.h>
#include <stdalign.h>
#include <stdlib.h>

#include "internal.h"

lh_error lh_metric(lh_str name, lh_str value, lh_str unit, const lh_pair *dimensions, size_t count) {
    LH_TRY(lhi_check(name, "metric"));
    LH_TRY(lhi_check(value, "value"));
    LH_TRY(lhi_check(unit, "unit"));
    agent_list_tuple2_string_string_t list = { lhi_alloc(count * sizeof *list.ptr, alignof(max_align_t)), count };
    for (size_t i = 0; i < count; i++) {
        LH_TRY(lhi_check(dimensions[i].name, "dimension"));
        LH_TRY(lhi_check(dimensions[i].value, "dimension"));
        list.ptr[i].f0 = lhi_show(dimensions[i].name);
        list.ptr[i].f1 = lhi_show(dimensions[i].value);
    }
    agent_string_t metric = lhi_show(name), figure = lhi_show(value), of = lhi_show(unit);
    agent_error_t error;
    bool told = leasehold_agent_metrics_emit(&metric, &figure, lh_has(unit) ? &of : NULL, &list, &error);
    return told ? lh_ok() : lhi_error(error);
}

lh_error lh_cost(lh_str name, lh_str amount, lh_str currency) {
    return lh_metric(lh_format("cost." LH_FMT, LH_ARG(name)), amount, currency, NULL, 0);
}

lh_str lh_decimal(double value) {
    if (!isfinite(value)) {
        return LH_NONE;
    }
    // As few digits as read back the same: d.ddde±x, from which the plain notation is made.
    lh_str brief = LH_NONE;
    for (int digits = 0; digits <= 16; digits++) {
        brief = lh_format("%.*e", digits, fabs(value));
        if (strtod(brief.ptr, NULL) == fabs(value)) {
            break;
        }
    }
    char digits[24];
    int count = 0;
    const char *at = brief.ptr;
    for (; *at != 'e'; at++) {
        if (*at != '.') {
            digits[count++] = *at;
        }
    }
    while (count > 1 && digits[count - 1] == '0') {
        count--;
    }
    int point = atoi(at + 1) + 1; // so many digits stand before the point
    lh_text plain = lh_text_new();
    if (value < 0) {
        lh_text_add(&plain, LH("-"));
    }
    if (point <= 0) {
        lh_text_add(&plain, LH("0."));
    }
    for (int i = point; i < 0; i++) {
        lh_text_add(&plain, LH("0"));
    }
    for (int i = 0; i < count || i < point; i++) {
        if (i == point && i > 0) {
            lh_text_add(&plain, LH("."));
        }
        lh_text_add(&plain, i < count ? lh_str_n(&digits[i], 1) : LH("0"));
    }
    return lh_text_str(&plain);
}

/* A decimal, as a sign and the digits before and after its point, without the zeros that say nothing. */
struct decimal {
    int sign;
    lh_str before;
    lh_str after;
};

static struct decimal take_apart(lh_str text) {
    struct decimal zero = { 0, LH(""), LH("") }, decimal = { 1, LH(""), LH("") };
    size_t at = 0;
    if (text.len > 0 && text.ptr[0] == '-') {
        decimal.sign = -1;
        at = 1;
    }
    size_t from = at, point = text.len;
    for (; at < text.len; at++) {
        if (text.ptr[at] == '.' && point == text.len) {
            point = at;
        } else if (text.ptr[at] < '0' || text.ptr[at] > '9') {
            return zero;
        }
    }
    while (from < point && text.ptr[from] == '0') {
        from++;
    }
    size_t end = text.len;
    while (end > point + 1 && text.ptr[end - 1] == '0') {
        end--;
    }
    if (from < point) {
        decimal.before = lh_str_n(text.ptr + from, point - from);
    }
    if (end > point + 1) {
        decimal.after = lh_str_n(text.ptr + point + 1, end - point - 1);
    }
    return decimal.before.len + decimal.after.len == 0 ? zero : decimal;
}

int lh_decimal_compare(lh_str a, lh_str b) {
    struct decimal left = take_apart(a), right = take_apart(b);
    if (left.sign != right.sign) {
        return left.sign < right.sign ? -1 : 1;
    }
    int order;
    if (left.before.len != right.before.len) {
        order = left.before.len < right.before.len ? -1 : 1;
    } else if ((order = memcmp(left.before.ptr, right.before.ptr, left.before.len)) == 0) {
        size_t common = left.after.len < right.after.len ? left.after.len : right.after.len;
        order = memcmp(left.after.ptr, right.after.ptr, common);
        if (order == 0 && left.after.len != right.after.len) {
            order = left.after.len < right.after.len ? -1 : 1;
        }
    }
    order = order < 0 ? -1 : order > 0;
    return left.sign < 0 ? -order : order;
}
