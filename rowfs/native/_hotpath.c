/* The hot path. */
#include "_hotpath.h"

#include "_engine.h"
#include "_reads.h"
#include "_syncs.h"
#include "_transfer.h"
#include "_verify.h"
#include "_wake.h"
#include "_workers.h"
#include "_writes.h"

#include <errno.h>
#include <string.h>

_Static_assert((int)REFUSED_BYTES >= (int)HEAD_BYTES, "a request that a worker keeps");

static unsigned long long reads, writes, syncs; /* answered here */

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
        answered = reads_try(fuse_fd, header, (const void *)body);
        reads += answered;
    } else if (header->opcode == FUSE_WRITE && size >= sizeof(struct fuse_write_in)) {
        const struct fuse_write_in *wanted = (const void *)body;

        if (wanted->size == size - sizeof(*wanted))
            answered = writes_try(fuse_fd, header, wanted, body + sizeof(*wanted));
        writes += answered;
    } else if (header->opcode == FUSE_FSYNC && size >= sizeof(struct fuse_fsync_in)) {
        answered = syncs_try(fuse_fd, header, (const void *)body);
        syncs += answered;
        hotpath_settle();
    } else if (header->opcode == FUSE_SETATTR && size >= sizeof(struct fuse_setattr_in)) {
        answered = try_time(fuse_fd, header, (const void *)body);
    }
    if (PyErr_Occurred())
        PyErr_Clear(); /* something was not as it is here: Python will tell, if it is an error */
    if (!answered)
        writes_tell(); /* before Python sees the request */
    return answered;
}

/* What workers have done */

static struct job *refused; /* reads and syncs that failed in a worker, and wait for Python */

void hotpath_settle(void) {
    for (struct job *job; (job = workers_done()) != NULL;) {
        if (job->kind == JOB_SYNC ? syncs_settle(job) : reads_settle(job)) {
            job->next = refused;
            refused = job;
            wake_trio();
        } else {
            workers_free(job);
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
    workers_free(job);
    return size;
}

/* Return when nothing that was begun is left. */
static void finish(void) {
    char request[REFUSED_BYTES];

    workers_finish();
    if (engine.committer != NULL) {
        hotpath_settle();
        writes_tell();
    }
    while (hotpath_refused(request) > 0)
        ; /* nobody waits for the answer any more */
}

/* Python */

PyObject *native_serve(PyObject *self, PyObject *args) {
    (void)self;
    finish();
    if (!engine_serve(args))
        return NULL;
    workers_begin();
    Py_RETURN_NONE;
}

PyObject *native_stop(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    finish();
    verify_stop();
    engine_stop();
    Py_RETURN_NONE;
}

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
    return Py_BuildValue("(KKKK)", reads, writes, syncs, syncs_records());
}
