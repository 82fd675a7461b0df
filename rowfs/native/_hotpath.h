/* The hot path: aligned reads and writes of pages in memory, and syncs of what writing changed, answered before pyfuse3 sees
 * them. Trio thread, GIL held.
 *
 *   - Python decides, C only executes, from the very objects that the engine uses (_engine.h).
 *   - All of it runs between two awaits, with the GIL held from the first look at a page until its data is written: nothing
 *     can change in between. While a large write copies its data, and while the host syncs, the GIL is let go of: other
 *     threads neither change nor look at the engine's state (docs/CONCURRENCY.md).
 *   - Whatever has to wait for the host goes to a worker (_workers.h), except where nobody else wants anything of this thread.
 *   - What Linux writes back from its own cache in large pieces, the host is told to write to its disk at once, by a worker.
 *   - Whatever is unusual is left to Python: a page that is not in memory, a range that the head owns in part, zeros where
 *     space is short, sums that are not in memory, blocks that are not what was sealed, a range that is not aligned or ends past the disk, a handle with O_SYNC, a pool that is read-only or
 *     full, a failed or short system call. A write that Python does again writes the same bytes to the same blocks. Of a
 *     sync that failed, Python is told (Committer.sync_failed), and then its caller.
 */
#ifndef ROWFS_HOTPATH_H
#define ROWFS_HOTPATH_H

#include "_base.h"

enum { REFUSED_BYTES = 128 }; /* room for a request without data */

/* Whether the request was answered, or will be by a worker; else nothing happened. */
bool hotpath_try(int fuse_fd, const char *request, size_t size);
/* Take note of the jobs that are done. */
void hotpath_settle(void);
/* A request that failed in a worker, for Python: it is copied to `request`, which has room for REFUSED_BYTES, and its size
 * returned; 0: there is none. Without `request` it stays. */
size_t hotpath_refused(char *request);

/* Methods of the module */
PyObject *native_serve(PyObject *self, PyObject *args);
PyObject *native_stop(PyObject *self, PyObject *args);
PyObject *native_try_requests(PyObject *self, PyObject *args);
PyObject *native_sync_data(PyObject *self, PyObject *args);
PyObject *native_served(PyObject *self, PyObject *args);

#endif
