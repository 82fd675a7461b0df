/* The engine's objects, as the hot path looks at them. Trio thread, GIL held.
 *
 * Where anything is missing, these functions say no and leave Python's error for `hotpath_try` to clear.
 */
#ifndef ROWFS_ENGINE_H
#define ROWFS_ENGINE_H

#include "_native.h"

enum {
    RECENT_BLOCKS_MAX = 16, /* rowfs.store.diskio: with more of them, one more is told and no addresses */
    PAGE_BLOCKS = 512,
    OWNED = 1, /* rowfs.store.model.OWNED */
};

/* What the extension answers from. Without `handles` everything is left to Python. */
extern struct engine {
    PyObject *handles; /* dict: fh -> Handle */
    PyObject *pool, *commits, *versions, *io, *space, *sums, *zeros, *committer, *set_time, *disk_type, *snapshot_type, *dirty;
    int data_fd;
    Py_buffer recent_view;
    int64_t *recent; /* DiskIO.recent: how many blocks were written since the last sync began, and their addresses */
} engine;

/* Names of attributes and methods. */
#define NAMES(name)                                                                                                    \
    name(addresses) name(begin_read) name(begin_record) name(claim) name(damage) name(dirty_pages) name(end)           \
    name(epoch) name(failed) name(floor) name(head) name(map_changed) name(next) name(own) name(owned) name(pages)     \
    name(point) name(read_only) name(rows) name(running) name(shortage) name(size_bytes) name(soft_pages) name(state) name(sync)  \
    name(syncing) name(table) name(target) name(unsynced) name(used)
#define NAME(text) PyObject *text;
extern struct names {
    NAMES(NAME)
} names;
#undef NAME

bool get_number(PyObject *object, PyObject *name, long long *number);
/* Whether the attribute is this very object. */
bool is(PyObject *object, PyObject *name, PyObject *wanted);

/* The handle's disk or snapshot if `offset` and `size` are blocks within it, else NULL. */
PyObject *target_of(uint64_t fh, uint64_t offset, size_t size, bool writing);

/* The page of a point that holds a block, if it is in memory: borrowed from `pages`. */
PyObject *page_of(PyObject *pages, uint64_t block);
/* How many of the blocks from `block` to `end` are in its page. */
size_t in_page(uint64_t block, uint64_t end);

/* The addresses and owned flags of a page. */
struct view {
    Py_buffer addresses, owned;
};

bool look(PyObject *page, struct view *view);
void look_away(struct view *view);

/* Adds where the blocks of a page from `slot` on lie to `runs`. */
void add_runs(const struct view *view, size_t slot, size_t blocks, struct run *runs, size_t *count, size_t start);
/* Where a range of a point lies: how many runs, 0 when it is left to Python. */
size_t plan(PyObject *point, uint64_t offset, size_t size, struct run *runs);

/* _verify.c: let go of what is held of the sums. */
void verify_stop(void);

#endif
