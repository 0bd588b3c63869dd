/* HTTP. */
#include <stdalign.h>

#include "internal.h"

/* How many redirects a request follows that does not say. */
#define REDIRECTS 10

lh_request lh_request_of(lh_str method, lh_str url) {
    lh_request request = { method, url, { NULL, 0 }, LH(""), REDIRECTS, LH_FOREVER };
    return request;
}

void lh_request_header(lh_request *request, lh_str name, lh_str value) {
    // Headers are few, so each gets a list of its own, and a copy of a request keeps the list it had.
    lh_headers *headers = &request->headers;
    lh_pair *pairs = lhi_alloc((headers->len + 1) * sizeof *pairs, alignof(lh_pair));
    if (headers->len > 0) {
        memcpy(pairs, headers->ptr, headers->len * sizeof *pairs);
    }
    lh_pair header = { name, value };
    pairs[headers->len++] = header;
    headers->ptr = pairs;
}

lh_error lh_request_json(lh_request *request, const lh_json *body) {
    LH_TRY(lh_json_write(body, &request->body));
    lh_request_header(request, LH("content-type"), LH("application/json"));
    return lh_ok();
}

/* Shows a request to the host, after a look at its texts. */
static lh_error show(const lh_request *request, leasehold_agent_net_request_t *shown) {
    const lh_headers *headers = &request->headers;
    LH_TRY(lhi_check(request->method, "method"));
    LH_TRY(lhi_check(request->url, "url"));
    shown->method = lhi_show(request->method);
    shown->url = lhi_show(request->url);
    shown->headers.ptr = lhi_alloc(headers->len * sizeof *shown->headers.ptr, alignof(max_align_t));
    shown->headers.len = headers->len;
    for (size_t i = 0; i < headers->len; i++) {
        LH_TRY(lhi_check(headers->ptr[i].name, "header"));
        shown->headers.ptr[i].f0 = lhi_show(headers->ptr[i].name);
        shown->headers.ptr[i].f1 = lhi_show_bytes(headers->ptr[i].value);
    }
    shown->body = lhi_show_bytes(request->body);
    shown->redirects = request->redirects;
    shown->timeout_ms.is_some = request->timeout_ms != LH_FOREVER;
    shown->timeout_ms.val = request->timeout_ms;
    return lh_ok();
}

static void take(leasehold_agent_net_response_t given, lh_response *response) {
    response->status = given.status;
    response->url = lhi_take(given.url);
    response->headers.ptr = lhi_alloc(given.headers.len * sizeof *response->headers.ptr, alignof(lh_pair));
    response->headers.len = given.headers.len;
    for (size_t i = 0; i < given.headers.len; i++) {
        response->headers.ptr[i].name = lhi_take(given.headers.ptr[i].f0);
        response->headers.ptr[i].value = lhi_take_bytes(given.headers.ptr[i].f1);
    }
    lhi_free_array(given.headers.ptr, given.headers.len);
    response->body = lhi_take_bytes(given.body);
}

lh_error lh_net_get(lh_str url, lh_response *response) {
    lh_request request = lh_request_of(LH("GET"), url);
    return lh_net_send(&request, response);
}

lh_error lh_net_send(const lh_request *request, lh_response *response) {
    leasehold_agent_net_request_t shown;
    leasehold_agent_net_response_t given;
    agent_error_t error;
    LH_TRY(show(request, &shown));
    if (!leasehold_agent_net_fetch(&shown, &given, &error)) {
        return lhi_error(error);
    }
    take(given, response);
    return lh_ok();
}

lh_error lh_net_start(const lh_request *request, lh_call *call) {
    leasehold_agent_net_request_t shown;
    leasehold_agent_net_own_pending_call_t own;
    agent_error_t error;
    LH_TRY(show(request, &shown));
    if (!leasehold_agent_net_start(&shown, &own, &error)) {
        return lhi_error(error);
    }
    *call = lhi_begun(own, LHI_NET);
    return lh_ok();
}

lh_error lh_net_finish(lh_call *call, lh_response *response) {
    leasehold_agent_net_own_pending_call_t own;
    leasehold_agent_net_response_t given;
    agent_error_t error;
    LH_TRY(lhi_use_up(call, LHI_NET, &own));
    if (!leasehold_agent_net_finish(own, &given, &error)) {
        return lhi_error(error);
    }
    take(given, response);
    return lh_ok();
}

lh_error lh_net_open(const lh_request *request, lh_call *call, lh_response *head) {
    leasehold_agent_net_request_t shown;
    leasehold_agent_net_own_pending_call_t own;
    leasehold_agent_net_response_t given;
    agent_error_t error;
    LH_TRY(show(request, &shown));
    if (!leasehold_agent_net_start_stream(&shown, &own, &error)) {
        return lhi_error(error);
    }
    if (!leasehold_agent_net_head(leasehold_agent_calls_borrow_pending_call(own), &given, &error)) {
        leasehold_agent_calls_pending_call_drop_own(own);
        return lhi_error(error);
    }
    take(given, head);
    *call = lhi_begun(own, LHI_NET);
    return lh_ok();
}

lh_error lh_net_next(lh_call call, lh_str *part) {
    leasehold_agent_net_borrow_pending_call_t borrowed;
    agent_option_list_u8_t given;
    agent_error_t error;
    LH_TRY(lhi_borrow(call, LHI_NET, &borrowed));
    if (!leasehold_agent_net_next(borrowed, &given, &error)) {
        return lhi_error(error);
    }
    *part = given.is_some ? lhi_take_bytes(given.val) : LH_NONE;
    return lh_ok();
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

lh_str lh_response_header(const lh_response *response, const char *name) {
    size_t len = strlen(name);
    for (size_t i = 0; i < response->headers.len; i++) {
        lh_str known = response->headers.ptr[i].name;
        size_t same = 0;
        while (known.len == len && same < len && lower(known.ptr[same]) == lower(name[same])) {
            same++;
        }
        if (known.len == len && same == len) {
            return response->headers.ptr[i].value;
        }
    }
    return LH_NONE;
}

lh_error lh_response_json(const lh_response *response, lh_json **value) {
    return lh_json_parse(response->body, value);
}

lh_error lh_response_ok(const lh_response *response) {
    if (response->status >= 200 && response->status <= 299) {
        return lh_ok();
    }
    return lh_fail(LH_INTERNAL_ERROR, LH_FMT " answered %u", LH_ARG(response->url), (unsigned)response->status);
}
