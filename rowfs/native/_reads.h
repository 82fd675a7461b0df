/* Reads of whole blocks of pages in memory. Trio thread, GIL held.
 *
 * What is read of sealed blocks is held against their sums (_verify.h) before it is answered; if it is not what was sealed, it
 * is left to Python. What the host has in its own memory is answered at once. Else a worker reads it: under a ticket, as Python's own cold reads
 * (Commits.begin_read), so that its blocks are not used again meanwhile.
 */
#ifndef ROWFS_READS_H
#define ROWFS_READS_H

#include "_base.h"
#include "_workers.h"

/* Whether the request was answered, or will be by a worker; else nothing happened. */
bool reads_try(int fuse_fd, const struct fuse_in_header *header, const struct fuse_read_in *wanted);
/* A worker is done with it. True: it failed, and Python has to read again, and tell what is wrong. */
bool reads_settle(struct job *job);

#endif
