/* Writes of whole blocks: in place where the head owns them, else to new places (redirect-on-write). Trio thread, GIL held.
 *
 * `addresses` and `owned` of a page are Python's. C writes to them only where Python has made the page the head's own (a
 * version after the floor, dirty, so that no commit reads it) and has claimed free blocks for the head
 * (rowfs.persist.space): then it puts the next of these into slots of which the page owns nothing.
 *
 * All that Python keeps beside the page:
 *   - what the journal's next record has to hold, and what was written since the last sync, C notes with each write;
 *   - the free space, and how much a disk maps, Python is told of many at once (`writes_tell`), for telling it of each takes
 *     longer than all else that C does for a write: always before Python runs, so it never sees a page that has blocks of
 *     which the free space does not know. (Except for Versions.writable, which looks at pages alone.) C's own records of the journal may be made before that (`writes_unaccounted`):
 *     replay takes from the free space whatever their pages own.
 *
 * What only Python can do, it is asked for: to make a version of a page or a copy, with the first write to it since a snapshot
 * or a commit began (Versions.writable); to write where a claim is used up, or the page is an owner of the blocks, but not
 * alone or not for good (DiskIO.redirect).
 */
#ifndef ROWFS_WRITES_H
#define ROWFS_WRITES_H

#include "_base.h"

/* Whether the write was answered; else nothing happened that Python may not do again. */
bool writes_try(int fuse_fd, const struct fuse_in_header *header, const struct fuse_write_in *wanted, const char *data);
/* Before Python runs: tell it of the blocks that were written to new places. */
void writes_tell(void);
/* Before a sync: tell it of those that it also has to note something about which has to be durable then. */
void writes_tell_of_watched(void);

/* What Python has not been told of a disk: of how many blocks more it maps, and how many more were written. */
struct unaccounted {
    long long mapped, written;
};
struct unaccounted writes_unaccounted(PyObject *disk);

#endif
