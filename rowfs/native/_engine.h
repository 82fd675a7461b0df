/* The engine's objects, as they are looked at without Python. Trio thread, GIL held.
 *
 * C keeps no table and no copy of its own: for each request it looks at the very objects that the engine uses (handle ->
 * disk -> head -> page), so there is nothing to invalidate, and a snapshot, a rollback or a commit takes effect for C with
 * the same store as for Python. Objects that are named in `struct engine` are the same for as long as a pool is served.
 *
 * Where anything is missing, these functions say no and leave Python's error for `hotpath_try` to clear.
 */
#ifndef ROWFS_ENGINE_H
#define ROWFS_ENGINE_H

#include "_base.h"

enum {
    RECENT_BLOCKS_MAX = 16, /* rowfs.store.diskio: with more of them, one more is told and no addresses */
    OWNED = 1, /* rowfs.store.model.OWNED */
};

/* Where the journal stands: rowfs.persist.journal.State, which lies in Python's memory. */
struct journal {
    int64_t fd, next, ready_bytes, is_lost, wanted, crowded;
    uint64_t nonce, commit;
    int64_t records, durable, home, holds_data, under_way;
};

/* What the extension answers from. Without `handles` everything is left to Python. */
extern struct engine {
    PyObject *handles; /* dict: fh -> Handle */
    PyObject *pool, *commits, *versions, *io, *space, *sums, *zeros, *committer, *set_time;
    PyObject *disk_type, *snapshot_type, *dirty;
    int data_fd;
    Py_buffer recent_view;
    Py_buffer reach_view;
    int64_t *reach; /* DataFile.reach: where the data file ends, or before, unless somebody cut it off */
    int64_t *recent; /* DiskIO.recent: how many blocks were written since the last sync began, and their addresses */
    PyObject *unjournaled; /* DiskIO.unjournaled: a set of disks and pages, what the journal's next record has to hold */
    Py_buffer journal_view;
    struct journal *journal;
} engine;

/* Names of attributes and methods. */
#define NAMES(name)                                                                                                    \
    name(addresses) name(begin_read) name(branch) name(changed_ns) name(claim) name(damage) name(deleted)              \
    name(dirty_pages) name(end) name(epoch) name(failed) name(floor) name(head) name(id) name(index) name(map_behind)  \
    name(mapped_blocks) name(modified_ns) name(next) name(others_changed) name(own) name(owned) name(pages)            \
    name(point) name(read_only) name(rows) name(running) name(shortage) name(size_bytes) name(soft_pages) name(state)  \
    name(sync) name(syncing) name(table) name(target) name(unsynced) name(used) name(watched) name(written_blocks)
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

/* The arguments of Python's `serve` (_native.c): answer from these objects from now on. False: Python's error says why. */
bool engine_serve(PyObject *args);
bool engine_data_cut_off(void);
/* From now on everything is left to Python. */
void engine_stop(void);

#endif
