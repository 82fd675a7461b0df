/* Writes of whole blocks. */
#include "_writes.h"

#include "_engine.h"
#include "_transfer.h"
#include "_workers.h"

#include <string.h>

enum {
    WRITEBACK_RUN_BYTES_MIN = 128 << 10, /* in the mean */
    ZEROS_MAX = 64,                      /* runs of blocks of zeros that are noted before Python is told */
};

/* What was written to new places of one head, and Python has not been told. */
static struct {
    PyObject *disk, *head; /* NULL: nothing */
    bool watched;          /* Branch.watched: Python also notes which pages let go of something */
    PyObject *pages;       /* a list, with a page as often as it was written to */
    long long first, next, end; /* written are the addresses [first, next); the claim ends at `end` */
    Py_ssize_t holes;      /* of these, how many the disk had holes for */
} placed;

static void tell(void) {
    PyObject *told, *type, *value, *trace;

    PyErr_Fetch(&type, &value, &trace); /* of something that is about to be left to Python */
    told = PyObject_CallMethod(engine.io, "placed", "OOOLLn", placed.disk, placed.head, placed.pages, placed.first,
                               placed.next - placed.first, placed.holes);
    if (told == NULL) { /* pages have blocks that are not taken: that must never be durable */
        PyErr_WriteUnraisable(engine.io);
        told = PyObject_CallMethod(engine.commits, "fail", "s", "what was written could not be accounted for");
        if (told == NULL)
            PyErr_WriteUnraisable(engine.commits);
    }
    Py_XDECREF(told);
    PyErr_Restore(type, value, trace);
}

/* Which blocks came as zeros, and Python has not been told: it makes holes of them later (rowfs.store.zeros). */
static struct {
    PyObject *disk;
    unsigned long long block;
    size_t blocks;
} zeros[ZEROS_MAX];
static size_t zeros_count;

static void tell_zeros(void) {
    PyObject *type, *value, *trace;

    PyErr_Fetch(&type, &value, &trace);
    for (size_t i = 0; i < zeros_count; i++) {
        PyObject *told = PyObject_CallMethod(engine.zeros, "note_run", "OKn", zeros[i].disk, zeros[i].block,
                                             (Py_ssize_t)zeros[i].blocks);

        if (told == NULL) /* they stay data */
            PyErr_WriteUnraisable(engine.zeros);
        Py_XDECREF(told);
        Py_CLEAR(zeros[i].disk);
    }
    zeros_count = 0;
    PyErr_Restore(type, value, trace);
}

static void note_zero(PyObject *disk, uint64_t block) {
    size_t last = zeros_count - 1; /* if there is any */

    if (zeros_count && zeros[last].disk == disk && zeros[last].block + zeros[last].blocks == block) {
        zeros[last].blocks++;
        return;
    }
    if (zeros_count == ZEROS_MAX)
        tell_zeros();
    zeros[zeros_count].disk = Py_NewRef(disk);
    zeros[zeros_count].block = block;
    zeros[zeros_count++].blocks = 1;
}

void writes_tell(void) {
    if (zeros_count)
        tell_zeros();
    if (placed.head == NULL)
        return;
    if (placed.next > placed.first)
        tell();
    Py_CLEAR(placed.disk);
    Py_CLEAR(placed.head);
    Py_CLEAR(placed.pages);
}

void writes_tell_of_watched(void) {
    if (placed.head != NULL && placed.watched)
        writes_tell();
}

struct unaccounted writes_unaccounted(PyObject *disk) {
    struct unaccounted none = {0, 0};

    return disk != placed.disk ? none : (struct unaccounted){placed.holes, placed.next - placed.first};
}

static bool begin_placing(PyObject *disk, PyObject *head) {
    PyObject *claim;
    bool known;

    writes_tell();
    claim = PyObject_GetAttr(head, names.claim);
    placed.watched = !is(head, names.watched, Py_False);
    known = claim != NULL && get_number(claim, names.next, &placed.next) && get_number(claim, names.end, &placed.end);
    Py_XDECREF(claim);
    if (!known || placed.next >= placed.end || (placed.pages = PyList_New(0)) == NULL)
        return false;
    placed.first = placed.next;
    placed.holes = 0;
    placed.disk = Py_NewRef(disk);
    placed.head = Py_NewRef(head);
    return true;
}

static bool store_in_turn(const struct run *runs, size_t count, const char *data, size_t size) {
    bool stored;

    if (engine_data_cut_off())
        return false;
    if (size < LARGE_BYTES) {
        stored = store(engine.data_fd, runs, count, data);
    } else {
        Py_BEGIN_ALLOW_THREADS
        stored = store(engine.data_fd, runs, count, data);
        Py_END_ALLOW_THREADS
    }
    for (size_t i = 0; stored && i < count; i++)
        if (runs[i].position + (off_t)runs[i].length > *engine.reach)
            *engine.reach = runs[i].position + (off_t)runs[i].length;
    return stored;
}

/* Blocks were written that the next sync has to make durable: as DiskIO._wrote. */
static void note_written(const struct run *run) {
    int64_t *recent = engine.recent, first = run->position / BLOCK_BYTES, count = run->length / BLOCK_BYTES;

    if (recent[0] + count > RECENT_BLOCKS_MAX) {
        recent[0] = RECENT_BLOCKS_MAX + 1;
        return;
    }
    for (int64_t at = 0; at < count; at++)
        recent[1 + recent[0] + at] = first + at;
    recent[0] += count;
}

/* Write blocks of which the page owns none to where the claim goes on. False: nothing was changed. */
static bool place(PyObject *disk, PyObject *head, PyObject *page, struct view *view, size_t slot, size_t blocks,
                  const char *data) {
    int64_t *addresses = view->addresses.buf;
    struct run run = {.length = blocks * BLOCK_BYTES};

    if (placed.head != head && !begin_placing(disk, head))
        return false;
    if (placed.end - placed.next < (long long)blocks || PyList_Append(placed.pages, page) != 0 ||
        PySet_Add(engine.unjournaled, disk) != 0 || PySet_Add(engine.unjournaled, page) != 0)
        return false;
    run.position = (off_t)placed.next * BLOCK_BYTES;
    if (!store_in_turn(&run, 1, data, run.length))
        return false;
    note_written(&run);
    for (size_t at = slot; at < slot + blocks; at++) {
        placed.holes += addresses[at] == 0;
        addresses[at] = placed.next++;
    }
    memset((char *)view->owned.buf + slot, OWNED, blocks);
    return true;
}

/* Overwrite blocks that the head owns. */
static bool overwrite(const struct view *view, size_t slot, size_t blocks, const char *data) {
    struct run runs[BLOCKS_MAX];
    size_t count = 0;

    add_runs(view, slot, blocks, runs, &count, 0);
    for (size_t i = 0; i < count; i++)
        if (runs[i].position < 0)
            return false; /* a hole is owned: Python will say so */
    if (PyObject_SetAttr(engine.io, names.unsynced, Py_True) != 0 ||
        !store_in_turn(runs, count, data, blocks * BLOCK_BYTES))
        return false; /* Python writes all of it again, and takes note */
    for (size_t i = 0; i < count; i++)
        note_written(&runs[i]);
    return true;
}

/* Whether so many pages were changed that a writer may have to wait for a commit. */
static bool has_to_wait(void) {
    long long dirty, limit;

    return !get_number(engine.versions, names.dirty_pages, &dirty) ||
           !get_number(engine.committer, names.soft_pages, &limit) || dirty > limit;
}

/* Have DiskIO write blocks to new places. */
static bool redirect(PyObject *disk, PyObject *head, uint64_t block, size_t blocks, const char *data) {
    PyObject *view, *result = NULL;

    writes_tell();
    view = PyMemoryView_FromMemory((char *)data, blocks * BLOCK_BYTES, PyBUF_READ);
    if (view != NULL)
        result = PyObject_CallMethod(engine.io, "redirect", "OOKnnO", disk, head,
                                     (unsigned long long)(block / PAGE_BLOCKS), (Py_ssize_t)(block % PAGE_BLOCKS),
                                     (Py_ssize_t)blocks, view);
    Py_XDECREF(view);
    Py_XDECREF(result);
    return result != NULL;
}

/* What the head's page owns of some blocks. */
static enum owns { ALL, PARTLY, NONE, OTHERWISE } owns(const struct view *view, size_t slot, size_t blocks) {
    size_t owned = 0, free = 0;

    for (size_t at = slot; at < slot + blocks; at++) {
        owned += ((const char *)view->owned.buf)[at] == OWNED;
        free += ((const char *)view->owned.buf)[at] == 0;
    }
    return owned == blocks ? ALL : free == blocks ? NONE : owned ? PARTLY : OTHERWISE;
}

/* Write blocks of a page to new places, where the page can be changed. */
static bool place_in(PyObject *disk, PyObject *head, PyObject *page, size_t slot, size_t blocks, const char *data) {
    struct view view;
    bool placed_there;

    if (!look(page, &view))
        return false;
    placed_there = owns(&view, slot, blocks) == NONE && place(disk, head, page, &view, slot, blocks, data);
    look_away(&view);
    return placed_there;
}

/* The same where it has to be made changeable before, which Python does: it looks at pages alone for that, so it need not be
 * told of what was written. If nothing is written then, the page is as it was. */
static bool place_in_new(PyObject *disk, PyObject *head, uint64_t block, size_t blocks, const char *data) {
    PyObject *page = PyObject_CallMethod(engine.versions, "writable", "OK", head,
                                         (unsigned long long)(block / PAGE_BLOCKS));
    bool placed_there = page != NULL && place_in(disk, head, page, block % PAGE_BLOCKS, blocks, data);

    Py_XDECREF(page);
    return placed_there;
}

/* Write blocks of one page, if the head owns all of them or none. */
static bool write_blocks(PyObject *disk, PyObject *head, PyObject *page, uint64_t block, size_t blocks,
                         const char *data) {
    struct view view;
    long long floor, epoch;
    size_t slot = block % PAGE_BLOCKS;
    enum owns has;

    if (!get_number(head, names.floor, &floor) || !get_number(page, names.epoch, &epoch) || !look(page, &view))
        return false;
    has = epoch > floor ? owns(&view, slot, blocks) : NONE;
    if (has == ALL) {
        bool written = overwrite(&view, slot, blocks, data);

        look_away(&view);
        return written;
    }
    look_away(&view); /* before Python changes the page */
    if (has == PARTLY)
        return false;
    if (has == NONE && epoch > floor && is(page, names.state, engine.dirty) &&
        place_in(disk, head, page, slot, blocks, data))
        return true;
    if (has_to_wait())
        return false;
    return (has == NONE && place_in_new(disk, head, block, blocks, data)) || redirect(disk, head, block, blocks, data);
}

/* Have the host begin to write to its disk what was written, unless it is so scattered that this is better done later, with
 * all that lies around it. */
static void write_back(PyObject *head, const struct fuse_write_in *written) {
    struct run runs[BLOCKS_MAX];
    size_t count = plan(head, written->offset, written->size, runs);
    struct job *job = NULL;

    if (count && count <= written->size / WRITEBACK_RUN_BYTES_MIN)
        job = workers_job(JOB_WRITEBACK, engine.data_fd, runs, count);
    if (job != NULL && !workers_start(job))
        workers_free(job);
}

static bool is_zero(const char *block) {
    static const char zero[BLOCK_BYTES];

    return block[0] == 0 && memcmp(block, zero, BLOCK_BYTES) == 0;
}

static bool has_zero_block(const char *data, size_t size) {
    for (const char *block = data; block < data + size; block += BLOCK_BYTES)
        if (is_zero(block))
            return true;
    return false;
}

bool writes_try(int fuse_fd, const struct fuse_in_header *header, const struct fuse_write_in *wanted, const char *data) {
    uint64_t first = wanted->offset / BLOCK_BYTES, end = first + wanted->size / BLOCK_BYTES;
    struct fuse_write_out done = {.size = wanted->size};
    PyObject *target = target_of(wanted->fh, wanted->offset, wanted->size, true), *head = NULL, *pages = NULL;
    bool written = false, has_zeros = has_zero_block(data, wanted->size);

    if (target != NULL && (PyObject *)Py_TYPE(target) == engine.disk_type &&
        is(engine.pool, names.read_only, Py_False) && is(engine.commits, names.failed, Py_None) &&
        is(engine.versions, names.damage, Py_None) &&
        !(has_zeros && !is(engine.space, names.shortage, Py_False))) /* then they become holes at once */
        head = PyObject_GetAttr(target, names.head);
    if (head != NULL && head != Py_None && (pages = PyObject_GetAttr(head, names.pages)) != NULL)
        written = true;
    for (uint64_t block = first; written && block < end; block += in_page(block, end)) {
        PyObject *page = page_of(pages, block);

        written = page != NULL && write_blocks(target, head, page, block, in_page(block, end),
                                               data + (block - first) * BLOCK_BYTES);
    }
    for (uint64_t block = first; written && has_zeros && block < end; block++)
        if (is_zero(data + (block - first) * BLOCK_BYTES))
            note_zero(target, block);
    if (written) {
        reply_data(fuse_fd, header->unique, &done, sizeof(done));
        if (wanted->size >= LARGE_BYTES && wanted->write_flags & FUSE_WRITE_CACHE)
            write_back(head, wanted);
    }
    Py_XDECREF(pages);
    Py_XDECREF(head);
    Py_XDECREF(target);
    return written;
}
