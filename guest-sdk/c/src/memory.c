/*
 * The job's memory: small things in chunks, one after the other, and blocks of malloc for what is large, what grows and
 * what the host hands over. A scope is a mark in both.
 */
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

#define CHUNK_SIZE ((size_t)16 << 10)

/* What is larger has a block of its own, so that little of a chunk is left over. */
#define SMALL_MAX ((size_t)2 << 10)

typedef struct lh_chunk {
    struct lh_chunk *before;
    alignas(max_align_t) char bytes[CHUNK_SIZE];
} lh_chunk;

static struct {
    lh_chunk *chunk;
    size_t used;
    lh_owned *owned;
} memory;

void *lhi_alloc(size_t size, size_t align) {
    if (size > SMALL_MAX) {
        return lhi_resize(lhi_own(), size);
    }
    size_t from = (memory.used + align - 1) & ~(align - 1);
    if (memory.chunk == NULL || from + size > CHUNK_SIZE) {
        lh_chunk *chunk = malloc(sizeof *chunk);
        if (chunk == NULL) {
            lhi_out_of_memory(sizeof *chunk);
        }
        chunk->before = memory.chunk;
        memory.chunk = chunk;
        from = 0;
    }
    memory.used = from + size;
    return memory.chunk->bytes + from;
}

void *lh_alloc(size_t size) {
    void *block = lhi_alloc(size, alignof(max_align_t));
    memset(block, 0, size);
    return block;
}

lh_owned *lhi_own(void) {
    lh_owned *owned = lhi_alloc(sizeof *owned, alignof(lh_owned));
    owned->before = memory.owned;
    owned->block = NULL;
    memory.owned = owned;
    return owned;
}

void *lhi_resize(lh_owned *owned, size_t size) {
    void *block = realloc(owned->block, size);
    if (block == NULL) {
        lhi_out_of_memory(size);
    }
    owned->block = block;
    return block;
}

lh_scope lh_enter(void) {
    lh_scope scope = { memory.chunk, memory.used, memory.owned };
    return scope;
}

void lh_leave(lh_scope scope) {
    while (memory.owned != scope.owned) {
        free(memory.owned->block);
        memory.owned = memory.owned->before;
    }
    while (memory.chunk != scope.chunk) {
        lh_chunk *before = memory.chunk->before;
        free(memory.chunk);
        memory.chunk = before;
    }
    memory.used = scope.used;
}

lh_error lh_leave_with(lh_scope scope, lh_error error) {
    // Kept outside of the job's memory for a moment, because the scope may end in any chunk.
    size_t len = error.message.len;
    char *kept = len == 0 ? NULL : malloc(len);
    if (len > 0 && kept == NULL) {
        lhi_out_of_memory(len);
    }
    if (kept != NULL) {
        memcpy(kept, error.message.ptr, len);
    }
    lh_leave(scope);
    if (kept != NULL) {
        error.message = lh_copy(lh_str_n(kept, len));
        free(kept);
    }
    return error;
}

void lhi_out_of_memory(size_t size) {
    lh_panic("out of memory: there is no room for %zu bytes more", size);
}

void lh_panic(const char *format, ...) {
    // No memory is asked for: it may be out.
    static char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    lhi_mend(text);
    agent_string_t message = lhi_show(lh_str_of(text));
    fflush(stdout);
    leasehold_agent_events_log(LEASEHOLD_AGENT_EVENTS_LEVEL_ERROR, &message);
    abort();
}

#ifdef __wasm__
/*
 * Where the host puts what it gives. The generated one is weak; this one adds a NUL to each block, so that texts of the
 * host end as libc likes them to. The host is in the middle of a call here: nothing may be said, so running out of
 * memory is a trap.
 */
__attribute__((__export_name__("cabi_realloc"))) void *cabi_realloc(void *ptr, size_t old, size_t align, size_t size) {
    (void)old;
    if (size == 0) {
        return (void *)align;
    }
    char *block = realloc(ptr, size + 1);
    if (block == NULL) {
        abort();
    }
    block[size] = '\0';
    return block;
}
#endif
