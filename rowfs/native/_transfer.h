/* Moving data: between the data file, memory and /dev/fuse. Any thread, no Python, no state. */
#ifndef ROWFS_TRANSFER_H
#define ROWFS_TRANSFER_H

#include "_base.h"

/* A buffer with room for a request or an answer, aligned to blocks; for free(3). NULL: there is no memory. */
char *transfer_buffer(void);
/* Where in such a buffer to receive a request, so that the data of a write is aligned; BUFFER_BYTES fit. */
char *transfer_request(char *buffer);
/* Answer a request with data, or an errno (positive). */
void reply_data(int fuse_fd, uint64_t unique, const void *data, size_t size);
void reply_errno(int fuse_fd, uint64_t unique, int code);
/* Fill `data` from the runs; `flags` as preadv2(2) has them. False: failed, or short. */
bool fetch(int data_fd, const struct run *runs, size_t count, char *data, int flags);
/* Have the host begin to read the runs from its disk, if there are several: else each would be waited for by itself. */
void announce(int data_fd, const struct run *runs, size_t count);
/* Read blocks at these addresses, each to its place, if the host has them in memory, or cannot tell. False: failed. */
bool fetch_blocks(int data_fd, const int64_t *addresses, size_t count, char *const *places);
/* Write the runs from `data`. False: failed, or short. */
bool store(int data_fd, const struct run *runs, size_t count, const char *data);
/* Have the host begin to write the runs to its disk. It waits only while the disk has too much to do. */
void start_writeback(int data_fd, const struct run *runs, size_t count);

#endif
