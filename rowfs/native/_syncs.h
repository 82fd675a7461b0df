/* Syncs: what they have to make durable, and how. Trio thread, GIL held; it is let go of while the host syncs.
 *
 * Who asks is answered where the request was received, if nobody else wants anything of this thread; else by a worker
 * (_workers.h). What a sync needs:
 *
 *   - nothing, if nothing was changed since the last one began, and that is done;
 *   - a sync of the data file, if the map is as the last commit left it, and no record since then holds data;
 *   - a record of the journal, if heads map other blocks, and nothing else changed, or records since the last commit hold
 *     data: replay would put that over what a sync of the data file alone had made durable. It holds what was written since
 *     the last sync, or says that the data file was synced before. These rules, and what a record holds, are those of
 *     rowfs.store.commit (`begin_record`), and it is the same to the byte as Python's.
 *   - Python, for all else: other changes, too many of them, a commit that is running, a journal that is full, or lost.
 *
 * What Python and C both keep of the journal, and of what it does not hold yet, lies in one place (`engine.journal`, `recent`,
 * `unjournaled`): there is nothing to tell. `io.unsynced` stays as it is.
 */
#ifndef ROWFS_SYNCS_H
#define ROWFS_SYNCS_H

#include "_base.h"
#include "_workers.h"

/* Whether the sync was answered, or is on its way; else nothing happened. */
bool syncs_try(int fuse_fd, const struct fuse_in_header *header, const struct fuse_fsync_in *wanted);
/* It is done. True: it was not answered, for its record was lost, and Python has to have the map committed. */
bool syncs_settle(struct job *job);
/* How many were answered with a record that was made here. */
unsigned long long syncs_records(void);

#endif
