/* Reading requests from the kernel: in pyfuse3's place, and in trio's while that has nothing to do.
 *
 * pyfuse3 reads each request with libfuse's fuse_session_receive_buf(); the dynamic linker finds the one here first (see
 * _native.c). It reads requests, has those answered that need no Python (_hotpath.h), and returns with the first other.
 *
 * When trio is about to wait, `linger` waits in its place (mount/polling.py): for the session's descriptor, and for trio's
 * own epoll, so that nothing else comes late. What it reads and cannot answer is kept for pyfuse3, whose task waits for
 * `wake_fd` as well.
 */
#ifndef ROWFS_RECEIVE_H
#define ROWFS_RECEIVE_H

#include "_base.h"

/* Methods of the module */
PyObject *native_linger(PyObject *self, PyObject *args);
PyObject *native_wake_fd(PyObject *self, PyObject *args);

#endif
