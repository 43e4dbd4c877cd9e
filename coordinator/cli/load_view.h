#ifndef SHOAL_CLI_LOAD_VIEW_H
#define SHOAL_CLI_LOAD_VIEW_H

/* A cluster that comes up, as people see it: its state, then for each worker and for all of them
 * how many bytes are loaded, how fast, and how long it will take.
 *
 * On a terminal of its own the lines are drawn in place, with bars, and removed in the end;
 * elsewhere they are written again every five seconds. Owner: the thread that made it.
 */
#include "coordinator/cluster/cluster.h"

#include <stdio.h>

enum load_view_style { LOAD_VIEW_BARS, LOAD_VIEW_LINES };

struct load_view;
/* `out` is borrowed for life; now_ns as in load_view_update. */
struct load_view *load_view_create(FILE *out, enum load_view_style style, int64_t now_ns);
void load_view_destroy(struct load_view *view); /* removes the bars; NULL is legal */
/* A new snapshot, about four times a second; now_ns of the monotonic clock. */
void load_view_update(struct load_view *view, const struct cluster_status *status, int64_t now_ns);

#endif
