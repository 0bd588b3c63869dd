/*
 * Leasehold agents in C.
 *
 * An agent is one function from an input to a result. It is built as a WebAssembly component, and it reaches nothing
 * but what its job's lease grants (ARCP §9): libc finds no files, no network and no environment. What the host offers
 * is below, and a refusal is an `lh_error`, never a crash.
 *
 *     #include <leasehold.h>
 *
 *     static lh_error run(const lh_json *input, lh_json **result) {
 *         lh_str path, text;
 *         LH_TRY(lh_input_str(input, "path", &path));
 *         lh_info("counting the bytes of " LH_FMT, LH_ARG(path));
 *         LH_TRY(lh_fs_read_text(path, &text));
 *         *result = lh_json_object();
 *         lh_json_set(*result, "bytes", lh_json_uint(text.len));
 *         return lh_ok();
 *     }
 *
 *     LH_AGENT(run)
 *
 * Who owns what
 *
 * - Everything a function gives (texts, lists, JSON values, messages of errors) belongs to the job's memory, which is
 *   freed when the job ends. The agent frees nothing. A long loop gives memory back in between: see `lh_enter`.
 * - Everything a function is given is only looked at during the call, and copied if it is needed for longer.
 *   Exceptions say so: a JSON value that is put into another one becomes a part of it.
 * - A call under way (`lh_call`) is the one thing to take care of: finish it, or drop it.
 * - When memory runs out, the job ends: an `error` event says so, and no function returns half of something.
 *
 * Every function can be called at any time between the beginning and the end of the agent's function, from C or C++.
 */
#ifndef LEASEHOLD_H
#define LEASEHOLD_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LH_MUST_USE __attribute__((__warn_unused_result__))
#define LH_PRINTF(format, arguments) __attribute__((__format__(__printf__, format, arguments)))

/* ---- Texts --------------------------------------------------------------------------------------------- */

/*
 * A run of bytes; a text is one in UTF-8.
 *
 * What the library gives is followed by a NUL that `len` does not count, so that `ptr` can be handed to libc. It may
 * hold NULs itself, where libc would stop. What the agent gives needs no NUL. A `ptr` of NULL means *none*: a text that
 * is not there, unlike an empty one. Where a function takes a text and the bytes are not UTF-8 it answers
 * `invalid-request`; logs replace what is not UTF-8 by U+FFFD.
 */
typedef struct lh_str {
    const char *ptr;
    size_t len;
} lh_str;

/* Several texts. */
typedef struct lh_strs {
    lh_str *ptr;
    size_t len;
} lh_strs;

/* Makes a text of `len` bytes at `ptr`, which it refers to. */
static inline lh_str lh_str_n(const char *ptr, size_t len) {
    lh_str str = { ptr, len };
    return str;
}

/* Makes a text of a string that ends with a NUL, which it refers to; NULL gives none. */
static inline lh_str lh_str_of(const char *string) {
    return lh_str_n(string, string == NULL ? 0 : strlen(string));
}

/* A literal as a text: `LH("/workspace")`. */
#define LH(literal) lh_str_n("" literal, sizeof("" literal) - 1)

/* No text, where one is optional. */
#define LH_NONE lh_str_n(NULL, 0)

/* A text in a printf: `lh_info("read " LH_FMT, LH_ARG(path))`. Prints up to the first NUL; looks at `str` thrice. */
#define LH_FMT "%.*s"
#define LH_ARG(str) (int)(str).len, (str).ptr == NULL ? "" : (str).ptr

/* Tells whether a text is there. */
static inline bool lh_has(lh_str str) { return str.ptr != NULL; }

/* Tells whether two texts are the same bytes. None and empty are the same here. */
static inline bool lh_equal(lh_str a, lh_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Tells whether the bytes are UTF-8: no surrogates, nothing over U+10FFFF, nothing longer than need be. */
bool lh_is_utf8(lh_str str);

/* Copies a text into the job's memory. None stays none. */
lh_str lh_copy(lh_str str);

/* Makes a text as printf would, in the job's memory. */
lh_str lh_format(const char *format, ...) LH_PRINTF(1, 2);

/* A text that is put together bit by bit. Make one with `lh_text_new`; of its copies only one is added to. */
typedef struct lh_text {
    char *ptr;
    size_t len;
    size_t capacity;
    struct lh_owned *memory;
} lh_text;

/* Makes an empty text to add to, in the job's memory. It may grow in an inner scope and keeps what was added there. */
lh_text lh_text_new(void);

/* Adds bytes to the end. */
void lh_text_add(lh_text *text, lh_str str);

/* Adds to the end what printf would print. */
void lh_text_addf(lh_text *text, const char *format, ...) LH_PRINTF(2, 3);

/* Gives what was put together so far. It refers to the text, and is good until something is added. */
lh_str lh_text_str(const lh_text *text);

/* ---- Memory -------------------------------------------------------------------------------------------- */

/* Gives `size` bytes of the job's memory, zeroed and aligned for anything. Never NULL. */
void *lh_alloc(size_t size);

/* A part of the job's memory that can be given back before the job ends. */
typedef struct lh_scope {
    struct lh_chunk *chunk;
    size_t used;
    struct lh_owned *owned;
} lh_scope;

/*
 * Begins a scope. What the library gives from here on is freed by `lh_leave`, wherever it was put.
 *
 *     for (size_t i = 0; i < entries.len; i++) {
 *         lh_scope scope = lh_enter();
 *         LH_TRY(lh_leave_with(scope, count(entries.ptr[i].path, &words)));
 *     }
 *
 * Scopes nest. One that is never left is freed with the one around it.
 */
lh_scope lh_enter(void);

/* Ends a scope and frees what was given in it. */
void lh_leave(lh_scope scope);

/* ---- Errors -------------------------------------------------------------------------------------------- */

/* Why the host refused or could not do something. The names are spelt by `lh_code_name`. */
typedef enum lh_code {
    LH_OK = 0,                      /* nothing is wrong */
    LH_PERMISSION_DENIED,           /* the lease does not cover it (ARCP §9.3) */
    LH_LEASE_SUBSET_VIOLATION,      /* a delegated lease would be wider than this one (ARCP §9.4) */
    LH_LEASE_EXPIRED,               /* the lease has ended (ARCP §9.5) */
    LH_BUDGET_EXHAUSTED,            /* the money is spent (ARCP §9.6) */
    LH_JOB_NOT_FOUND,               /* no such job, or none this agent may see */
    LH_AGENT_NOT_AVAILABLE,         /* no agent of that name */
    LH_AGENT_VERSION_NOT_AVAILABLE, /* the agent is there, the version is not */
    LH_CANCELLED,                   /* the job is being cancelled: stop and return */
    LH_TIMEOUT,                     /* it took longer than its limit */
    LH_INVALID_REQUEST,             /* an argument is malformed or over a limit */
    LH_INTERNAL_ERROR,              /* the host failed; the same call may work later */
    LH_NOT_FOUND,                   /* nothing has that name */
    LH_ALREADY_EXISTS,              /* something has that name already */
    LH_NOT_A_DIRECTORY,             /* a directory was needed and something else is there */
    LH_NOT_A_FILE,                  /* a file was needed and something else is there */
    LH_NOT_EMPTY,                   /* the directory holds entries */
    LH_TOO_LARGE,                   /* the answer is over a limit; the message names it and the way round */
    LH_UNKNOWN_OUTCOME              /* the host stopped meanwhile and cannot know whether it took effect */
} lh_code;

/* A code and what happened to what, for people. Returned by the agent it becomes `job.error` (ARCP §7.3). */
typedef struct lh_error {
    lh_code code;
    lh_str message;
} lh_error;

/* Gives what a function returns that did what it was asked. */
static inline lh_error lh_ok(void) {
    lh_error error = { LH_OK, { NULL, 0 } };
    return error;
}

/* Makes an error; the message is printed as by printf. It holds no secret: clients read it. */
lh_error lh_fail(lh_code code, const char *format, ...) LH_PRINTF(2, 3) LH_MUST_USE;

/* Spells a code as the contract does, such as `permission-denied`; `ok` for `LH_OK`. */
const char *lh_code_name(lh_code code);

/* Finds a code by its spelling; false if there is none. */
bool lh_code_of(lh_str name, lh_code *code);

/*
 * Tells whether the job can do nothing more: cancelled, out of time or out of money. An agent that goes on after errors
 * of single files stops at these.
 */
bool lh_ends_the_job(lh_code code);

/* Returns from the function, which gives an `lh_error`, if `call` failed. */
#define LH_TRY(call)                          \
    do {                                      \
        lh_error lh_error_ = (call);          \
        if (lh_error_.code != LH_OK) {        \
            return lh_error_;                 \
        }                                     \
    } while (0)

/* Ends a scope as `lh_leave` does, and gives `error` back with its message taken out of the scope. */
lh_error lh_leave_with(lh_scope scope, lh_error error) LH_MUST_USE;

/*
 * Ends the job at once: logs the message as an `error` event, and aborts. For what cannot happen; what can happen is
 * an `lh_error`.
 */
void lh_panic(const char *format, ...) LH_PRINTF(1, 2) __attribute__((__noreturn__));

/* ---- JSON ---------------------------------------------------------------------------------------------- */

/*
 * A JSON value (RFC 8259), in the job's memory.
 *
 * The functions that read take NULL for a value that is not there and answer as for a value of another kind, so that
 * `lh_json_at(lh_json_get(answer, "choices"), 0)` needs no check in the middle.
 */
typedef struct lh_json lh_json;

typedef enum lh_json_kind {
    LH_JSON_NULL = 0,
    LH_JSON_BOOL,
    LH_JSON_NUMBER,
    LH_JSON_STRING,
    LH_JSON_ARRAY,
    LH_JSON_OBJECT
} lh_json_kind;

/* How deep arrays and objects may stand in each other. */
#define LH_JSON_DEPTH_MAX 128

/*
 * Reads a JSON text. Exactly RFC 8259, in UTF-8; strings may hold `\u0000`, and a surrogate without its other half is
 * an error. `invalid-request` says what is wrong, with line and column, and also if it is deeper than 128 levels.
 */
lh_error lh_json_parse(lh_str text, lh_json **value) LH_MUST_USE;

/*
 * Writes a value as a JSON text without white space. `invalid-request` if a string in it is not UTF-8, or if it is
 * deeper than 128 levels, as a value that was put into itself is. NULL is written as `null`.
 */
lh_error lh_json_write(const lh_json *value, lh_str *text) LH_MUST_USE;

/* Gives the kind of a value; that of NULL is `LH_JSON_NULL`. */
lh_json_kind lh_json_kind_of(const lh_json *value);

/* Names a kind, with its article: `a string`, `null`. */
const char *lh_json_kind_name(lh_json_kind kind);

/* Gives the member of an object; NULL if there is none or it is no object. The last one of a name counts. */
lh_json *lh_json_get(const lh_json *object, const char *name);

/* As `lh_json_get`, for a name that is not a literal. */
lh_json *lh_json_get_n(const lh_json *object, lh_str name);

/* Gives the entry of an array or the value of an object's member, by its index; NULL if there is none. */
lh_json *lh_json_at(const lh_json *value, size_t index);

/* Gives the name of an object's member by its index; none if there is none. */
lh_str lh_json_name(const lh_json *object, size_t index);

/* Gives the number of entries or members; 0 for every other kind. */
size_t lh_json_count(const lh_json *value);

/* Gives what a JSON Pointer (RFC 6901) such as `/choices/0/message` leads to; NULL if nothing. */
lh_json *lh_json_find(const lh_json *value, const char *pointer);

/* Gives a string's text; none if it is no string. */
lh_str lh_json_text(const lh_json *value);

/* Gives a number as it is written, such as `0.10`; none if it is no number. */
lh_str lh_json_number_text(const lh_json *value);

/* Read a value; false, and `out` as it was, if it is of another kind or does not fit. 3.0 and 1e2 are integers. */
bool lh_json_to_bool(const lh_json *value, bool *out);
bool lh_json_to_int(const lh_json *value, int64_t *out);
bool lh_json_to_uint(const lh_json *value, uint64_t *out);
bool lh_json_to_double(const lh_json *value, double *out);

/* Make a value in the job's memory; texts are copied. A double that is not finite becomes null. */
lh_json *lh_json_null(void);
lh_json *lh_json_bool(bool value);
lh_json *lh_json_int(int64_t value);
lh_json *lh_json_uint(uint64_t value);
lh_json *lh_json_double(double value);
lh_json *lh_json_str(lh_str value);
lh_json *lh_json_array(void);
lh_json *lh_json_object(void);

/* Makes a number as it is written, such as `0.10`; null if that is no JSON number. */
lh_json *lh_json_number(lh_str text);

/* Makes an array of strings. */
lh_json *lh_json_strs(lh_strs texts);

/*
 * Puts a value into an object, in place of one of that name, and gives the object back. The value becomes part of the
 * object. NULL puts null. It is a mistake that ends the job if `object` is no object.
 */
lh_json *lh_json_set(lh_json *object, const char *name, lh_json *value);

/* As `lh_json_set`, for a name that is not a literal; the name is copied. */
lh_json *lh_json_set_n(lh_json *object, lh_str name, lh_json *value);

/* Adds a value to the end of an array, and gives the array back. As `lh_json_set` otherwise. */
lh_json *lh_json_push(lh_json *array, lh_json *value);

/* ---- The agent ----------------------------------------------------------------------------------------- */

/*
 * What an agent is: takes the `input` of `job.submit` (ARCP §7.1), gives its result, or an error that ends the job.
 *
 * `*result` is NULL at first, which is the result null. After `lh_output_…` was used it is the summary of the streamed
 * result (ARCP §8.4): null or a string.
 */
typedef lh_error (*lh_run)(const lh_json *input, lh_json **result);

/* As `lh_run`, with JSON as text. `*result` is `null` at first. */
typedef lh_error (*lh_run_raw)(lh_str input, lh_str *result);

/* What LH_AGENT needs of the library. */
lh_error lh_agent_main(lh_str input, lh_str *result);
lh_error lh_answer(lh_str input, lh_str *result, lh_run run);

/* Makes a function the agent of this component. Stands once, after the function, at the end of a file. */
#define LH_AGENT(run)                                     \
    lh_error lh_agent_main(lh_str input, lh_str *result) { \
        return lh_answer(input, result, run);             \
    }

/* As LH_AGENT, for a function that takes and gives JSON as text, untouched. */
#define LH_AGENT_RAW(run)                                 \
    lh_error lh_agent_main(lh_str input, lh_str *result) { \
        lh_run_raw lh_run_ = (run);                       \
        return lh_run_(input, result);                    \
    }

/*
 * Read a field of the input. One that is missing or of another type is `invalid-request`, with a message for whoever
 * submitted the job: `input: path: is missing`, `input: path: expected a string, got a number`.
 */
lh_error lh_input_str(const lh_json *input, const char *name, lh_str *value) LH_MUST_USE;
lh_error lh_input_bool(const lh_json *input, const char *name, bool *value) LH_MUST_USE;
lh_error lh_input_int(const lh_json *input, const char *name, int64_t *value) LH_MUST_USE;
lh_error lh_input_uint(const lh_json *input, const char *name, uint64_t *value) LH_MUST_USE;
lh_error lh_input_double(const lh_json *input, const char *name, double *value) LH_MUST_USE;

/* As above, but what is missing or null, or an input that is null, leaves the value as it was: its default. */
lh_error lh_input_str_opt(const lh_json *input, const char *name, lh_str *value) LH_MUST_USE;
lh_error lh_input_bool_opt(const lh_json *input, const char *name, bool *value) LH_MUST_USE;
lh_error lh_input_int_opt(const lh_json *input, const char *name, int64_t *value) LH_MUST_USE;
lh_error lh_input_uint_opt(const lh_json *input, const char *name, uint64_t *value) LH_MUST_USE;
lh_error lh_input_double_opt(const lh_json *input, const char *name, double *value) LH_MUST_USE;

/* ---- Events (ARCP §8.2): need no grant ----------------------------------------------------------------- */

/*
 * Log what printf would print. The host stores an event before anyone sees it, cuts texts at its limit (default
 * 16 KiB), and lets an agent wait that tells more than can be stored.
 */
void lh_debug(const char *format, ...) LH_PRINTF(1, 2);
void lh_info(const char *format, ...) LH_PRINTF(1, 2);
void lh_warn(const char *format, ...) LH_PRINTF(1, 2);
void lh_log_error(const char *format, ...) LH_PRINTF(1, 2);

/* Tells the reasoning that explains what comes next. */
void lh_thought(const char *format, ...) LH_PRINTF(1, 2);

/*
 * Says that the job has entered `phase`; `message` may be none. `invalid-request` for the host's own phases
 * `back_pressure`, `credential_rotated` and `lease_expired`.
 */
lh_error lh_status(lh_str phase, lh_str message) LH_MUST_USE;

/* A number that is not known. */
#define LH_UNKNOWN UINT64_MAX

/*
 * Says how far the job has come (ARCP §8.2.1). `total` may be LH_UNKNOWN, `units` and `message` none.
 * `invalid-request` if `current` is over `total`.
 */
lh_error lh_progress(uint64_t current, uint64_t total, lh_str units, lh_str message) LH_MUST_USE;

/* Says that something was made; `size` may be LH_UNKNOWN, `sha256` (64 hexadecimal digits) none. */
lh_error lh_artifact(lh_str uri, lh_str content_type, uint64_t size, lh_str sha256) LH_MUST_USE;

/* Emits an event of the agent's own kind, `x-vendor.<vendor>.<name>`, whose body is an object. */
lh_error lh_vendor(lh_str kind, const lh_json *body) LH_MUST_USE;

/* ---- Metrics (ARCP §8.2, §9.6): need no grant ---------------------------------------------------------- */

/* A name and a value. */
typedef struct lh_pair {
    lh_str name;
    lh_str value;
} lh_pair;

/*
 * Reports a figure: an exact decimal in plain notation, such as `12.50`, of at most 28 significant digits. `unit` may
 * be none and is at most 32 bytes; `count` dimensions (at most 16 of 64 + 256 bytes) tell figures of one name apart.
 * `invalid-request` for anything else, a negative cost, and names under `cost.budget.`.
 */
lh_error lh_metric(lh_str name, lh_str value, lh_str unit, const lh_pair *dimensions, size_t count) LH_MUST_USE;

/*
 * Reports money spent: the metric `cost.NAME`, taken off the budget in `currency`. The cost that exhausts a budget is
 * accepted, and the next operation is refused with `budget-exhausted`. Money is never a float.
 */
lh_error lh_cost(lh_str name, lh_str amount, lh_str currency) LH_MUST_USE;

/* Writes a number in plain notation, as briefly as it can be read back; none if it is not finite. */
lh_str lh_decimal(double value);

/*
 * Compares two decimals in plain notation exactly: negative, zero or positive, as `a` is less than, equal to or greater
 * than `b`. What is no decimal counts as 0.
 */
int lh_decimal_compare(lh_str a, lh_str b);

/* ---- Output: a result too large to return (ARCP §8.4); needs no grant ---------------------------------- */

/*
 * Add to the result, as text or as bytes, which do not mix. `too-large` over the host's limit (default 256 MiB),
 * `invalid-request` after `lh_output_finish`. The host takes texts of any length and cuts them into chunks itself.
 */
lh_error lh_output_text(lh_str text) LH_MUST_USE;
lh_error lh_output_textf(const char *format, ...) LH_PRINTF(1, 2) LH_MUST_USE;
lh_error lh_output_bytes(lh_str bytes) LH_MUST_USE;

/* Ends the result; the host does so itself when the agent returns. */
lh_error lh_output_finish(void) LH_MUST_USE;

/* Gathers many small writes of one kind into few calls of the host, of 64 KiB each. */
typedef struct lh_writer {
    lh_text gathered;
    bool is_text;
} lh_writer;

/* Make a writer; nothing is written yet. Finish it with `lh_writer_finish`, or what it still holds is lost. */
lh_writer lh_text_writer(void);
lh_writer lh_bytes_writer(void);

/* Write. A text may be cut anywhere; its parts are put together before the host gets them. */
lh_error lh_write(lh_writer *writer, lh_str str) LH_MUST_USE;
lh_error lh_writef(lh_writer *writer, const char *format, ...) LH_PRINTF(2, 3) LH_MUST_USE;

/* Hands over what was gathered, so that watchers see it now. */
lh_error lh_writer_flush(lh_writer *writer) LH_MUST_USE;

/* Hands over the rest and ends the result. */
lh_error lh_writer_finish(lh_writer *writer) LH_MUST_USE;

/* ---- The job: needs no grant --------------------------------------------------------------------------- */

/* Gives the job's id, `job_` and a ULID (ARCP §7.1). */
lh_str lh_job_id(void);

/* Gives the agent as it was resolved at submission, `name@version` (ARCP §7.5). */
lh_str lh_job_agent(void);

/* Gives the W3C trace id, 32 hexadecimal digits (ARCP §11). */
lh_str lh_job_trace_id(void);

/* Gives when the lease ends, as RFC 3339 in UTC with milliseconds, or none (ARCP §9.5). */
lh_str lh_job_expires_at(void);

/* What is left of a currency. */
typedef struct lh_balance {
    lh_str currency;
    lh_str left; /* an exact decimal, which may be negative */
} lh_balance;

typedef struct lh_balances {
    lh_balance *ptr;
    size_t len;
} lh_balances;

/* Gives what is left of each currency of the budget; nothing if the lease has no `cost.budget` (ARCP §9.6). */
lh_balances lh_job_budget(void);

/* Gives what is left of one currency; none if the budget has none of it. */
lh_str lh_job_left(lh_str currency);

/* Gives the patterns the lease grants in a namespace such as `fs.read` (ARCP §9.2). */
lh_error lh_job_grants(lh_str name_space, lh_strs *patterns) LH_MUST_USE;

/*
 * Tells whether cancellation was asked for (ARCP §7.4). Once true it stays true, operations answer `cancelled`, and the
 * job is ended by force after the host's grace time (default 5 s).
 */
bool lh_job_cancel_requested(void);

/* Fails with `cancelled` once cancellation was asked for, so that LH_TRY ends a loop. */
lh_error lh_job_check_cancelled(void) LH_MUST_USE;

/* Sleeps, but no longer than a second once cancellation was asked for; then `cancelled`, and no other error. */
lh_error lh_job_sleep(uint64_t millis) LH_MUST_USE;

/* Reads an instant as the host writes it, in milliseconds since 1970; false for a text of another form. */
bool lh_timestamp_millis(lh_str timestamp, int64_t *millis);

/* ---- Files: `fs.read` and `fs.write` (ARCP §9.2) ------------------------------------------------------- */

/*
 * A path is absolute and names a place in the job's own tree. `//` and `.` collapse; `..` and symbolic links are
 * refused. Every function can fail with `lease-expired`, `budget-exhausted`, `permission-denied` and `cancelled`, in
 * addition to what it says itself.
 */
typedef enum lh_kind { LH_FILE = 0, LH_DIRECTORY, LH_OTHER /* a link, a device, a pipe: nothing opens it */ } lh_kind;

/* Names a kind: `file`, `directory`, `other`. */
const char *lh_kind_name(lh_kind kind);

typedef struct lh_metadata {
    lh_kind kind;
    uint64_t size; /* bytes for a file, 0 for everything else */
    lh_str modified;
} lh_metadata;

typedef struct lh_entry {
    lh_str path; /* whole, ready for `lh_fs_read` or `lh_fs_list` */
    lh_str name; /* its last part */
    lh_kind kind;
    uint64_t size;
} lh_entry;

typedef struct lh_entries {
    lh_entry *ptr;
    size_t len;
} lh_entries;

/*
 * Reads a whole file. Needs `fs.read` on `path`. `too-large` over the host's read limit (default 16 MiB), where
 * `lh_fs_open` is the way; `not-found`, `not-a-file`.
 */
lh_error lh_fs_read(lh_str path, lh_str *bytes) LH_MUST_USE;

/* Reads a whole file as UTF-8. As `lh_fs_read`, and `invalid-request` for a file that is something else. */
lh_error lh_fs_read_text(lh_str path, lh_str *text) LH_MUST_USE;

/*
 * Reads at most `length` bytes from `offset`. Needs `fs.read` on `path`. Fewer at the end of the file, none beyond it,
 * and never more than the host's read limit (default 16 MiB).
 */
lh_error lh_fs_read_range(lh_str path, uint64_t offset, uint64_t length, lh_str *bytes) LH_MUST_USE;

/*
 * Lists a directory in the order of its names. Needs `fs.read` on `path`. Names that are not UTF-8 are left out.
 * `too-large` over the host's limit (default 65,536 entries), `not-found`, `not-a-directory`.
 */
lh_error lh_fs_list(lh_str path, lh_entries *entries) LH_MUST_USE;

/* Describes a file or directory without opening it. Needs `fs.read` on `path`. `not-found`. */
lh_error lh_fs_stat(lh_str path, lh_metadata *metadata) LH_MUST_USE;

/*
 * Replaces a file's contents at once, or creates the file: a reader sees the old contents or the new. Needs `fs.write`
 * on `path`. `not-found` without its directory, `not-a-file`, `too-large` over the host's write limit (default 16 MiB).
 */
lh_error lh_fs_write(lh_str path, lh_str contents) LH_MUST_USE;

/* Adds to the end of a file, or creates it. As `lh_fs_write`, and `unknown-outcome` if the host stopped meanwhile. */
lh_error lh_fs_append(lh_str path, lh_str contents) LH_MUST_USE;

/* Creates a directory. Needs `fs.write` on `path`. `already-exists`, and `not-found` without its parent. */
lh_error lh_fs_create_dir(lh_str path) LH_MUST_USE;

/* Removes a file or an empty directory. Needs `fs.write` on `path`. `not-found`, `not-empty`. */
lh_error lh_fs_remove(lh_str path) LH_MUST_USE;

/* A file of any size that is read in parts of 256 KiB; the lease is asked for each part. Nothing has to be closed. */
typedef struct lh_file {
    lh_str path;
    uint64_t size; /* when it was opened */
    uint64_t next; /* where the next part begins */
    lh_text part;
    size_t taken;
    bool ended;
} lh_file;

/* Opens a file. Needs `fs.read` on `path`. `not-found`, `not-a-file`. */
lh_error lh_fs_open(lh_str path, lh_file *file) LH_MUST_USE;

/*
 * Reads the next line, without its line end (`\n` or `\r\n`); none after the last. It refers to the file, and is good
 * until the next read. A line may hold bytes that are not UTF-8.
 */
lh_error lh_file_line(lh_file *file, lh_str *line) LH_MUST_USE;

/* Reads at most `size` bytes into `buffer`; 0 `read` at the end. */
lh_error lh_file_read(lh_file *file, void *buffer, size_t size, size_t *read) LH_MUST_USE;

/*
 * Is given each entry of a walk. To leave out what a directory holds it sets `*skip`. An error ends the walk and
 * becomes its error.
 */
typedef lh_error (*lh_visit)(void *context, const lh_entry *entry, bool *skip);

/*
 * Walks a directory and all below it, at most 64 levels, in the order of names; a directory comes before what it holds.
 * Needs `fs.read` on each directory. One below the first that is refused is passed over; its entry was visited.
 */
lh_error lh_fs_walk(lh_str path, lh_visit visit, void *context) LH_MUST_USE;

/* ---- Calls under way ----------------------------------------------------------------------------------- */

/*
 * A call that goes on meanwhile, made by a `…_start`, `…_open`, `…_stream` or `…_watch`, and all zeros for none.
 *
 * It is owned by who started it: `…_finish` waits for its end and uses it up, also when it fails; `lh_call_drop` gives
 * it up. Copies name the same call, and are `invalid-request` once it is used up. What is under way when the agent
 * returns is given up. An agent has at most the host's number of calls under way (default 128).
 */
typedef struct lh_call {
    int32_t handle;
    uint32_t serial;
} lh_call;

/* Gives the `call_id` of its `tool_call` and `tool_result` events (ARCP §8.2); none if it is used up. */
lh_str lh_call_id(lh_call call);

/* Gives a call up: what can be stopped is stopped, and it costs what was held back for it. Does nothing to none. */
void lh_call_drop(lh_call *call);

/* Waits for ever. */
#define LH_FOREVER UINT64_MAX

/* No index. */
#define LH_NO_INDEX SIZE_MAX

/*
 * Waits until one of `count` calls has something to take: its end, or the next part of a stream. `*index` is the one
 * that had it first, or LH_NO_INDEX after `timeout_ms`, which may be LH_FOREVER. `invalid-request` for no calls at all.
 */
lh_error lh_wait_any(const lh_call *calls, size_t count, uint64_t timeout_ms, size_t *index) LH_MUST_USE;

/* ---- HTTP: `net.fetch` (ARCP §9.2) --------------------------------------------------------------------- */

typedef struct lh_headers {
    lh_pair *ptr;
    size_t len;
} lh_headers;

/* A request; make one with `lh_request_of`. It refers to the texts that are put into it. */
typedef struct lh_request {
    lh_str method;
    lh_str url;
    lh_headers headers;
    lh_str body;
    uint32_t redirects;  /* followed at most, each with a grant of its own; 0 gives the redirect itself */
    uint64_t timeout_ms; /* within the host's limit (default 60 s), which LH_FOREVER is */
} lh_request;

/* What came back. A status such as 404 is a response and no error. */
typedef struct lh_response {
    uint16_t status;
    lh_str url; /* where it came from, after redirects */
    lh_headers headers;
    lh_str body; /* bytes; empty for a stream */
} lh_response;

/* Makes a request without headers and body that follows ten redirects. */
lh_request lh_request_of(lh_str method, lh_str url);

/* Adds a header. The host sets `host`, `content-length` and what belongs to the connection. */
void lh_request_header(lh_request *request, lh_str name, lh_str value);

/* Sets a body of JSON, and says so in `content-type`. Fails as `lh_json_write` does. */
lh_error lh_request_json(lh_request *request, const lh_json *body) LH_MUST_USE;

/* Gets what is at a URL. As `lh_net_send` of a GET. */
lh_error lh_net_get(lh_str url, lh_response *response) LH_MUST_USE;

/*
 * Sends a request and waits for the whole response. Needs `net.fetch` on the URL. `timeout`, `too-large` over the
 * host's limit (default 16 MiB), `internal-error` if nobody answers.
 */
lh_error lh_net_send(const lh_request *request, lh_response *response) LH_MUST_USE;

/* Sends a request and goes on meanwhile. The errors of `lh_net_send` that are known at once. */
lh_error lh_net_start(const lh_request *request, lh_call *call) LH_MUST_USE;

/* Waits for the response of what `lh_net_start` or `lh_net_open` began; of a stream, without its body. */
lh_error lh_net_finish(lh_call *call, lh_response *response) LH_MUST_USE;

/* Sends a request whose response is read as it comes, and waits for its beginning. */
lh_error lh_net_open(const lh_request *request, lh_call *call, lh_response *head) LH_MUST_USE;

/* Waits for the next part of the body; none at its end. `internal-error` if the connection broke, `timeout`. */
lh_error lh_net_next(lh_call call, lh_str *part) LH_MUST_USE;

/* Gives the first value of a header, whatever the case of its name; none if there is none. */
lh_str lh_response_header(const lh_response *response, const char *name);

/* Reads the body as JSON; `invalid-request` if it is something else. */
lh_error lh_response_json(const lh_response *response, lh_json **value) LH_MUST_USE;

/* Makes an `internal-error` of a status that is not one of 200 to 299. */
lh_error lh_response_ok(const lh_response *response) LH_MUST_USE;

/* ---- Tools: `tool.call` (ARCP §9.2) -------------------------------------------------------------------- */

typedef struct lh_tool {
    lh_str name; /* such as `search.web` */
    lh_str description;
    lh_json *input_schema;  /* the JSON Schema of its arguments */
    lh_json *output_schema; /* the JSON Schema of its result, or NULL */
} lh_tool;

typedef struct lh_tools {
    lh_tool *ptr;
    size_t len;
} lh_tools;

/* Gives the tools that this lease covers, by name. Needs no grant. */
lh_error lh_tool_list(lh_tools *tools) LH_MUST_USE;

/*
 * Calls a tool with an object of arguments (NULL is `{}`). Needs `tool.call` on `name`. `not-found`; `invalid-request`
 * if the arguments do not fit its schema; `budget-exhausted` if its price is more than what is left; `internal-error` in
 * the tool's own words if it fails; `timeout`.
 */
lh_error lh_tool_call(lh_str name, const lh_json *arguments, lh_json **answer) LH_MUST_USE;

/* Starts a call of a tool. The errors of `lh_tool_call` that are known at once. */
lh_error lh_tool_start(lh_str name, const lh_json *arguments, lh_call *call) LH_MUST_USE;

/* Waits for what `lh_tool_start` began. */
lh_error lh_tool_finish(lh_call *call, lh_json **answer) LH_MUST_USE;

/* ---- Models: `model.use` (ARCP §9.7) ------------------------------------------------------------------- */

/* Gives the models that this lease covers, by name. Needs no grant. */
lh_error lh_model_list(lh_strs *models) LH_MUST_USE;

/* Asks a model one question and gives its answer's text. As `lh_model_complete`; `internal-error` without a text. */
lh_error lh_model_ask(lh_str model, lh_str question, lh_str *answer) LH_MUST_USE;

/*
 * Asks a model. `request` is the body of an OpenAI chat completion, without `model` and `stream`, and so is the answer.
 * Needs `model.use` on `model`. `not-found`; `invalid-request` naming the field; `budget-exhausted` if it might cost
 * more than is left; `internal-error` if the model's provider fails; `timeout`.
 */
lh_error lh_model_complete(lh_str model, const lh_json *request, lh_json **answer) LH_MUST_USE;

/* Starts what `lh_model_complete` does. */
lh_error lh_model_start(lh_str model, const lh_json *request, lh_call *call) LH_MUST_USE;

/* Waits for what `lh_model_start` or `lh_model_stream` began: the whole answer. */
lh_error lh_model_finish(lh_call *call, lh_json **answer) LH_MUST_USE;

/* Asks a model and takes the answer as it comes. */
lh_error lh_model_stream(lh_str model, const lh_json *request, lh_call *call) LH_MUST_USE;

/* Waits for the next `chat.completion.chunk`; NULL after the last. */
lh_error lh_model_next(lh_call call, lh_json **chunk) LH_MUST_USE;

/* Waits for the next words of the answer; none after the last. */
lh_error lh_model_next_text(lh_call call, lh_str *words) LH_MUST_USE;

/* Gives the text of an answer's first choice; none if it has none. */
lh_str lh_model_text(const lh_json *answer);

/* ---- Delegation: `agent.delegate` (ARCP §9.4, §10) ----------------------------------------------------- */

/* A task for another agent; make one with `lh_task_of`. It refers to what is put into it. */
typedef struct lh_task {
    lh_str agent; /* `name` or `name@version` */
    const lh_json *input;
    struct lh_grant *lease;
    lh_str expires_at;        /* when its lease ends, or none: with this one */
    uint32_t max_runtime_sec; /* 0: no limit of its own */
} lh_task;

/* Makes a task with the input null and no grant, and all that is left of this job's budget, if it has one. */
lh_task lh_task_of(lh_str agent);

/* Adds a pattern to a namespace of its lease, such as `fs.read` (ARCP §9.2). */
void lh_task_grant(lh_task *task, lh_str name_space, lh_str pattern);

/* Gives it so much of this job's budget, such as `USD:0.50` (ARCP §9.6). */
void lh_task_budget(lh_task *task, lh_str amount);

/*
 * Has a task done and waits for its result. Needs `agent.delegate` on the agent. `lease-subset-violation` if it asks
 * for more than this job may, `agent-not-available`, `budget-exhausted`; or the error with which the other job ended.
 */
lh_error lh_delegate_run(const lh_task *task, lh_json **result) LH_MUST_USE;

/* Starts a task. The errors of `lh_delegate_run` that are known at once. */
lh_error lh_delegate_start(const lh_task *task, lh_call *call) LH_MUST_USE;

/* Waits for the result of what `lh_delegate_start` or `lh_delegate_watch` began. */
lh_error lh_delegate_finish(lh_call *call, lh_json **result) LH_MUST_USE;

/* Starts a task and has its events come in. */
lh_error lh_delegate_watch(const lh_task *task, lh_call *call) LH_MUST_USE;

/* Gives the id of the job that does it. */
lh_error lh_delegate_job_id(lh_call call, lh_str *id) LH_MUST_USE;

/* Waits for the next event of that job, as `{"kind", "ts", "body"}`; NULL once it has ended. */
lh_error lh_delegate_next_event(lh_call call, lh_json **event) LH_MUST_USE;

/* ---- Finishing several calls --------------------------------------------------------------------------- */

/* How a call ended. */
typedef struct lh_outcome {
    lh_error error;
    lh_json *answer;      /* of a tool, a model or a task; NULL otherwise */
    lh_response response; /* of a request; all zeros otherwise */
} lh_outcome;

/* Waits for the end of a call of any kind. */
lh_outcome lh_call_finish(lh_call *call);

/* Waits for all of some calls, and gives `count` outcomes in their order. */
lh_outcome *lh_finish_all(lh_call *calls, size_t count);

#ifdef __cplusplus
}
#endif

#endif
