/* Reading requests. */
#include "_receive.h"

#include "_hotpath.h"
#include "_transfer.h"
#include "_wake.h"
#include "_writes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    IN_A_ROW_MAX = 16,  /* requests before pyfuse3 has its turn */
    BUSY_US_MAX = 1000, /* of requests without a pause, before trio has its turn */
};
enum { NOTHING, REQUEST, WOKEN, OTHER };

static struct fuse_buf kept; /* a request that `linger` read and could not answer; or nothing, with size 0 */
static bool nonblocking;     /* the session's descriptor */

/* What there is to do: a request, something that workers have done, or anything that trio's epoll waits for. Waits so
 * long for it. -1 for one of the last two: it is not asked. */
static int wait_for(int fuse_fd, int own_fd, int epoll_fd, int timeout_ms) {
    struct pollfd fds[] = {{.fd = fuse_fd, .events = POLLIN},
                           {.fd = own_fd, .events = POLLIN},
                           {.fd = epoll_fd, .events = POLLIN}};

    if (poll(fds, 3, timeout_ms) < 1)
        return NOTHING;
    return fds[0].revents ? REQUEST : fds[1].revents ? WOKEN : OTHER;
}

static bool has_memory(struct fuse_buf *buf) {
    if (buf->mem == NULL)
        buf->mem = malloc(BUFFER_BYTES); /* pyfuse3 frees its own */
    return buf->mem != NULL;
}

/* The size of a request in `buf`; 0 when it needs no more, or there was none; a negative errno. */
static ssize_t receive(int fd, struct fuse_buf *buf) {
    static char *buffer;
    char *request;
    ssize_t size;

    if (!has_memory(buf) || (buffer == NULL && (buffer = transfer_buffer()) == NULL))
        return -ENOMEM;
    request = transfer_request(buffer);
    size = read(fd, request, BUFFER_BYTES);
    if (size < 0)
        return errno == ENOENT || errno == EAGAIN || errno == EINTR ? 0 : -errno; /* ENOENT: it was interrupted */
    if (hotpath_try(fd, request, size))
        return 0;
    memcpy(buf->mem, request, size); /* which pyfuse3 frees, so it has to begin where it was allocated */
    buf->size = size;
    buf->flags = 0;
    return size;
}

/* As libfuse's: the size of a request that is in `buf`, 0 when the mount is gone, a negative errno. -EINTR says that
 * there is none, upon which pyfuse3 waits for the next.
 *
 * It reads into memory always. libfuse's splices larger requests into a pipe, which pays only for who passes them on. */
static int next_request(struct fuse_session *se, struct fuse_buf *buf) {
    int fd = fuse_session_fd(se);
    ssize_t size;

    if (!nonblocking) /* a request that was announced may be withdrawn before it is read */
        nonblocking = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0;
    woken(); /* before looking, or what comes meanwhile is missed */
    hotpath_settle();
    if (!has_memory(buf))
        return -EINTR; /* an error would end the mount: there may be memory later */
    if ((size = hotpath_refused(buf->mem)) > 0) {
        wake_trio(); /* there may be more of these */
        buf->size = size;
        buf->flags = 0;
        return (int)size;
    }
    if (kept.size) {
        struct fuse_buf mine = *buf;

        *buf = kept;
        kept = (struct fuse_buf){.mem = mine.mem};
        return (int)buf->size;
    }
    for (int row = 0; row < IN_A_ROW_MAX && wait_for(fd, -1, -1, 0) == REQUEST; row++) {
        size = receive(fd, buf);
        if (size == -ENODEV) {
            fuse_session_exit(se);
            return 0;
        }
        if (size == -ENOMEM)
            return -EINTR;
        if (size != 0)
            return (int)size;
    }
    return -EINTR;
}

int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf) {
    int result = next_request(se, buf);

    writes_tell();
    return result;
}

static int64_t now_us(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Answer requests until there is something for trio: a request for Python, an event that it waits for, or `timeout_ms` is
 * over. Except for an event, trio has to be woken then, since it is going to wait for that time once more. */
static void linger(int fuse_fd, int epoll_fd, int timeout_ms) {
    int64_t now = now_us(), end = now + (int64_t)timeout_ms * 1000, busy_since = now;

    hotpath_settle();
    while (kept.size == 0 && hotpath_refused(NULL) == 0 && now < end && now - busy_since < BUSY_US_MAX) {
        int what = wait_for(fuse_fd, wake_descriptor(false), epoll_fd, 0);

        if (what == NOTHING) {
            Py_BEGIN_ALLOW_THREADS
            what = wait_for(fuse_fd, wake_descriptor(false), epoll_fd, (int)((end - now + 999) / 1000));
            Py_END_ALLOW_THREADS
            busy_since = now_us();
        }
        if (what == OTHER)
            return;
        if (what == WOKEN) {
            woken();
            hotpath_settle();
        }
        if (what == REQUEST && receive(fuse_fd, &kept) < 0)
            break; /* pyfuse3's task will see it too */
        now = now_us();
    }
    wake_trio();
}

PyObject *native_linger(PyObject *self, PyObject *args) {
    int fuse_fd, epoll_fd, timeout_ms;

    (void)self;
    if (!PyArg_ParseTuple(args, "iii", &fuse_fd, &epoll_fd, &timeout_ms))
        return NULL;
    linger(fuse_fd, epoll_fd, timeout_ms);
    hotpath_settle();
    writes_tell();
    Py_RETURN_NONE;
}

PyObject *native_wake_fd(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    if (wake_descriptor(true) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(wake_descriptor(false));
}
