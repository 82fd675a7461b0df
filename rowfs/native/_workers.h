/* Threads for what has to wait for the host: cold reads, syncs of the data file, and the start of its writeback.
 *
 * A worker touches its job and nothing else: no Python, no state of the engine. The trio thread makes jobs and takes them
 * back when they are done (`workers_done`), which is when Python hears of them. What succeeded was answered by then; the trio
 * thread is woken for what failed, and for reads, for whose tickets somebody may wait. It looks before Python runs.
 *
 * Syncs: all that wait share one fdatasync, and there is never more than one at a time, Python's own commits included
 * (`sync_data`). The kernel tells a failed write to one fdatasync alone, so after a failure nobody may ask again: from
 * then on all of them fail. Records of the journal are written after that, in the order in which they were placed, those
 * that wait together with one synced write. Where they hold what was written, that is all, and no fdatasync is needed. A
 * record that cannot be written is no harm: the commit of the map has all of it. But nobody may be told that it is
 * durable, nor may anyone whose sync came after it; they are left to Python, which has a commit made and never uses the
 * journal again.
 *
 * While one client waits for its syncs, one after the other, handing them to a thread and back takes nearly as long as a
 * quick disk does. So where no other sync is under way, and the last one was quick, the trio thread does it itself.
 *
 * Writeback: Linux hands over what it has cached when that is to be on the disk, mostly because somebody waits for an fsync.
 * So the host is told to begin with it, and has less left to do when the sync comes. That changes no data and frees none:
 * it may come late or not at all, whatever the blocks are used for by then, and nobody waits for these jobs.
 */
#ifndef ROWFS_WORKERS_H
#define ROWFS_WORKERS_H

#include "_base.h"

enum job_kind { JOB_READ, JOB_SYNC, JOB_WRITEBACK, JOB_KINDS };
enum { HEAD_BYTES = 128 }; /* a request without data: read or fsync */

struct job {
    struct job *next;
    enum job_kind kind;
    int fuse_fd, data_fd;
    uint64_t unique;
    int error;           /* errno of what failed */
    bool data_first;     /* of a sync: the data file has to be synced, before a record is written if there is one */
    bool trusts_journal; /* of a sync: what it answers for may be in records that are under way */
    bool record_lost;    /* of a sync: it must not be answered, for one of these could not be written */
    int journal_fd;
    off_t position;   /* in the journal */
    long long ticket; /* of a read: of Commits.begin_read */
    size_t head_bytes;
    char head[HEAD_BYTES]; /* the request, for Python if it fails */
    char *data;   /* of a sync: a record to append to the journal, for free(3), or NULL */
    size_t size;  /* of this, or of the answer to a read */
    uint32_t *sums; /* of a read, or NULL: what its blocks have to sum up to, 0 for each that is not sealed */
    size_t count;   /* of runs */
    struct run runs[];
};

/* A job for these runs; NULL: there is no memory. */
struct job *workers_job(enum job_kind kind, int data_fd, const struct run *runs, size_t count);
void workers_free(struct job *job);
/* Trio thread: have a worker do a job, which is the worker's then. False: there is no thread to be had. */
bool workers_start(struct job *job);
/* Trio thread, GIL held, which is let go of meanwhile: do a sync at once; it is done then. False: nothing was done, for
 * others are at it, or the host's disk takes long. */
bool workers_sync_here(struct job *job);
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

#endif
