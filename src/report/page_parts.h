/* The files of report/page/ and the plotting library, built into the program (scripts/embed-text).
 * NUL-terminated. Private to report/. */
#pragma once

extern const char page_head_text[];   /* page/page.html: everything before the scripts */
extern const char page_charts_text[]; /* Chart.js, minified, with its licence line */
extern const char page_script_text[]; /* page/page.js */
