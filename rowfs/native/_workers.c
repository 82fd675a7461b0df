/* Threads for what has to wait for the host. */
#include "_workers.h"

#include "_crc32c.h"
#include "_transfer.h"
#include "_wake.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    READERS_MAX = 16,
    TOGETHER_MAX = 64,   /* records that are written in one go */
    QUICK_US_MAX = 1000, /* a sync that takes no longer than this is done by the trio thread itself */
};

struct queue {
    struct job *first, *last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for all of these */
static pthread_cond_t wanted[JOB_KINDS] = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER},
                      all_done = PTHREAD_COND_INITIALIZER;
static struct queue queues[JOB_KINDS], done; /* what waits for a worker, and for the trio thread */
static bool trio_woken; /* for what is done */
static int threads[JOB_KINDS], idle_readers, unfinished, syncs; /* `syncs` of these */

static pthread_mutex_t sync_lock = PTHREAD_MUTEX_INITIALIZER;
static int sync_error; /* errno of the first sync that failed */
static bool journal_lost; /* a record could not be written */
static _Atomic int64_t took_us; /* how long the last sync took */

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

static bool write_durably(int fd, const struct iovec *parts, int count, off_t position, size_t size) {
    ssize_t done = pwritev2(fd, parts, count, position, RWF_DSYNC);

    if (done < 0 && errno == EOPNOTSUPP) { /* a host that cannot do both at once */
        done = pwritev(fd, parts, count, position);
        while (done == (ssize_t)size && fdatasync(fd) != 0)
            if (errno != EINTR)
                return false;
    }
    return done == (ssize_t)size;
}

/* Called with `sync_lock` held: append the records of jobs to the journal. Those that lie side by side go together. */
static void append(struct job *jobs) {
    struct iovec parts[TOGETHER_MAX];

    for (struct job *job = jobs; job != NULL && !journal_lost;) {
        off_t position = job->position;
        size_t size = 0;
        int count = 0, fd = job->journal_fd;

        for (; job != NULL && count < TOGETHER_MAX; job = job->next) {
            if (job->data == NULL)
                continue;
            if (count == 0) {
                position = job->position;
                fd = job->journal_fd;
            } else if (job->position != position + (off_t)size) {
                break; /* a commit came between: they begin anew */
            }
            parts[count++] = (struct iovec){job->data, job->size};
            size += job->size;
        }
        if (count)
            journal_lost = !write_durably(fd, parts, count, position, size);
    }
    for (struct job *job = jobs; job != NULL; job = job->next)
        job->record_lost = journal_lost && job->trusts_journal;
}

/* These two are called with `lock` held. */

static void ended(void) {
    if (--unfinished == 0)
        pthread_cond_broadcast(&all_done);
}

static void finished(struct job *job) {
    put(&done, job);
    ended();
    if (!trio_woken && (job->kind == JOB_READ || job->error || job->record_lost)) {
        trio_woken = true;
        wake_trio();
    }
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
        announce(job->data_fd, job->runs, job->count);
        errno = 0;
        if ((data != NULL || (data = transfer_buffer()) != NULL) &&
            fetch(job->data_fd, job->runs, job->count, data, 0) &&
            (job->sums == NULL || crc32c_match(data, job->size / BLOCK_BYTES, job->sums)))
            reply_data(job->fuse_fd, job->unique, data, job->size);
        else
            job->error = errno ? errno : EIO;
        pthread_mutex_lock(&lock);
        finished(job);
    }
    return unused;
}

static int64_t now_us(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Do what these syncs ask for, together, and answer those that did not fail. */
static void carry_out(struct job *jobs) {
    int64_t began;
    bool data_first = false;
    int code;

    pthread_mutex_lock(&sync_lock);
    began = now_us();
    for (struct job *job = jobs; job != NULL; job = job->next)
        data_first |= job->data_first;
    if (data_first)
        sync_file(jobs->data_fd);
    code = sync_error;
    if (code == 0)
        append(jobs);
    took_us = now_us() - began;
    pthread_mutex_unlock(&sync_lock);
    for (struct job *job = jobs; job != NULL; job = job->next)
        if (code != 0)
            job->error = code; /* answered when the pool is read-only */
        else if (!job->record_lost)
            reply_errno(job->fuse_fd, job->unique, 0);
}

static void *sync_jobs(void *unused) {
    struct job *job, *next;

    pthread_mutex_lock(&lock);
    for (;;) {
        while ((job = take_all(&queues[JOB_SYNC])) == NULL)
            pthread_cond_wait(&wanted[JOB_SYNC], &lock);
        pthread_mutex_unlock(&lock);
        carry_out(job);
        pthread_mutex_lock(&lock);
        for (; job != NULL; job = next) {
            next = job->next;
            syncs--;
            finished(job);
        }
    }
    return unused;
}

bool workers_sync_here(struct job *job) {
    bool busy;

    pthread_mutex_lock(&lock);
    busy = syncs > 0;
    pthread_mutex_unlock(&lock);
    if (busy || took_us > QUICK_US_MAX)
        return false;
    Py_BEGIN_ALLOW_THREADS
    carry_out(job);
    Py_END_ALLOW_THREADS
    pthread_mutex_lock(&lock);
    put(&done, job);
    pthread_mutex_unlock(&lock);
    return true;
}

static void *writeback_jobs(void *unused) {
    struct job *job;

    pthread_mutex_lock(&lock);
    for (;;) {
        while ((job = take_one(&queues[JOB_WRITEBACK])) == NULL)
            pthread_cond_wait(&wanted[JOB_WRITEBACK], &lock);
        pthread_mutex_unlock(&lock);
        start_writeback(job->data_fd, job->runs, job->count);
        workers_free(job);
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
        syncs += job->kind == JOB_SYNC;
        put(&queues[job->kind], job);
        pthread_cond_signal(&wanted[job->kind]);
    }
    pthread_mutex_unlock(&lock);
    return started;
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
    if (job == NULL)
        trio_woken = false;
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

void workers_free(struct job *job) {
    free(job->sums);
    free(job->data);
    free(job);
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
