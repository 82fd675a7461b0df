/* Reads. */
#include "_reads.h"

#include "_crc32c.h"
#include "_engine.h"
#include "_transfer.h"
#include "_verify.h"
#include "_writes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

static char *answer; /* one request at a time */

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

bool reads_try(int fuse_fd, const struct fuse_in_header *header, const struct fuse_read_in *wanted) {
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
    if (!fetch(engine.data_fd, runs, count, answer, RWF_NOWAIT))
        return read_in_worker(fuse_fd, header, wanted->size, runs, count, sealed == SEALED_SOME ? sums : NULL);
    if (sealed == SEALED_SOME && !crc32c_match(answer, wanted->size / BLOCK_BYTES, sums))
        return false; /* Python reads again, and tells what is wrong */
    reply_data(fuse_fd, header->unique, answer, wanted->size);
    return true;
}

bool reads_settle(struct job *job) {
    writes_tell();
    Py_XDECREF(PyObject_CallMethod(engine.committer, "read_ended", "L", job->ticket));
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(engine.committer);
    return job->error != 0;
}
