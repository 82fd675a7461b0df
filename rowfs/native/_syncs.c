/* Syncs. */
#include "_syncs.h"

#include "_engine.h"
#include "_record.h"
#include "_transfer.h"
#include "_writes.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECORD_BYTES_MAX = 512 << 10, /* rowfs.persist.journal */
    RECORD_PAGES_MAX = 16,        /* rowfs.store.commit */
    RECORD_DISKS_MAX = 16,
};
enum need { NOTHING, DATA, RECORD, PYTHON };

static unsigned long long records;
static int on_their_way; /* syncs that were begun, and are not settled */

/* What a record has to hold. Pages and disks are borrowed. */
struct changes {
    struct version versions[RECORD_PAGES_MAX];
    PyObject *pages[RECORD_PAGES_MAX];
    struct counts counts[RECORD_DISKS_MAX];
    int64_t blocks[RECENT_BLOCKS_MAX];
    size_t pages_count, disks_count, blocks_count;
    bool data_first; /* more was written than a record takes */
};

/* What changed */

static bool get_id(PyObject *object, PyObject *name, uint32_t *number) {
    long long value;

    if (!get_number(object, name, &value) || value < 0 || value > UINT32_MAX)
        return false;
    *number = (uint32_t)value;
    return true;
}

static int compare(const struct version *one, const struct version *other) {
    if (one->branch != other->branch)
        return one->branch < other->branch ? -1 : 1;
    if (one->page != other->page)
        return one->page < other->page ? -1 : 1;
    return one->epoch < other->epoch ? -1 : one->epoch > other->epoch;
}

static bool add_page(struct changes *changes, PyObject *page) {
    struct version version;
    size_t at = changes->pages_count;

    if (at == RECORD_PAGES_MAX || !get_id(page, names.branch, &version.branch) ||
        !get_id(page, names.index, &version.page) || !get_id(page, names.epoch, &version.epoch))
        return false;
    for (; at && compare(&changes->versions[at - 1], &version) > 0; at--) {
        changes->versions[at] = changes->versions[at - 1];
        changes->pages[at] = changes->pages[at - 1];
    }
    changes->versions[at] = version;
    changes->pages[at] = page;
    changes->pages_count++;
    return true;
}

static bool get_counts(PyObject *disk, struct counts *counts) {
    PyObject *head = PyObject_GetAttr(disk, names.head);
    struct unaccounted more = writes_unaccounted(disk);
    long long id, size_bytes, mapped, modified_ns, changed_ns, branch, written;
    bool known = head != NULL && head != Py_None && is(disk, names.deleted, Py_False) &&
                 get_number(disk, names.id, &id) && get_number(disk, names.size_bytes, &size_bytes) &&
                 get_number(disk, names.mapped_blocks, &mapped) && get_number(disk, names.modified_ns, &modified_ns) &&
                 get_number(disk, names.changed_ns, &changed_ns) && get_number(head, names.id, &branch) &&
                 get_number(head, names.written_blocks, &written);

    Py_XDECREF(head);
    if (known)
        *counts = (struct counts){id,         size_bytes, mapped + more.mapped,  modified_ns,
                                  changed_ns, branch,     written + more.written};
    return known;
}

static bool add_disk(struct changes *changes, PyObject *disk) {
    struct counts counts;
    size_t at = changes->disks_count;

    if (at == RECORD_DISKS_MAX || !get_counts(disk, &counts))
        return false;
    for (; at && changes->counts[at - 1].disk > counts.disk; at--)
        changes->counts[at] = changes->counts[at - 1];
    changes->counts[at] = counts;
    changes->disks_count++;
    return true;
}

/* What was written since the last sync: each block once, in their order. */
static void add_blocks(struct changes *changes) {
    const int64_t *recent = engine.recent;

    changes->data_first = recent[0] > RECENT_BLOCKS_MAX;
    for (int64_t i = 1; !changes->data_first && i <= recent[0]; i++) {
        size_t at = changes->blocks_count, low = at;

        while (low && changes->blocks[low - 1] >= recent[i])
            low--;
        if (low < at && changes->blocks[low] == recent[i])
            continue;
        memmove(&changes->blocks[low + 1], &changes->blocks[low], (at - low) * sizeof(*changes->blocks));
        changes->blocks[low] = recent[i];
        changes->blocks_count++;
    }
}

static bool look_for_changes(struct changes *changes) {
    PyObject *iterator = PyObject_GetIter(engine.unjournaled), *thing;
    bool fits = iterator != NULL;

    while (fits && (thing = PyIter_Next(iterator)) != NULL) {
        fits = (PyObject *)Py_TYPE(thing) == engine.disk_type ? add_disk(changes, thing) : add_page(changes, thing);
        Py_DECREF(thing); /* the set holds it */
    }
    Py_XDECREF(iterator);
    add_blocks(changes);
    return fits && !PyErr_Occurred();
}

/* Records */

/* Read the blocks into a record. False: the host has not all of them in memory, so the data file is synced first. */
static bool put_blocks(struct record *record, const struct changes *changes) {
    char *places[RECENT_BLOCKS_MAX];
    size_t size = record->size;

    for (size_t i = 0; i < changes->blocks_count; i++)
        places[i] = record_block(record, changes->blocks[i]);
    if (fetch_blocks(engine.data_fd, changes->blocks, changes->blocks_count, places))
        return true;
    record->size = size;
    return false;
}

/* Make the record of these changes in so much room. */
static bool put_record(struct record *record, char *room, struct changes *changes, struct place *place) {
    const struct journal *journal = engine.journal;

    record_begin(record, room);
    for (size_t i = 0; i < changes->pages_count; i++) {
        struct view view;

        if (!look(changes->pages[i], &view))
            return false;
        record_page(record, &changes->versions[i], view.addresses.buf, view.owned.buf);
        look_away(&view);
    }
    for (size_t i = 0; i < changes->disks_count; i++)
        record_counts(record, &changes->counts[i]);
    if (!changes->data_first && !put_blocks(record, changes))
        changes->data_first = true;
    *place = (struct place){.commit = journal->commit,
                            .nonce = journal->nonce,
                            .number = journal->records + 1,
                            .durable = journal->durable,
                            .home = changes->data_first ? journal->records : journal->home};
    record_end(record, place);
    return true;
}

/* Where the next record goes: as Journal.place. -1: nowhere. */
static off_t place_record(size_t size) {
    struct journal *journal = engine.journal;
    off_t position = journal->next;

    journal->wanted = true;
    if (size > RECORD_BYTES_MAX || journal->is_lost)
        return -1;
    if (journal->next + (int64_t)size > journal->ready_bytes) {
        journal->crowded = journal->ready_bytes > 0;
        return -1;
    }
    journal->next += size;
    return position;
}

/* Have the job append to the journal what was changed, and what was written if that is little: as Commits.begin_record.
 * False: nothing happened. */
static bool add_record(struct job *job) {
    struct changes changes = {.pages_count = 0};
    struct journal *journal = engine.journal;
    struct record record;
    struct place place;
    long long dirty, limit;
    char *room;

    if (journal->ready_bytes == 0 || journal->is_lost) {
        journal->wanted = true;
        return false;
    }
    if (!get_number(engine.versions, names.dirty_pages, &dirty) ||
        !get_number(engine.committer, names.soft_pages, &limit) || dirty > limit || !look_for_changes(&changes))
        return false;
    room = malloc(record_room(changes.pages_count, changes.disks_count, changes.blocks_count));
    if (room == NULL)
        return false;
    if (!put_record(&record, room, &changes, &place) || (job->position = place_record(record.size)) < 0 ||
        PySet_Clear(engine.unjournaled) != 0) {
        free(room);
        return false;
    }
    job->data = room;
    job->size = record.size;
    job->data_first = changes.data_first;
    job->journal_fd = journal->fd;
    journal->records++;
    journal->home = place.home;
    journal->holds_data |= changes.blocks_count && !changes.data_first;
    journal->under_way++;
    return true;
}

/* The oldest record on its way is durable, or will never be: as Journal.ended. */
static void record_ended(void) {
    struct journal *journal = engine.journal;

    journal->under_way--;
    journal->durable = journal->records > journal->under_way ? journal->records - journal->under_way : 0;
}

/* Syncs */

static enum need needed(void) {
    const struct journal *journal = engine.journal;
    bool changed = PySet_GET_SIZE(engine.unjournaled) > 0;

    if (changed || journal->holds_data || journal->records) {
        if (!is(engine.commits, names.others_changed, Py_False))
            return PYTHON;
    } else if (!is(engine.commits, names.map_behind, Py_False)) {
        return PYTHON;
    }
    if (!changed && engine.recent[0] == 0 && !journal->is_lost)
        return NOTHING;
    return changed || journal->holds_data ? RECORD : DATA;
}

/* Whether the kernel has another request: then who waits for a sync need not be the only one. */
static bool more_requests(int fuse_fd) {
    struct pollfd fds = {.fd = fuse_fd, .events = POLLIN};

    return poll(&fds, 1, 0) > 0;
}

static bool start(struct job *job) {
    bool alone = on_their_way == 0 && !more_requests(job->fuse_fd);

    if (job->data)
        records++;
    engine.recent[0] = 0; /* what was written until now is what is made durable */
    on_their_way++;
    return (alone && workers_sync_here(job)) || workers_start(job);
}

static bool is_open(uint64_t fh) {
    PyObject *key = PyLong_FromUnsignedLongLong(fh);
    PyObject *handle = key ? PyDict_GetItemWithError(engine.handles, key) : NULL; /* borrowed */

    Py_XDECREF(key);
    return handle != NULL && is(handle, names.own, Py_False);
}

bool syncs_try(int fuse_fd, const struct fuse_in_header *header, const struct fuse_fsync_in *wanted) {
    struct job *job;
    enum need need;

    writes_tell_of_watched();
    if (!is_open(wanted->fh) || !is(engine.pool, names.read_only, Py_False) ||
        !is(engine.commits, names.failed, Py_None) || !is(engine.commits, names.running, Py_None) ||
        !is(engine.commits, names.syncing, Py_False) || !workers_can_sync() || engine_data_cut_off() || (need = needed()) == PYTHON)
        return false;
    if (need == NOTHING && on_their_way == 0) {
        reply_errno(fuse_fd, header->unique, 0);
        return true;
    }
    if (PyErr_Occurred() || (job = workers_job(JOB_SYNC, engine.data_fd, NULL, 0)) == NULL)
        return false;
    job->fuse_fd = fuse_fd;
    job->unique = header->unique;
    job->head_bytes = sizeof(*header) + sizeof(*wanted);
    memcpy(job->head, header, sizeof(*header));
    memcpy(job->head + sizeof(*header), wanted, sizeof(*wanted));
    job->data_first = need == DATA;
    if (need == RECORD && !add_record(job)) {
        workers_free(job);
        return false;
    }
    return start(job); /* with nothing of its own it waits for those before it */
}

bool syncs_settle(struct job *job) {
    on_their_way--;
    if (job->record_lost || job->error)
        writes_tell();
    if (job->record_lost) {
        Py_XDECREF(PyObject_CallMethod(engine.committer, "record_lost", NULL));
        workers_lost_told();
    }
    if (job->error)
        Py_XDECREF(PyObject_CallMethod(engine.committer, "sync_failed", "i", job->error));
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(engine.committer);
    if (job->data)
        record_ended();
    if (job->error)
        reply_errno(job->fuse_fd, job->unique, EIO);
    return job->record_lost;
}

unsigned long long syncs_records(void) {
    return records;
}
