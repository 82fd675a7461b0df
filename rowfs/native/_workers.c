/* Threads for what has to wait for the host: cold reads, syncs of the data file, and the start of its writeback.
 *
 * A worker touches its job and nothing else: no Python, no state of the engine. The trio thread makes jobs and takes them
 * back when they are done (`workers_done`), which is when Python hears of them. What succeeded was answered by then.
 *
 * Syncs: all that wait share one fdatasync, and there is never more than one at a time, Python's own commits included
 * (`sync_data`). The kernel tells a failed write to one fdatasync alone, so after a failure nobody may ask again: from
 * then on all of them fail. Records of the journal are written after that, in the order in which they were placed, and
 * share a sync of their own. They are made while the data is on its way (`workers_record`). A record that cannot be
 * written is no harm: the commit of the map has all of it. But nobody may be told that it is durable, nor may anyone whose
 * sync came after it; they are left to Python, which has a commit made and never uses the journal again.
 *
 * Writeback: Linux hands over what it has cached when that is to be on the disk, mostly because somebody waits for an fsync.
 * So the host is told to begin with it, and has less left to do when the sync comes. That changes no data and frees none:
 * it may come late or not at all, whatever the blocks are used for by then, and nobody waits for these jobs.
 */
#include "_native.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READERS_MAX = 16 };

struct queue {
    struct job *first, *last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for all of these */
static pthread_cond_t wanted[JOB_KINDS] = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER},
                      record_made = PTHREAD_COND_INITIALIZER, all_done = PTHREAD_COND_INITIALIZER;
static struct queue queues[JOB_KINDS], done; /* what waits for a worker, and for the trio thread */
static int threads[JOB_KINDS], idle_readers, unfinished;

static pthread_mutex_t sync_lock = PTHREAD_MUTEX_INITIALIZER;
static int sync_error; /* errno of the first sync that failed */
static bool journal_lost; /* a record could not be written */

static bool lost_told; /* trio thread: Python knows of that */

static void put(struct queue *queue, struct job *job) {
    job->next = NULL;
    if (queue->first == NULL)
        queue->first = job;
    else
        queue->last->next = job;
    queue->last = job;
}

static struct job *take_all(struct queue *queue) {
    struct job *first = queue->first;

    queue->first = NULL;
    return first;
}

static struct job *take_one(struct queue *queue) {
    struct job *job = queue->first;

    if (job != NULL)
        queue->first = job->next;
    return job;
}

/* Called with `sync_lock` held. */
static void sync_file(int fd) {
    while (sync_error == 0 && fdatasync(fd) != 0)
        if (errno != EINTR)
            sync_error = errno;
}

int sync_data(int fd) {
    int code;

    pthread_mutex_lock(&sync_lock);
    sync_file(fd);
    code = sync_error;
    pthread_mutex_unlock(&sync_lock);
    return code;
}

/* Called with `sync_lock` held: append the records of jobs to the journal. */
static void append(struct job *jobs) {
    int journal_fd = -1;

    for (struct job *job = jobs; job != NULL && !journal_lost; job = job->next) {
        if (job->record == NULL)
            continue;
        journal_fd = job->journal_fd;
        journal_lost = pwrite(journal_fd, job->data, job->size, job->position) != (ssize_t)job->size;
    }
    while (journal_fd >= 0 && !journal_lost && fdatasync(journal_fd) != 0)
        journal_lost = errno != EINTR;
    for (struct job *job = jobs; job != NULL; job = job->next)
        job->record_lost = journal_lost && job->trusts_journal;
}

/* These two are called with `lock` held. */

static void ended(void) {
    if (--unfinished == 0)
        pthread_cond_broadcast(&all_done);
}

static void finished(struct job *job) {
    bool first = done.first == NULL;

    put(&done, job);
    ended();
    if (first)
        wake_trio();
}

static void *read_jobs(void *unused) {
    char *data = NULL; /* as long as the thread: new memory takes as long as reading into it */
    struct job *job;

    pthread_mutex_lock(&lock);
    for (;;) {
        while ((job = take_one(&queues[JOB_READ])) == NULL) {
            idle_readers++;
            pthread_cond_wait(&wanted[JOB_READ], &lock);
            idle_readers--;
        }
        pthread_mutex_unlock(&lock);
        errno = 0;
        if ((data != NULL || (data = transfer_buffer()) != NULL) && fetch(job->data_fd, job->runs, job->count, data, 0))
            reply_data(job->fuse_fd, job->unique, data, job->size);
        else
            job->error = errno ? errno : EIO;
        pthread_mutex_lock(&lock);
        finished(job);
    }
    return unused;
}

/* Return when the trio thread has made the records of jobs, which it is about to. */
static void await_records(const struct job *job) {
    pthread_mutex_lock(&lock);
    for (; job != NULL; job = job->next)
        while (job->awaits_record)
            pthread_cond_wait(&record_made, &lock);
    pthread_mutex_unlock(&lock);
}

static void *sync_jobs(void *unused) {
    struct job *job, *next;
    int code;

    pthread_mutex_lock(&lock);
    for (;;) {
        while ((job = take_all(&queues[JOB_SYNC])) == NULL)
            pthread_cond_wait(&wanted[JOB_SYNC], &lock);
        pthread_mutex_unlock(&lock);
        pthread_mutex_lock(&sync_lock);
        sync_file(job->data_fd);
        await_records(job);
        code = sync_error;
        if (code == 0)
            append(job);
        pthread_mutex_unlock(&sync_lock);
        for (struct job *each = job; each != NULL; each = each->next)
            if (code != 0)
                each->error = code; /* answered when the pool is read-only */
            else if (!each->given_up && !each->record_lost)
                reply_errno(each->fuse_fd, each->unique, 0);
        pthread_mutex_lock(&lock);
        for (; job != NULL; job = next) {
            next = job->next;
            finished(job);
        }
    }
    return unused;
}

static void *writeback_jobs(void *unused) {
    struct job *job;

    pthread_mutex_lock(&lock);
    for (;;) {
        while ((job = take_one(&queues[JOB_WRITEBACK])) == NULL)
            pthread_cond_wait(&wanted[JOB_WRITEBACK], &lock);
        pthread_mutex_unlock(&lock);
        start_writeback(job->data_fd, job->runs, job->count);
        free(job);
        pthread_mutex_lock(&lock);
        ended();
    }
    return unused;
}

static bool start_thread(void *(*body)(void *)) {
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, NULL) != 0)
        return false;
    pthread_detach(thread);
    return true;
}

/* Whether there is a thread for such a job: one for each kind, but for reads more while all are busy. */
static bool has_thread(enum job_kind kind) {
    static void *(*const bodies[JOB_KINDS])(void *) = {read_jobs, sync_jobs, writeback_jobs};
    bool more = kind == JOB_READ ? idle_readers == 0 && threads[kind] < READERS_MAX : threads[kind] == 0;

    if (more && start_thread(bodies[kind]))
        threads[kind]++;
    return threads[kind] > 0;
}

bool workers_start(struct job *job) {
    bool started;

    pthread_mutex_lock(&lock);
    if ((started = has_thread(job->kind))) {
        unfinished++;
        put(&queues[job->kind], job);
        pthread_cond_signal(&wanted[job->kind]);
    }
    pthread_mutex_unlock(&lock);
    return started;
}

void workers_record(struct job *job, bool given_up) {
    pthread_mutex_lock(&lock);
    job->awaits_record = false;
    job->given_up = given_up;
    pthread_cond_signal(&record_made);
    pthread_mutex_unlock(&lock);
}

void workers_begin(void) {
    pthread_mutex_lock(&sync_lock);
    journal_lost = lost_told = false;
    pthread_mutex_unlock(&sync_lock);
}

void workers_lost_told(void) {
    lost_told = true;
}

bool workers_can_sync(void) {
    bool can;

    pthread_mutex_lock(&lock);
    can = has_thread(JOB_SYNC);
    pthread_mutex_unlock(&lock);
    return can;
}

struct job *workers_done(void) {
    struct job *job;

    pthread_mutex_lock(&lock);
    job = take_one(&done);
    pthread_mutex_unlock(&lock);
    return job;
}

void workers_finish(void) {
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&lock);
    while (unfinished)
        pthread_cond_wait(&all_done, &lock);
    pthread_mutex_unlock(&lock);
    Py_END_ALLOW_THREADS
}

struct job *workers_job(enum job_kind kind, int data_fd, const struct run *runs, size_t count) {
    struct job *job = calloc(1, sizeof(*job) + count * sizeof(*runs));

    if (job == NULL)
        return NULL;
    job->kind = kind;
    job->data_fd = data_fd;
    job->trusts_journal = !lost_told;
    job->count = count;
    if (count)
        memcpy(job->runs, runs, count * sizeof(*runs));
    return job;
}
