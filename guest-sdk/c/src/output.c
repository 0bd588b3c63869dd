/* The streamed result. */
#include "internal.h"

/* How much a writer gathers before it calls the host. */
#define GATHERED_MAX ((size_t)64 << 10)

lh_error lh_output_text(lh_str text) {
    LH_TRY(lhi_check(text, "output"));
    agent_string_t shown = lhi_show(text);
    agent_error_t error;
    return leasehold_agent_output_write_text(&shown, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_output_textf(const char *format, ...) {
    lh_scope scope = lh_enter();
    va_list arguments;
    va_start(arguments, format);
    lh_error error = lh_output_text(lhi_format(format, arguments));
    va_end(arguments);
    return lh_leave_with(scope, error);
}

lh_error lh_output_bytes(lh_str bytes) {
    agent_list_u8_t shown = lhi_show_bytes(bytes);
    agent_error_t error;
    return leasehold_agent_output_write_bytes(&shown, &error) ? lh_ok() : lhi_error(error);
}

lh_error lh_output_finish(void) {
    agent_error_t error;
    return leasehold_agent_output_finish(&error) ? lh_ok() : lhi_error(error);
}

lh_writer lh_text_writer(void) {
    lh_writer writer = { lh_text_new(), true };
    return writer;
}

lh_writer lh_bytes_writer(void) {
    lh_writer writer = { lh_text_new(), false };
    return writer;
}

/* How many bytes at the end of a text begin a character that is not all there. */
static size_t begun(lh_str text) {
    for (size_t back = 1; back <= 3 && back <= text.len; back++) {
        unsigned char c = (unsigned char)text.ptr[text.len - back];
        if (c >= 0xC0) {
            size_t len = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
            return len > back ? back : 0;
        } else if (c < 0x80) {
            return 0;
        }
    }
    return 0;
}

/* Hands over what was gathered but for its last `kept` bytes. */
static lh_error send(lh_writer *writer, size_t kept) {
    lh_text *gathered = &writer->gathered;
    if (gathered->len == kept) {
        return lh_ok();
    }
    lh_str whole = lh_str_n(gathered->ptr, gathered->len - kept);
    lh_error error = writer->is_text ? lh_output_text(whole) : lh_output_bytes(whole);
    // What was refused once is not tried again with what comes after it.
    memmove(gathered->ptr, gathered->ptr + whole.len, kept);
    gathered->len = kept;
    return error;
}

lh_error lh_write(lh_writer *writer, lh_str str) {
    lh_text_add(&writer->gathered, str);
    if (writer->gathered.len < GATHERED_MAX) {
        return lh_ok();
    }
    return send(writer, writer->is_text ? begun(lh_text_str(&writer->gathered)) : 0);
}

lh_error lh_writef(lh_writer *writer, const char *format, ...) {
    lh_scope scope = lh_enter();
    va_list arguments;
    va_start(arguments, format);
    lh_error error = lh_write(writer, lhi_format(format, arguments));
    va_end(arguments);
    return lh_leave_with(scope, error);
}

lh_error lh_writer_flush(lh_writer *writer) {
    return send(writer, writer->is_text ? begun(lh_text_str(&writer->gathered)) : 0);
}

lh_error lh_writer_finish(lh_writer *writer) {
    LH_TRY(send(writer, 0));
    return lh_output_finish();
}
