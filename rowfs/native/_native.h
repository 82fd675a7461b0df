/* What the parts of the extension share.
 *
 *   _native.c    the module; operations that pyfuse3 lacks; FUSE_INIT
 *   _receive.c   reading requests from the kernel, in pyfuse3's place and in trio's
 *   _hotpath.c   which requests are answered without Python, and how
 *   _writes.c    the writes among them
 *   _engine.c    looking at the engine's objects
 *   _workers.c   threads for those of them that have to wait for the host
 *   _transfer.c  moving data between the data file, memory and the kernel
 *   _verify.c    what the blocks of a read have to sum up to, and whether they do
 *   _crc32c.c    the sums of blocks
 */
#ifndef ROWFS_NATIVE_H
#define ROWFS_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <linux/fuse.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    BLOCK_BYTES = 4096,
    REQUEST_BYTES_MAX = 1 << 20,                    /* the data of one read or write: libfuse's limit too */
    BUFFER_BYTES = REQUEST_BYTES_MAX + BLOCK_BYTES, /* a request and its data, as libfuse has it */
    BLOCKS_MAX = REQUEST_BYTES_MAX / BLOCK_BYTES,
    LARGE_BYTES = 128 << 10, /* from here on, copying takes long enough to let others run */
};

/* A range of consecutive blocks of a request. */
struct run {
    off_t position; /* in the data file; -1: a hole */
    size_t start;   /* in the request's data */
    size_t length;
};

/* _hotpath.c: trio thread, GIL held */

/* Whether the request was answered, or will be by a worker; else nothing happened. */
bool hotpath_try(int fuse_fd, const char *request, size_t size);
/* Tell Python of the jobs that are done. */
void hotpath_settle(void);
/* A request that failed in a worker, for Python: it is copied to `request`, which has room for HEAD_BYTES, and its size
 * returned; 0: there is none. Without `request` it stays. */
size_t hotpath_refused(char *request);
/* Return when nothing that was begun is left. */
void hotpath_finish(void);

/* _writes.c: trio thread, GIL held */

/* Whether the write was answered; else nothing happened that Python may not do again. */
bool try_write(int fuse_fd, const struct fuse_in_header *header, const struct fuse_write_in *wanted, const char *data);
/* Before Python runs: tell it of the blocks that were written to new places. */
void writes_tell(void);

/* _transfer.c: any thread */

/* A buffer with room for a request or an answer, aligned to blocks; for free(3). NULL: there is no memory. */
char *transfer_buffer(void);
/* Where in such a buffer to receive a request, so that the data of a write is aligned; BUFFER_BYTES fit. */
char *transfer_request(char *buffer);
/* Answer a request with data, or an errno (positive). */
void reply_data(int fuse_fd, uint64_t unique, const void *data, size_t size);
void reply_errno(int fuse_fd, uint64_t unique, int code);
/* Fill `data` from the runs; `flags` as preadv2(2) has them. False: failed, or short. */
bool fetch(int data_fd, const struct run *runs, size_t count, char *data, int flags);
/* Write the runs from `data`. False: failed, or short. */
bool store(int data_fd, const struct run *runs, size_t count, const char *data);
/* Have the host begin to write the runs to its disk. It waits only while the disk has too much to do. */
void start_writeback(int data_fd, const struct run *runs, size_t count);

/* _workers.c */

enum job_kind { JOB_READ, JOB_SYNC, JOB_WRITEBACK, JOB_KINDS };
enum { HEAD_BYTES = 128 }; /* a request without data: read or fsync */

struct job {
    struct job *next;
    enum job_kind kind;
    int fuse_fd, data_fd;
    uint64_t unique;
    int error;           /* errno of what failed */
    bool data_first;     /* of a sync: the data file has to be synced, before a record is written if there is one */
    bool awaits_record;  /* of a sync: `workers_record` has not been called */
    bool given_up;       /* of a sync: it is left to Python */
    bool trusts_journal; /* of a sync: what it answers for may be in records that are under way */
    bool record_lost;    /* of a sync: it must not be answered, for one of these could not be written */
    PyObject *record;    /* of a sync, or NULL: bytes to append to the journal; for the trio thread to let go of */
    int journal_fd;
    off_t position;      /* in the journal */
    long long ticket;    /* of Commits.begin_read */
    size_t head_bytes;
    char head[HEAD_BYTES]; /* the request, for Python if it fails */
    char *data;   /* of a sync: the record's */
    size_t size;  /* of this, or of the answer to a read */
    uint32_t *sums; /* of a read, or NULL: what its blocks have to sum up to, 0 for each that is not sealed */
    size_t count; /* of runs */
    struct run runs[];
};

/* A job for these runs, for workers_free; NULL: there is no memory. */
struct job *workers_job(enum job_kind kind, int data_fd, const struct run *runs, size_t count);
void workers_free(struct job *job);
/* Trio thread: have a worker do a job, which is the worker's then. False: there is no thread to be had. */
bool workers_start(struct job *job);
/* Trio thread, GIL held: do a sync at once, and answer it if it did not fail. The job stays the caller's. False: nothing
 * was done, for others are at it, or the host's disk takes long. */
bool workers_sync_here(struct job *job);
/* Trio thread: the record of a sync that was started without it is in the job now; or the sync is left to Python. */
void workers_record(struct job *job, bool given_up);
/* Trio thread: whether there is a thread that syncs; then no start of a sync fails. */
bool workers_can_sync(void);
/* Trio thread: a read or sync that is done, for the caller to free; NULL: there is none. */
struct job *workers_done(void);
/* Trio thread, GIL held: return when every job is done. */
void workers_finish(void);
/* Trio thread: a pool begins, whose journal is whole. */
void workers_begin(void);
/* Trio thread: Python knows that a record was lost. Who comes now trusts in none. */
void workers_lost_told(void);
/* Any thread: fdatasync of the data file, one at a time. 0, or the errno of the first sync that ever failed. */
int sync_data(int fd);

/* _verify.c */

enum sealed { SEALED_NONE, SEALED_SOME, SEALED_UNKNOWN };
/* Trio thread, GIL held: what the blocks of the runs have to sum up to, in `sums`, 0 for those that are not sealed. UNKNOWN:
 * Python has to look. NONE: `sums` is as it was. */
enum sealed verify_expected(const struct run *runs, size_t count, uint32_t *sums);
/* Any thread: whether the blocks of `data` sum up to what they have to. */
bool verify(const char *data, size_t size, const uint32_t *sums);

/* _receive.c */

/* Any thread: have trio's turn come soon. */
void wake_trio(void);

/* Methods of the module */
PyObject *native_serve(PyObject *self, PyObject *args);
PyObject *native_stop(PyObject *self, PyObject *args);
PyObject *native_try_requests(PyObject *self, PyObject *args);
PyObject *native_sync_data(PyObject *self, PyObject *args);
PyObject *native_served(PyObject *self, PyObject *args);
PyObject *native_linger(PyObject *self, PyObject *args);
PyObject *native_wake_fd(PyObject *self, PyObject *args);
PyObject *native_block_sums(PyObject *self, PyObject *args);

#endif
