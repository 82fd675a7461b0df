/* The hot path: aligned reads and writes of pages in memory, and syncs of data alone, answered before pyfuse3 sees them.
 *
 * Python decides, C only executes:
 *
 *   - C keeps nothing of its own: no table, no copy. For each request it looks at the very objects that the engine uses
 *     (handle -> disk -> head -> page), so there is nothing to invalidate, and a snapshot, a rollback or a commit takes
 *     effect for C with the same store as for Python.
 *   - C reads `addresses` and `owned` of a page, and never changes a byte of them. What it sets is what DiskIO sets when it
 *     overwrites an owned block: `io.unsynced` and `page.used`. Blocks that the head does not own, or not alone, it hands to
 *     DiskIO.redirect, which alone allocates and maps.
 *   - All of it runs on the trio thread, between two awaits, with the GIL held from the first look at a page until its
 *     data is written: nothing can change in between. While a large write copies its data, the GIL is let go of: other
 *     threads never change the engine's state (docs/CONCURRENCY.md).
 *   - Reads that have to wait for the host, and syncs, go to a worker (_workers.c). A read takes a ticket first, as Python's
 *     own do (Commits.begin_read), so its blocks are not used again meanwhile. A sync is done here only if no commit is
 *     running, and nothing but data was changed, or so little else that Python makes a record for the journal of it
 *     (Committer.begin_record). `io.unsynced` stays as it is.
 *   - What Linux writes back from its own cache in large pieces, the host is told to write to its disk at once, by a worker.
 *   - Whatever is unusual is left to Python: a page that is not in memory, a range that the head owns in part, a block of
 *     zeros, a range that is not aligned or ends past the disk, a handle with O_SYNC, a pool that is read-only or full, a
 *     failed or short system call. A write that Python does again writes the same bytes to the same blocks. Of a sync that
 *     failed, Python is told (Committer.sync_failed), and then its caller.
 */
#include "_native.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum {
    PAGE_BLOCKS = 512,
    OWNED = 1,                           /* rowfs.store.model.OWNED */
    WRITEBACK_RUN_BYTES_MIN = 128 << 10, /* in the mean */
};

static PyObject *handles; /* dict: fh -> Handle; NULL: everything is left to Python */
static PyObject *pool, *committer, *commits, *versions, *io, *set_time, *disk_type, *snapshot_type;
static int data_fd = -1;
static unsigned long long reads, writes, syncs; /* answered here */
static char *answer; /* one request at a time */

static PyObject *n_addresses, *n_damage, *n_epoch, *n_failed, *n_floor, *n_head, *n_owned, *n_pages, *n_point,
    *n_read_only, *n_size_bytes, *n_sync, *n_target, *n_unsynced, *n_used, *n_own, *n_map_changed, *n_running,
    *n_syncing, *n_begin_read, *n_begin_record, *n_dirty_pages, *n_soft_pages;

/* Looking at Python's objects. Where anything is missing, they say no and leave the error for `try_request` to clear. */

static bool get_number(PyObject *object, PyObject *name, long long *number) {
    PyObject *value = PyObject_GetAttr(object, name);

    if (value == NULL)
        return false;
    *number = PyLong_AsLongLong(value);
    Py_DECREF(value);
    return !PyErr_Occurred();
}

/* Whether the attribute is `wanted`, which is one of None, True and False. */
static bool is(PyObject *object, PyObject *name, PyObject *wanted) {
    PyObject *value = PyObject_GetAttr(object, name);

    Py_XDECREF(value); /* compared by address alone */
    return value == wanted;
}

static bool get_bytes(PyObject *page, PyObject *name, Py_ssize_t size, Py_buffer *view) {
    PyObject *value = PyObject_GetAttr(page, name);
    int failed;

    if (value == NULL)
        return false;
    failed = PyObject_GetBuffer(value, view, PyBUF_SIMPLE);
    Py_DECREF(value);
    if (failed)
        return false;
    if (view->len == size)
        return true;
    PyBuffer_Release(view);
    return false;
}

/* The handle's disk or snapshot if `offset` and `size` are blocks within it, else NULL. */
static PyObject *target_of(uint64_t fh, uint64_t offset, size_t size, bool writing) {
    PyObject *key = PyLong_FromUnsignedLongLong(fh), *handle, *target;
    long long size_bytes;

    if (key == NULL || size == 0 || size > REQUEST_BYTES_MAX || (offset | size) % BLOCK_BYTES) {
        Py_XDECREF(key);
        return NULL;
    }
    handle = PyDict_GetItemWithError(handles, key); /* borrowed; nothing below drops it */
    Py_DECREF(key);
    if (handle == NULL || (writing && !is(handle, n_sync, Py_False)))
        return NULL;
    target = PyObject_GetAttr(handle, n_target);
    if (target == NULL)
        return NULL;
    if (get_number(target, n_size_bytes, &size_bytes) && size_bytes >= 0 && offset <= (uint64_t)size_bytes &&
        size <= (uint64_t)size_bytes - offset)
        return target;
    Py_DECREF(target);
    return NULL;
}

/* The addresses and owned flags of a page. */
struct view {
    Py_buffer addresses, owned;
};

static bool look(PyObject *page, struct view *view) {
    if (PyObject_SetAttr(page, n_used, Py_True) != 0 ||
        !get_bytes(page, n_addresses, PAGE_BLOCKS * sizeof(int64_t), &view->addresses))
        return false;
    if (get_bytes(page, n_owned, PAGE_BLOCKS, &view->owned))
        return true;
    PyBuffer_Release(&view->addresses);
    return false;
}

static void look_away(struct view *view) {
    PyBuffer_Release(&view->owned);
    PyBuffer_Release(&view->addresses);
}

/* Adds where the blocks of a page from `slot` on lie to `runs`. */
static void add_runs(const struct view *view, size_t slot, size_t blocks, struct run *runs, size_t *count,
                     size_t start) {
    const int64_t *places = view->addresses.buf;

    for (size_t at = slot; at < slot + blocks; at++, start += BLOCK_BYTES) {
        off_t position = places[at] > 0 ? (off_t)places[at] * BLOCK_BYTES : -1;
        struct run *last = *count ? &runs[*count - 1] : NULL;

        if (last && (position < 0 ? last->position < 0
                                  : last->position >= 0 && last->position + (off_t)last->length == position))
            last->length += BLOCK_BYTES;
        else
            runs[(*count)++] = (struct run){position, start, BLOCK_BYTES};
    }
}

/* The page of a point that holds a block, if it is in memory: borrowed from `pages`. */
static PyObject *page_of(PyObject *pages, uint64_t block) {
    PyObject *index = PyLong_FromUnsignedLongLong(block / PAGE_BLOCKS);
    PyObject *page = index && PyDict_Check(pages) ? PyDict_GetItemWithError(pages, index) : NULL;

    Py_XDECREF(index);
    return page;
}

static size_t in_page(uint64_t block, uint64_t end) {
    size_t left = PAGE_BLOCKS - block % PAGE_BLOCKS;

    return end - block < left ? end - block : left;
}

/* Where a range of a point lies: how many runs, 0 when it is left to Python. */
static size_t plan(PyObject *point, uint64_t offset, size_t size, struct run *runs) {
    PyObject *pages = PyObject_GetAttr(point, n_pages);
    uint64_t first = offset / BLOCK_BYTES, end = first + size / BLOCK_BYTES;
    size_t count = 0;
    struct view view;

    for (uint64_t block = first; pages != NULL && block < end; block += in_page(block, end)) {
        PyObject *page = page_of(pages, block);

        if (page == NULL || !look(page, &view)) {
            count = 0;
            break;
        }
        add_runs(&view, block % PAGE_BLOCKS, in_page(block, end), runs, &count, (block - first) * BLOCK_BYTES);
        look_away(&view);
    }
    Py_XDECREF(pages);
    return count;
}

/* Reads */

static bool read_in_worker(int fuse_fd, const struct fuse_in_header *header, size_t size, const struct run *runs,
                           size_t count) {
    struct job *job = header->len <= HEAD_BYTES ? workers_job(JOB_READ, data_fd, runs, count) : NULL;
    PyObject *ticket;

    if (job == NULL)
        return false;
    if ((ticket = PyObject_CallMethodNoArgs(commits, n_begin_read)) == NULL) {
        free(job);
        return false;
    }
    job->ticket = PyLong_AsLongLong(ticket);
    Py_DECREF(ticket);
    job->fuse_fd = fuse_fd;
    job->unique = header->unique;
    job->size = size;
    job->head_bytes = header->len;
    memcpy(job->head, header, header->len);
    if (workers_start(job))
        return true;
    Py_XDECREF(PyObject_CallMethod(committer, "read_ended", "L", job->ticket));
    free(job);
    return false;
}

static bool try_read(int fuse_fd, const struct fuse_in_header *header, const struct fuse_read_in *wanted) {
    struct run runs[BLOCKS_MAX];
    PyObject *target = target_of(wanted->fh, wanted->offset, wanted->size, false), *point = NULL;
    size_t count = 0;

    if (target != NULL && (PyObject *)Py_TYPE(target) == disk_type)
        point = PyObject_GetAttr(target, n_head);
    else if (target != NULL && (PyObject *)Py_TYPE(target) == snapshot_type)
        point = PyObject_GetAttr(target, n_point);
    if (point != NULL && point != Py_None)
        count = plan(point, wanted->offset, wanted->size, runs);
    Py_XDECREF(point);
    Py_XDECREF(target);
    if (count == 0 || (answer == NULL && (answer = transfer_buffer()) == NULL))
        return false;
    if (fetch(data_fd, runs, count, answer, RWF_NOWAIT))
        reply_data(fuse_fd, header->unique, answer, wanted->size);
    else if (!read_in_worker(fuse_fd, header, wanted->size, runs, count))
        return false;
    reads++;
    return true;
}

/* Writes */

static bool has_zero_block(const char *data, size_t size) {
    static const char zeros[BLOCK_BYTES];

    for (const char *block = data; block < data + size; block += BLOCK_BYTES)
        if (block[0] == 0 && memcmp(block, zeros, BLOCK_BYTES) == 0)
            return true;
    return false;
}

/* Overwrite blocks that the head owns. */
static bool overwrite(const struct view *view, size_t slot, size_t blocks, const char *data) {
    struct run runs[BLOCKS_MAX];
    size_t count = 0;
    bool written;

    add_runs(view, slot, blocks, runs, &count, 0);
    for (size_t i = 0; i < count; i++)
        if (runs[i].position < 0)
            return false; /* a hole is owned: Python will say so */
    if (PyObject_SetAttr(io, n_unsynced, Py_True) != 0)
        return false;
    if (blocks * BLOCK_BYTES < LARGE_BYTES)
        return store(data_fd, runs, count, data);
    Py_BEGIN_ALLOW_THREADS
    written = store(data_fd, runs, count, data);
    Py_END_ALLOW_THREADS
    return written;
}

/* Have DiskIO write blocks to new places. */
static bool redirect(PyObject *disk, PyObject *head, uint64_t block, size_t blocks, const char *data) {
    PyObject *view, *result = NULL;
    long long dirty, limit;

    if (!get_number(versions, n_dirty_pages, &dirty) || !get_number(committer, n_soft_pages, &limit) || dirty > limit)
        return false; /* the writer may have to wait for a commit */
    view = PyMemoryView_FromMemory((char *)data, blocks * BLOCK_BYTES, PyBUF_READ);
    if (view != NULL)
        result = PyObject_CallMethod(io, "redirect", "OOKnnO", disk, head, (unsigned long long)(block / PAGE_BLOCKS),
                                     (Py_ssize_t)(block % PAGE_BLOCKS), (Py_ssize_t)blocks, view);
    Py_XDECREF(view);
    Py_XDECREF(result);
    return result != NULL;
}

/* Write blocks of one page, if the head owns all of them or none. */
static bool write_blocks(PyObject *disk, PyObject *head, PyObject *page, uint64_t block, size_t blocks,
                         const char *data) {
    struct view view;
    long long floor, epoch;
    size_t owned = 0;
    bool written = false;

    if (!get_number(head, n_floor, &floor) || !get_number(page, n_epoch, &epoch) || !look(page, &view))
        return false;
    if (epoch > floor)
        for (size_t at = block % PAGE_BLOCKS; at < block % PAGE_BLOCKS + blocks; at++)
            owned += ((const char *)view.owned.buf)[at] == OWNED;
    if (owned == blocks)
        written = overwrite(&view, block % PAGE_BLOCKS, blocks, data);
    look_away(&view); /* before Python changes the page */
    return owned == 0 ? redirect(disk, head, block, blocks, data) : written;
}

/* Have the host begin to write to its disk what was written, unless it is so scattered that this is better done later, with
 * all that lies around it. */
static void write_back(PyObject *head, const struct fuse_write_in *written) {
    struct run runs[BLOCKS_MAX];
    size_t count = plan(head, written->offset, written->size, runs);
    struct job *job = NULL;

    if (count && count <= written->size / WRITEBACK_RUN_BYTES_MIN)
        job = workers_job(JOB_WRITEBACK, data_fd, runs, count);
    if (job != NULL && !workers_start(job))
        free(job);
}

static bool try_write(int fuse_fd, const struct fuse_in_header *header, const struct fuse_write_in *wanted,
                      const char *data) {
    uint64_t first = wanted->offset / BLOCK_BYTES, end = first + wanted->size / BLOCK_BYTES;
    struct fuse_write_out done = {.size = wanted->size};
    PyObject *target = target_of(wanted->fh, wanted->offset, wanted->size, true), *head = NULL, *pages = NULL;
    bool written = false;

    if (target != NULL && (PyObject *)Py_TYPE(target) == disk_type && is(pool, n_read_only, Py_False) &&
        is(commits, n_failed, Py_None) && is(versions, n_damage, Py_None) && !has_zero_block(data, wanted->size))
        head = PyObject_GetAttr(target, n_head);
    if (head != NULL && head != Py_None && (pages = PyObject_GetAttr(head, n_pages)) != NULL)
        written = true;
    for (uint64_t block = first; written && block < end; block += in_page(block, end)) {
        PyObject *page = page_of(pages, block);

        written = page != NULL && write_blocks(target, head, page, block, in_page(block, end),
                                               data + (block - first) * BLOCK_BYTES);
    }
    if (written) {
        writes++;
        reply_data(fuse_fd, header->unique, &done, sizeof(done));
        if (wanted->size >= LARGE_BYTES && wanted->write_flags & FUSE_WRITE_CACHE)
            write_back(head, wanted);
    }
    Py_XDECREF(pages);
    Py_XDECREF(head);
    Py_XDECREF(target);
    return written;
}

/* Syncs */

/* Have the job append to the journal what was changed beside data. */
static bool add_record(struct job *job) {
    PyObject *placed = PyObject_CallMethodNoArgs(committer, n_begin_record);
    long long position;
    char *data;
    Py_ssize_t size;

    if (placed != NULL && placed != Py_None &&
        PyArg_ParseTuple(placed, "iLS", &job->journal_fd, &position, &job->record) &&
        PyBytes_AsStringAndSize(Py_NewRef(job->record), &data, &size) == 0) {
        job->position = position;
        job->data = data;
        job->size = size;
    }
    Py_XDECREF(placed);
    return job->record != NULL;
}

static bool try_sync(int fuse_fd, const struct fuse_in_header *header, const struct fuse_fsync_in *wanted) {
    PyObject *key = PyLong_FromUnsignedLongLong(wanted->fh);
    PyObject *handle = key ? PyDict_GetItemWithError(handles, key) : NULL; /* borrowed */
    struct job *job;
    bool data_alone;

    Py_XDECREF(key);
    if (handle == NULL || !is(handle, n_own, Py_False) || !is(pool, n_read_only, Py_False) ||
        !is(commits, n_failed, Py_None) || !is(commits, n_running, Py_None) || !is(commits, n_syncing, Py_False) ||
        !workers_can_sync())
        return false;
    data_alone = is(commits, n_map_changed, Py_False);
    if (data_alone && is(io, n_unsynced, Py_False)) {
        reply_errno(fuse_fd, header->unique, 0);
    } else {
        if (PyErr_Occurred() || (job = workers_job(JOB_SYNC, data_fd, NULL, 0)) == NULL)
            return false;
        if (!data_alone && !add_record(job)) {
            free(job);
            return false;
        }
        job->fuse_fd = fuse_fd;
        job->unique = header->unique;
        workers_start(job);
    }
    syncs++;
    return true;
}

/* Times: Linux tells a disk's before it syncs a file that was written, so before most syncs. */

static bool try_time(int fuse_fd, const struct fuse_in_header *header, const struct fuse_setattr_in *wanted) {
    PyObject *answer;
    char *data;
    Py_ssize_t size;
    bool told;

    if ((wanted->valid & ~(FATTR_FH | FATTR_LOCKOWNER)) != (FATTR_MTIME | FATTR_CTIME) ||
        wanted->mtime >= INT64_MAX / 1000000000) /* before 1970, or after 2262: not in a long long */
        return false;
    answer = PyObject_CallFunction(set_time, "KL", (unsigned long long)header->nodeid,
                                   (long long)wanted->mtime * 1000000000 + wanted->mtimensec);
    told = answer != NULL && answer != Py_None && PyBytes_AsStringAndSize(answer, &data, &size) == 0;
    if (told)
        reply_data(fuse_fd, header->unique, data, size);
    Py_XDECREF(answer);
    return told;
}

/* Requests */

bool hotpath_try(int fuse_fd, const char *request, size_t size) {
    const struct fuse_in_header *header = (const void *)request;
    const char *body = request + sizeof(*header);
    bool answered = false;

    if (handles == NULL || size < sizeof(*header) || header->len != size)
        return false;
    size -= sizeof(*header);
    if (header->opcode == FUSE_READ && size >= sizeof(struct fuse_read_in)) {
        answered = try_read(fuse_fd, header, (const void *)body);
    } else if (header->opcode == FUSE_WRITE && size >= sizeof(struct fuse_write_in)) {
        const struct fuse_write_in *wanted = (const void *)body;

        if (wanted->size == size - sizeof(*wanted))
            answered = try_write(fuse_fd, header, wanted, body + sizeof(*wanted));
    } else if (header->opcode == FUSE_FSYNC && size >= sizeof(struct fuse_fsync_in)) {
        answered = try_sync(fuse_fd, header, (const void *)body);
    } else if (header->opcode == FUSE_SETATTR && size >= sizeof(struct fuse_setattr_in)) {
        answered = try_time(fuse_fd, header, (const void *)body);
    }
    if (PyErr_Occurred())
        PyErr_Clear(); /* something was not as it is here: Python will tell, if it is an error */
    return answered;
}

static void settle_sync(struct job *job) {
    if (job->error)
        Py_XDECREF(PyObject_CallMethod(committer, "sync_failed", "i", job->error));
    if (job->record)
        Py_XDECREF(PyObject_CallMethod(committer, "record_ended", NULL));
    Py_CLEAR(job->record);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(committer);
    if (job->error)
        reply_errno(job->fuse_fd, job->unique, EIO);
}

static struct job *refused; /* reads that failed in a worker, and wait for Python */

void hotpath_settle(void) {
    for (struct job *job; (job = workers_done()) != NULL;) {
        if (job->kind == JOB_SYNC) {
            settle_sync(job);
        } else {
            Py_XDECREF(PyObject_CallMethod(committer, "read_ended", "L", job->ticket));
            if (PyErr_Occurred())
                PyErr_WriteUnraisable(committer);
        }
        if (job->kind == JOB_READ && job->error) { /* Python reads again, and tells what is wrong */
            job->next = refused;
            refused = job;
        } else {
            free(job);
        }
    }
}

size_t hotpath_refused(char *request) {
    struct job *job = refused;
    size_t size = job ? job->head_bytes : 0;

    if (job == NULL || request == NULL)
        return size;
    memcpy(request, job->head, size);
    refused = job->next;
    free(job);
    return size;
}

/* Python */

static bool intern_names(void) {
    static const struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&n_addresses, "addresses"},     {&n_begin_read, "begin_read"},
        {&n_begin_record, "begin_record"},
        {&n_damage, "damage"},           {&n_dirty_pages, "dirty_pages"},
        {&n_epoch, "epoch"},             {&n_soft_pages, "soft_pages"},
        {&n_failed, "failed"},           {&n_floor, "floor"},
        {&n_head, "head"},               {&n_map_changed, "map_changed"},
        {&n_own, "own"},                 {&n_owned, "owned"},
        {&n_pages, "pages"},             {&n_point, "point"},
        {&n_read_only, "read_only"},     {&n_running, "running"},
        {&n_size_bytes, "size_bytes"},   {&n_sync, "sync"},
        {&n_syncing, "syncing"},         {&n_target, "target"},
        {&n_unsynced, "unsynced"},       {&n_used, "used"},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (*names[i].name == NULL && (*names[i].name = PyUnicode_InternFromString(names[i].text)) == NULL)
            return false;
    return true;
}

static bool take(PyObject **place, PyObject *value) {
    Py_XSETREF(*place, value);
    return value != NULL;
}

PyObject *native_serve(PyObject *self, PyObject *args) {
    PyObject *its_handles, *its_pool, *its_committer, *its_set_time, *its_disk_type, *its_snapshot_type;
    int fd;

    (void)self;
    if (!PyArg_ParseTuple(args, "O!OOOiOO", &PyDict_Type, &its_handles, &its_pool, &its_committer, &its_set_time, &fd,
                          &its_disk_type, &its_snapshot_type))
        return NULL;
    Py_CLEAR(handles);
    if (!intern_names() || !take(&pool, Py_NewRef(its_pool)) || !take(&committer, Py_NewRef(its_committer)) ||
        !take(&set_time, Py_NewRef(its_set_time)) ||
        !take(&disk_type, Py_NewRef(its_disk_type)) || !take(&snapshot_type, Py_NewRef(its_snapshot_type)) ||
        !take(&commits, PyObject_GetAttrString(its_pool, "commits")) ||
        !take(&versions, PyObject_GetAttrString(its_pool, "versions")) ||
        !take(&io, PyObject_GetAttrString(its_pool, "io")))
        return NULL;
    data_fd = fd;
    handles = Py_NewRef(its_handles);
    Py_RETURN_NONE;
}

PyObject *native_stop(PyObject *self, PyObject *args) {
    char request[HEAD_BYTES];

    (void)self;
    (void)args;
    workers_finish();
    if (committer != NULL)
        hotpath_settle();
    while (hotpath_refused(request) > 0)
        ; /* nobody waits for the answer any more */
    Py_CLEAR(handles);
    Py_CLEAR(pool);
    Py_CLEAR(committer);
    Py_CLEAR(set_time);
    Py_CLEAR(commits);
    Py_CLEAR(versions);
    Py_CLEAR(io);
    Py_RETURN_NONE;
}

PyObject *native_try_request(PyObject *self, PyObject *args) {
    int fd;
    Py_buffer request;
    bool answered;

    (void)self;
    if (!PyArg_ParseTuple(args, "iy*", &fd, &request))
        return NULL;
    answered = hotpath_try(fd, request.buf, request.len);
    PyBuffer_Release(&request);
    return PyBool_FromLong(answered);
}

PyObject *native_sync_data(PyObject *self, PyObject *args) {
    int fd, code;

    (void)self;
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    code = sync_data(fd);
    Py_END_ALLOW_THREADS
    if (code == 0)
        Py_RETURN_NONE;
    errno = code;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *native_served(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    return Py_BuildValue("(KKK)", reads, writes, syncs);
}
