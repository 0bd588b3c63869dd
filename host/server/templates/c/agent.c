/* Counts the lines and words of a text file, and finds its longest word. */
#include <leasehold.h>

#include "count.h"

static lh_error run(const lh_json *input, lh_json **result) {
    lh_str path, text;
    LH_TRY(lh_input_str(input, "path", &path));
    lh_info("reading " LH_FMT, LH_ARG(path));
    // The one line that needs a grant: `fs.read` on the path. Without it the
    // host answers `permission-denied`, and LH_TRY ends the job with that.
    LH_TRY(lh_fs_read_text(path, &text));
    LH_TRY(lh_progress(1, 2, LH("steps"), LH("read")));
    struct report report = examine(text.ptr, text.len);
    LH_TRY(lh_progress(2, 2, LH("steps"), LH("counted")));

    *result = lh_json_object();
    lh_json_set(*result, "lines", lh_json_uint(report.lines));
    lh_json_set(*result, "words", lh_json_uint(report.words));
    lh_json_set(*result, "longest", lh_json_str(lh_str_n(report.longest, report.longest_len)));
    return lh_ok();
}

LH_AGENT(run)
