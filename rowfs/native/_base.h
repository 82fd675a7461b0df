/* What all parts of the extension know. They include one another downwards only (tools/floors.py):
 *
 *   _native.c    the module; operations that pyfuse3 lacks; FUSE_INIT
 *   _receive.c   reading requests from the kernel, in pyfuse3's place and in trio's
 *   _hotpath.c   which requests are answered without Python, and when Python hears of it
 *   _reads.c     reads
 *   _syncs.c     syncs: what they have to make durable, and how
 *   _writes.c    writes, in place and to new places
 *   _workers.c   threads for what has to wait for the host
 *   _verify.c    what the blocks of a read have to sum up to
 *   _engine.c    looking at the engine's objects
 *   _record.c    records of the journal, as bytes
 *   _transfer.c  moving data between the data file, memory and the kernel
 *   _crc32c.c    the sums of blocks
 *   _wake.c      waking trio
 */
#ifndef ROWFS_BASE_H
#define ROWFS_BASE_H

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
    PAGE_BLOCKS = 512,
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

#endif
