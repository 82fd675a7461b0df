/* The hot path: aligned reads and writes of pages in memory, and syncs of little more than data, answered before pyfuse3
 * sees them.
 *
 * Python decides, C only executes:
 *
 *   - C keeps no table and no copy of its own. For each request it looks at the very objects that the engine uses (handle ->
 *     disk -> head -> page), so there is nothing to invalidate, and a snapshot, a rollback or a commit takes effect for C
 *     with the same store as for Python.
 *   - `addresses` and `owned` of a page are Python's. C writes to them only where Python has made the page the head's own
 *     (a version after the floor, dirty, so that no commit reads it) and has claimed free blocks for the head: then it puts
 *     the next of these into slots of which the page owns nothing. All that Python keeps beside the page (free space,
 *     counts, what a commit has to take) it is told before it next runs (_writes.c).
 *   - All of it runs on the trio thread, between two awaits, with the GIL held from the first look at a page until its
 *     data is written: nothing can change in between. While a large write copies its data, the GIL is let go of: other
 *     threads neither change nor look at the engine's state (docs/CONCURRENCY.md).
 *   - Reads that have to wait for the host, and syncs, go to a worker (_workers.c). A read takes a ticket first, as Python's
 *     own do (Commits.begin_read), so its blocks are not used again meanwhile. A sync is done here only if no commit is
 *     running, and nothing but data was changed, or so little else that Python makes a record for the journal of it
 *     (Committer.begin_record). `io.unsynced` stays as it is. It is answered on this thread where nobody else wants
 *     anything of it, with the GIL let go of: others neither change nor look at the engine's state.
 *   - What Linux writes back from its own cache in large pieces, the host is told to write to its disk at once, by a worker.
 *   - Whatever is unusual is left to Python: a page that is not in memory, a range that the head owns in part, zeros
 *     where space is short, sums that are not in memory, blocks that are not what was sealed, a range that is not aligned or ends past the disk, a handle with O_SYNC, a pool that is read-only or full, a
 *     failed or short system call. A write that Python does again writes the same bytes to the same blocks. Of a sync that
 *     failed, Python is told (Committer.sync_failed), and then its caller.
 */
#include "_engine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static unsigned long long reads, writes, syncs; /* answered here */
static char *answer; /* one request at a time */

/* Reads */

/* `sums`: what the blocks have to sum up to, or NULL. */
static bool read_in_worker(int fuse_fd, const struct fuse_in_header *header, size_t size, const struct run *runs,
                           size_t count, const uint32_t *sums) {
    struct job *job = header->len <= HEAD_BYTES ? workers_job(JOB_READ, engine.data_fd, runs, count) : NULL;
    PyObject *ticket;

    if (job == NULL)
        return false;
    if (sums != NULL) {
        if ((job->sums = malloc(size / BLOCK_BYTES * sizeof(*sums))) == NULL) {
            workers_free(job);
            return false;
        }
        memcpy(job->sums, sums, size / BLOCK_BYTES * sizeof(*sums));
    }
    writes_tell();
    if ((ticket = PyObject_CallMethodNoArgs(engine.commits, names.begin_read)) == NULL) {
        workers_free(job);
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
    Py_XDECREF(PyObject_CallMethod(engine.committer, "read_ended", "L", job->ticket));
    workers_free(job);
    return false;
}

static bool try_read(int fuse_fd, const struct fuse_in_header *header, const struct fuse_read_in *wanted) {
    struct run runs[BLOCKS_MAX];
    uint32_t sums[BLOCKS_MAX];
    PyObject *target = target_of(wanted->fh, wanted->offset, wanted->size, false), *point = NULL;
    size_t count = 0;
    enum sealed sealed;

    if (target != NULL && (PyObject *)Py_TYPE(target) == engine.disk_type)
        point = PyObject_GetAttr(target, names.head);
    else if (target != NULL && (PyObject *)Py_TYPE(target) == engine.snapshot_type)
        point = PyObject_GetAttr(target, names.point);
    if (point != NULL && point != Py_None)
        count = plan(point, wanted->offset, wanted->size, runs);
    Py_XDECREF(point);
    Py_XDECREF(target);
    if (count == 0 || (answer == NULL && (answer = transfer_buffer()) == NULL))
        return false;
    sealed = verify_expected(runs, count, sums);
    if (sealed == SEALED_UNKNOWN)
        return false;
    if (!fetch(engine.data_fd, runs, count, answer, RWF_NOWAIT)) {
        if (!read_in_worker(fuse_fd, header, wanted->size, runs, count, sealed == SEALED_SOME ? sums : NULL))
            return false;
    } else if (sealed == SEALED_SOME && !verify(answer, wanted->size, sums)) {
        return false; /* Python reads again, and tells what is wrong */
    } else {
        reply_data(fuse_fd, header->unique, answer, wanted->size);
    }
    reads++;
    return true;
}

/* Syncs */

/* Have the job append to the journal what was changed, and what was written if that is little. */
static bool add_record(struct job *job) {
    PyObject *begun = PyObject_CallMethodNoArgs(engine.committer, names.begin_record);
    long long position;
    int data_first;
    char *data;
    Py_ssize_t size;

    if (begun != NULL && begun != Py_None &&
        PyArg_ParseTuple(begun, "iLSp", &job->journal_fd, &position, &job->record, &data_first) &&
        PyBytes_AsStringAndSize(Py_NewRef(job->record), &data, &size) == 0) {
        job->position = position;
        job->data = data;
        job->size = size;
        if (!job->data_first) /* else it is done already */
            job->data_first = data_first;
    }
    Py_XDECREF(begun);
    return job->record != NULL;
}

/* Whether the kernel has another request: then who waits for a sync need not be the only one. */
static bool more_requests(int fuse_fd) {
    struct pollfd fds = {.fd = fuse_fd, .events = POLLIN};

    return poll(&fds, 1, 0) > 0;
}

static void settle(struct job *job);

/* Have a sync done: by a worker, which answers it, or here. False: it is left to Python. */
static bool start_sync(struct job *job, bool data_alone) {
    job->data_first = data_alone || engine.recent[0] > RECENT_BLOCKS_MAX;
    if (data_alone) {
        engine.recent[0] = 0; /* what was written until now is what is synced */
    } else if (job->data_first) {
        bool made;

        job->awaits_record = true;
        workers_start(job);
        made = add_record(job); /* while the data is on its way */
        workers_record(job, !made);
        return made;
    } else if (!add_record(job)) {
        free(job);
        return false;
    }
    if (!more_requests(job->fuse_fd) && workers_sync_here(job))
        settle(job);
    else
        workers_start(job);
    return true;
}

static bool try_sync(int fuse_fd, const struct fuse_in_header *header, const struct fuse_fsync_in *wanted) {
    PyObject *key = PyLong_FromUnsignedLongLong(wanted->fh);
    PyObject *handle = key ? PyDict_GetItemWithError(engine.handles, key) : NULL; /* borrowed */
    struct job *job;
    bool data_alone;

    Py_XDECREF(key);
    writes_tell();
    if (handle == NULL || !is(handle, names.own, Py_False) || !is(engine.pool, names.read_only, Py_False) ||
        !is(engine.commits, names.failed, Py_None) || !is(engine.commits, names.running, Py_None) ||
        !is(engine.commits, names.syncing, Py_False) || !workers_can_sync())
        return false;
    data_alone = is(engine.commits, names.map_changed, Py_False);
    if (data_alone && is(engine.io, names.unsynced, Py_False)) {
        reply_errno(fuse_fd, header->unique, 0);
    } else {
        if (PyErr_Occurred() || (job = workers_job(JOB_SYNC, engine.data_fd, NULL, 0)) == NULL)
            return false;
        job->fuse_fd = fuse_fd;
        job->unique = header->unique;
        job->head_bytes = sizeof(*header) + sizeof(*wanted);
        memcpy(job->head, header, sizeof(*header));
        memcpy(job->head + sizeof(*header), wanted, sizeof(*wanted));
        if (!start_sync(job, data_alone))
            return false;
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
        wanted->mtime >= INT64_MAX / 1000000000 || wanted->ctime >= INT64_MAX / 1000000000) /* before 1970, or after 2262: not in a long long */
        return false;
    writes_tell();
    answer = PyObject_CallFunction(engine.set_time, "KLL", (unsigned long long)header->nodeid,
                                   (long long)wanted->mtime * 1000000000 + wanted->mtimensec,
                                   (long long)wanted->ctime * 1000000000 + wanted->ctimensec);
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

    if (engine.handles == NULL || size < sizeof(*header) || header->len != size)
        return false;
    size -= sizeof(*header);
    if (header->opcode == FUSE_READ && size >= sizeof(struct fuse_read_in)) {
        answered = try_read(fuse_fd, header, (const void *)body);
    } else if (header->opcode == FUSE_WRITE && size >= sizeof(struct fuse_write_in)) {
        const struct fuse_write_in *wanted = (const void *)body;

        if (wanted->size == size - sizeof(*wanted))
            answered = try_write(fuse_fd, header, wanted, body + sizeof(*wanted));
        writes += answered;
    } else if (header->opcode == FUSE_FSYNC && size >= sizeof(struct fuse_fsync_in)) {
        answered = try_sync(fuse_fd, header, (const void *)body);
    } else if (header->opcode == FUSE_SETATTR && size >= sizeof(struct fuse_setattr_in)) {
        answered = try_time(fuse_fd, header, (const void *)body);
    }
    if (PyErr_Occurred())
        PyErr_Clear(); /* something was not as it is here: Python will tell, if it is an error */
    if (!answered)
        writes_tell(); /* before Python sees the request */
    return answered;
}

static void settle_sync(struct job *job) {
    if (job->record_lost) {
        Py_XDECREF(PyObject_CallMethod(engine.committer, "record_lost", NULL));
        workers_lost_told();
    }
    if (job->error)
        Py_XDECREF(PyObject_CallMethod(engine.committer, "sync_failed", "i", job->error));
    if (job->record)
        Py_XDECREF(PyObject_CallMethod(engine.committer, "record_ended", NULL));
    Py_CLEAR(job->record);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(engine.committer);
    if (job->error && !job->given_up)
        reply_errno(job->fuse_fd, job->unique, EIO);
}

static struct job *refused; /* reads and syncs that failed in a worker, and wait for Python */

/* Tell Python of a job that is done. */
static void settle(struct job *job) {
    if (job->kind == JOB_SYNC) {
        settle_sync(job);
    } else {
        Py_XDECREF(PyObject_CallMethod(engine.committer, "read_ended", "L", job->ticket));
        if (PyErr_Occurred())
            PyErr_WriteUnraisable(engine.committer);
    }
    /* Python reads again, and tells what is wrong; or has the map committed. */
    if (job->kind == JOB_READ ? job->error != 0 : job->record_lost && !job->given_up) {
        job->next = refused;
        refused = job;
        wake_trio();
    } else {
        workers_free(job);
    }
}

void hotpath_settle(void) {
    for (struct job *job; (job = workers_done()) != NULL;) {
        writes_tell();
        settle(job);
    }
}

size_t hotpath_refused(char *request) {
    struct job *job = refused;
    size_t size = job ? job->head_bytes : 0;

    if (job == NULL || request == NULL)
        return size;
    memcpy(request, job->head, size);
    refused = job->next;
    workers_free(job);
    return size;
}

void hotpath_finish(void) {
    char request[HEAD_BYTES];

    workers_finish();
    if (engine.committer != NULL) {
        hotpath_settle();
        writes_tell();
    }
    while (hotpath_refused(request) > 0)
        ; /* nobody waits for the answer any more */
}

/* Python */

PyObject *native_try_requests(PyObject *self, PyObject *args) {
    int fd;
    PyObject *requests;
    Py_buffer request;
    Py_ssize_t at = 0;
    bool answered = true;

    (void)self;
    if (!PyArg_ParseTuple(args, "iO!", &fd, &PyList_Type, &requests))
        return NULL;
    for (; answered && at < PyList_GET_SIZE(requests); at += answered) {
        if (PyObject_GetBuffer(PyList_GET_ITEM(requests, at), &request, PyBUF_SIMPLE) != 0)
            return NULL;
        answered = hotpath_try(fd, request.buf, request.len);
        PyBuffer_Release(&request);
    }
    writes_tell();
    return PyLong_FromSsize_t(at);
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
