/* Files. */
#include <stdalign.h>

#include "internal.h"

/* How much a file reader asks for at a time. */
#define PART_SIZE ((uint64_t)256 << 10)

/* How deep a walk goes. */
#define LEVELS_MAX 64

_Static_assert((int)LH_FILE == LEASEHOLD_AGENT_FS_KIND_FILE && (int)LH_DIRECTORY == LEASEHOLD_AGENT_FS_KIND_DIRECTORY
                   && (int)LH_OTHER == LEASEHOLD_AGENT_FS_KIND_OTHER,
               "as in the contract");

const char *lh_kind_name(lh_kind kind) {
    switch (kind) {
        case LH_FILE: return "file";
        case LH_DIRECTORY: return "directory";
        case LH_OTHER: break;
    }
    return "other";
}

lh_error lh_fs_read(lh_str path, lh_str *bytes) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    agent_list_u8_t list;
    agent_error_t error;
    if (!leasehold_agent_fs_read(&shown, &list, &error)) {
        return lhi_error(error);
    }
    *bytes = lhi_take_bytes(list);
    return lh_ok();
}

lh_error lh_fs_read_text(lh_str path, lh_str *text) {
    lh_str bytes;
    LH_TRY(lh_fs_read(path, &bytes));
    if (!lh_is_utf8(bytes)) {
        return lh_fail(LH_INVALID_REQUEST, LH_FMT " is not UTF-8", LH_ARG(path));
    }
    *text = bytes;
    return lh_ok();
}

lh_error lh_fs_read_range(lh_str path, uint64_t offset, uint64_t length, lh_str *bytes) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    agent_list_u8_t list;
    agent_error_t error;
    if (!leasehold_agent_fs_read_range(&shown, offset, length, &list, &error)) {
        return lhi_error(error);
    }
    *bytes = lhi_take_bytes(list);
    return lh_ok();
}

lh_error lh_fs_list(lh_str path, lh_entries *entries) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    leasehold_agent_fs_list_entry_t list;
    agent_error_t error;
    if (!leasehold_agent_fs_list(&shown, &list, &error)) {
        return lhi_error(error);
    }
    while (path.len > 0 && path.ptr[path.len - 1] == '/') {
        path.len--;
    }
    entries->ptr = lhi_alloc(list.len * sizeof *entries->ptr, alignof(lh_entry));
    entries->len = list.len;
    for (size_t i = 0; i < list.len; i++) {
        lh_entry *entry = &entries->ptr[i];
        entry->name = lhi_take(list.ptr[i].name);
        entry->kind = (lh_kind)list.ptr[i].kind;
        entry->size = list.ptr[i].size;
        // Put together by hand: a name may hold what printf would stop at.
        char *whole = lhi_alloc(path.len + entry->name.len + 2, 1);
        memcpy(whole, path.ptr, path.len);
        whole[path.len] = '/';
        memcpy(whole + path.len + 1, entry->name.ptr, entry->name.len);
        entry->path = lh_str_n(whole, path.len + 1 + entry->name.len);
        whole[entry->path.len] = '\0';
    }
    lhi_free_array(list.ptr, list.len);
    return lh_ok();
}

lh_error lh_fs_stat(lh_str path, lh_metadata *metadata) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    leasehold_agent_fs_metadata_t stat;
    agent_error_t error;
    if (!leasehold_agent_fs_stat(&shown, &stat, &error)) {
        return lhi_error(error);
    }
    metadata->kind = (lh_kind)stat.kind;
    metadata->size = stat.size;
    metadata->modified = lhi_take(stat.modified);
    return lh_ok();
}

lh_error lh_fs_write(lh_str path, lh_str contents) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    agent_list_u8_t bytes = lhi_show_bytes(contents);
    agent_error_t error;
    return leasehold_agent_fs_write(&shown, &bytes, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_fs_append(lh_str path, lh_str contents) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    agent_list_u8_t bytes = lhi_show_bytes(contents);
    agent_error_t error;
    return leasehold_agent_fs_append(&shown, &bytes, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_fs_create_dir(lh_str path) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    agent_error_t error;
    return leasehold_agent_fs_create_dir(&shown, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_fs_remove(lh_str path) {
    LH_TRY(lhi_check(path, "path"));
    agent_string_t shown = lhi_show(path);
    agent_error_t error;
    return leasehold_agent_fs_remove(&shown, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_fs_open(lh_str path, lh_file *file) {
    lh_metadata metadata;
    LH_TRY(lh_fs_stat(path, &metadata));
    if (metadata.kind != LH_FILE) {
        return lh_fail(LH_NOT_A_FILE, LH_FMT " is not a file", LH_ARG(path));
    }
    lh_file opened = { lh_copy(path), metadata.size, 0, lh_text_new(), 0, false };
    *file = opened;
    return lh_ok();
}

/* Adds the next part to what is not taken yet. */
static lh_error fill(lh_file *file) {
    lh_text *part = &file->part;
    if (file->taken > 0) {
        memmove(part->ptr, part->ptr + file->taken, part->len - file->taken);
        part->len -= file->taken;
        file->taken = 0;
    }
    lh_scope scope = lh_enter();
    lh_str bytes = LH("");
    lh_error error = lh_fs_read_range(file->path, file->next, PART_SIZE, &bytes);
    if (error.code == LH_OK) {
        lh_text_add(part, bytes);
        file->next += bytes.len;
        file->ended = bytes.len == 0;
    }
    return lh_leave_with(scope, error);
}

lh_error lh_file_line(lh_file *file, lh_str *line) {
    for (size_t looked = 0;;) {
        char *from = file->part.ptr == NULL ? NULL : file->part.ptr + file->taken;
        size_t left = file->part.len - file->taken;
        char *end = left == looked ? NULL : memchr(from + looked, '\n', left - looked);
        if (end == NULL && !file->ended) {
            looked = left;
            LH_TRY(fill(file));
            continue;
        }
        if (end == NULL && left == 0) {
            *line = LH_NONE;
            return lh_ok();
        }
        size_t len = end == NULL ? left : (size_t)(end - from);
        file->taken += end == NULL ? len : len + 1;
        len -= len > 0 && end != NULL && from[len - 1] == '\r';
        from[len] = '\0';
        *line = lh_str_n(from, len);
        return lh_ok();
    }
}

lh_error lh_file_read(lh_file *file, void *buffer, size_t size, size_t *read) {
    if (file->part.len == file->taken && !file->ended) {
        LH_TRY(fill(file));
    }
    size_t left = file->part.len - file->taken;
    *read = left < size ? left : size;
    if (*read > 0) {
        memcpy(buffer, file->part.ptr + file->taken, *read);
    }
    file->taken += *read;
    return lh_ok();
}

static lh_error walk(lh_entries entries, lh_visit visit, void *context, int level) {
    for (size_t i = 0; i < entries.len; i++) {
        const lh_entry *entry = &entries.ptr[i];
        bool skip = false;
        LH_TRY(visit(context, entry, &skip));
        if (entry->kind != LH_DIRECTORY || skip || level == LEVELS_MAX) {
            continue;
        }
        // What a directory holds is forgotten once it was walked through.
        lh_scope scope = lh_enter();
        lh_entries inner;
        lh_error error = lh_fs_list(entry->path, &inner);
        if (error.code == LH_OK) {
            error = walk(inner, visit, context, level + 1);
        } else if (!lh_ends_the_job(error.code)) {
            error = lh_ok();
        }
        LH_TRY(lh_leave_with(scope, error));
    }
    return lh_ok();
}

lh_error lh_fs_walk(lh_str path, lh_visit visit, void *context) {
    lh_entries entries;
    LH_TRY(lh_fs_list(path, &entries));
    return walk(entries, visit, context, 1);
}
