/* What the files of the library share, and agents do not see. */
#ifndef LEASEHOLD_INTERNAL_H
#define LEASEHOLD_INTERNAL_H

#include <leasehold.h>
#include <stdarg.h>

#include "../generated/agent.h"

/* ---- Memory (memory.c) ---- */

/* A block of malloc that ends with its scope. */
typedef struct lh_owned {
    struct lh_owned *before;
    void *block;
} lh_owned;

/* Gives memory of the scope, not zeroed. */
void *lhi_alloc(size_t size, size_t align);

/* Makes an empty block that belongs to the scope of now, wherever it grows. */
lh_owned *lhi_own(void);

/* Gives a block another size. */
void *lhi_resize(lh_owned *owned, size_t size);

/* Says that memory is out, and ends the job. */
void lhi_out_of_memory(size_t size) __attribute__((__noreturn__));

/* ---- Between texts and bindings (text.c) ---- */

/* Takes over what the host allocated. A NUL follows it: see `cabi_realloc`. */
lh_str lhi_take(agent_string_t string);
lh_str lhi_take_bytes(agent_list_u8_t bytes);
lh_strs lhi_take_strs(agent_list_string_t strings);

/* Frees an array that the host allocated, whose entries were taken. */
void lhi_free_array(void *ptr, size_t len);

/* Takes over an error of the host. */
lh_error lhi_error(agent_error_t error);

/* Shows bytes to the host, or a text that is known to be UTF-8. */
agent_string_t lhi_show(lh_str str);
agent_list_u8_t lhi_show_bytes(lh_str bytes);

/* Checks that a text is UTF-8 before the host sees it, which ends an agent whose texts are something else. */
lh_error lhi_check(lh_str str, const char *what) LH_MUST_USE;

/* Gives a text that is UTF-8: `str` itself, or a copy with U+FFFD for each byte that is not. */
lh_str lhi_lossy(lh_str str);

/* Puts a `?` in place of each byte of a string that is not UTF-8, where no memory may be asked for. */
void lhi_mend(char *string);

/* `lh_format` with a list of arguments. */
lh_str lhi_format(const char *format, va_list arguments);

/* ---- Calls under way (calls.c) ---- */

/* What made a call. */
typedef enum lhi_maker { LHI_NET = 1, LHI_TOOL = 2, LHI_MODEL = 4, LHI_TASK = 8 } lhi_maker;

/* Notes a call that has begun. */
lh_call lhi_begun(leasehold_agent_calls_own_pending_call_t call, lhi_maker maker);

/* Finds a call to ask something of it. */
lh_error lhi_borrow(lh_call call, lhi_maker maker, leasehold_agent_calls_borrow_pending_call_t *borrowed) LH_MUST_USE;

/* Takes a call to finish it; it is used up from then on. */
lh_error lhi_use_up(lh_call *call, lhi_maker maker, leasehold_agent_calls_own_pending_call_t *own) LH_MUST_USE;

/* ---- JSON of the host's (json.c) ---- */

/* Reads what the host gave. */
lh_error lhi_answer(agent_string_t text, lh_json **value) LH_MUST_USE;

#endif
