/* What pyfuse3 does not hand on, given to Python beside it.
 *
 * pyfuse3 calls libfuse's fuse_session_new() and fuse_session_process_buf() as undefined symbols. This module is loaded
 * with RTLD_GLOBAL before pyfuse3 and exports functions of those names, so the dynamic linker finds ours first; they call
 * the real ones (RTLD_NEXT). No part of pyfuse3 or libfuse is changed.
 *
 *   fuse_session_new            copies the operations table and adds fallocate, lseek, copy_file_range; wraps init
 *   fuse_session_process_buf    adds FUSE_HANDLE_KILLPRIV_V2 to the answer to FUSE_INIT (see patch_init)
 *   fuse_session_receive_buf    reads requests and answers the commonest itself (_receive.h)
 *
 * Contract with Python (native/extension.py):
 *   - Everything here runs on the trio thread with the GIL held, as pyfuse3's own handlers do.
 *   - A handler gets the request as an integer that it must answer exactly once, with reply_error, reply_offset or
 *     reply_count, at any later time on the same thread. It must not raise; if it does, the request is answered EIO.
 */
#include "_hotpath.h"
#include "_pagecode.h"
#include "_receive.h"
#include "_verify.h"

#include "_crc32c.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#undef fuse_session_new

/* linux/fuse.h of Debian 12 has it; older ones do not. */
#ifndef FUSE_HANDLE_KILLPRIV_V2
#define FUSE_HANDLE_KILLPRIV_V2 (1 << 28)
#endif

static const unsigned BACKGROUND_REQUESTS = 64; /* libfuse's default of 12 keeps a queue of 16 waiting */

static PyObject *handlers; /* tuple: fallocate, lseek, copy_file_range; NULL: not registered */
static int sessions;       /* made through us: 0 says that pyfuse3 was loaded first and the module has no effect */
static void (*python_init)(void *userdata, struct fuse_conn_info *conn);

/* Operations */

static void call(fuse_req_t req, int which, const char *format, ...) {
    va_list arguments;
    PyObject *values, *result = NULL;

    va_start(arguments, format);
    values = Py_VaBuildValue(format, arguments);
    va_end(arguments);
    if (values != NULL && handlers != NULL)
        result = PyObject_CallObject(PyTuple_GET_ITEM(handlers, which), values);
    if (result == NULL) {
        if (PyErr_Occurred())
            PyErr_WriteUnraisable(handlers);
        fuse_reply_err(req, handlers == NULL ? ENOSYS : EIO);
    }
    Py_XDECREF(result);
    Py_XDECREF(values);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi) {
    (void)ino;
    call(req, 0, "(nKiLL)", (Py_ssize_t)req, (unsigned long long)fi->fh, mode, (long long)offset, (long long)length);
}

static void on_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi) {
    (void)ino;
    call(req, 1, "(nKLi)", (Py_ssize_t)req, (unsigned long long)fi->fh, (long long)offset, whence);
}

static void on_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
                               fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t length,
                               int flags) {
    (void)ino_in;
    (void)ino_out;
    (void)flags;
    call(req, 2, "(nKLKLn)", (Py_ssize_t)req, (unsigned long long)fi_in->fh, (long long)off_in,
         (unsigned long long)fi_out->fh, (long long)off_out, (Py_ssize_t)length);
}

static void on_init(void *userdata, struct fuse_conn_info *conn) {
    conn->max_background = BACKGROUND_REQUESTS;
    conn->congestion_threshold = BACKGROUND_REQUESTS * 3 / 4;
    if (python_init != NULL)
        python_init(userdata, conn);
    if (conn->max_write > REQUEST_BYTES_MAX)
        conn->max_write = REQUEST_BYTES_MAX; /* what _receive.c has room for */
}

/* Never freed: libfuse copies it, but pyfuse3 makes one session for the life of the process. */
static const struct fuse_lowlevel_ops *extended(const struct fuse_lowlevel_ops *ops, size_t *size) {
    size_t room = *size > sizeof(*ops) ? *size : sizeof(*ops);
    struct fuse_lowlevel_ops *more = calloc(1, room);

    if (more == NULL)
        return ops;
    memcpy(more, ops, *size);
    *size = room;
    python_init = more->init;
    more->init = on_init;
    more->fallocate = on_fallocate;
    more->lseek = on_lseek;
    more->copy_file_range = on_copy_file_range;
    sessions++;
    return more;
}

struct fuse_session *fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t size,
                                      void *userdata) {
    struct fuse_session *(*real)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *) =
        dlsym(RTLD_NEXT, "fuse_session_new");

    if (real == NULL) /* libfuse is not in the global scope: ask for it by name */
        real = dlsym(dlopen("libfuse3.so.3", RTLD_NOW | RTLD_NOLOAD), "fuse_session_new");
    ops = extended(ops, &size);
    return real(args, ops, size, userdata);
}

/* What programs built against libfuse 3.17 or newer call; `version` is theirs to fill and libfuse's to read. */
struct fuse_session *fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t size,
                                                void *version, void *userdata) {
    struct fuse_session *(*real)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *, void *) =
        dlsym(RTLD_NEXT, "fuse_session_new_versioned");

    if (real == NULL)
        real = dlsym(dlopen("libfuse3.so.3", RTLD_NOW | RTLD_NOLOAD), "fuse_session_new_versioned");
    ops = extended(ops, &size);
    return real(args, ops, size, version, userdata);
}

/* FUSE_INIT */

static void real_process_buf(struct fuse_session *se, const struct fuse_buf *buf) {
    static void (*real)(struct fuse_session *, const struct fuse_buf *);

    if (real == NULL)
        real = dlsym(RTLD_NEXT, "fuse_session_process_buf");
    if (real == NULL)
        real = dlsym(dlopen("libfuse3.so.3", RTLD_NOW | RTLD_NOLOAD), "fuse_session_process_buf");
    real(se, buf);
}

/* Before each write the kernel asks for security.capability, to drop it, unless the file system says that it does so
 * itself: that would double the requests of a busy disk. Our files never have capabilities nor set-id bits, so we may say
 * so, but libfuse knows no flag for it. So its answer to FUSE_INIT goes to a pipe in the session's place, and from there,
 * with the flag added, to the kernel. Where any of this fails the answer goes on as it was. */
static void patch_init(struct fuse_session *se, const struct fuse_buf *buf) {
    const struct fuse_init_in *wanted = (const void *)((const char *)buf->mem + sizeof(struct fuse_in_header));
    struct {
        struct fuse_out_header header;
        struct fuse_init_out init;
    } answer;
    int fd = fuse_session_fd(se), saved, ends[2];
    ssize_t size;

    if (!(wanted->flags & FUSE_HANDLE_KILLPRIV_V2) || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        real_process_buf(se, buf);
        return;
    }
    saved = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (saved >= 0 && dup3(ends[1], fd, O_CLOEXEC) == fd) {
        real_process_buf(se, buf);
        dup3(saved, fd, O_CLOEXEC);
        size = read(ends[0], &answer, sizeof(answer));
        if (size == (ssize_t)sizeof(answer) && answer.header.error == 0)
            answer.init.flags |= FUSE_HANDLE_KILLPRIV_V2;
        if (size > 0 && write(fd, &answer, size) != size)
            perror("rowfs: cannot answer FUSE_INIT");
    } else {
        real_process_buf(se, buf);
    }
    if (saved >= 0)
        close(saved);
    close(ends[0]);
    close(ends[1]);
}

void fuse_session_process_buf(struct fuse_session *se, const struct fuse_buf *buf) {
    const struct fuse_in_header *header = buf->mem;

    if (!(buf->flags & FUSE_BUF_IS_FD) && buf->size >= sizeof(*header) + 16 && header->opcode == FUSE_INIT)
        patch_init(se, buf);
    else
        real_process_buf(se, buf);
}

/* Python */

static PyObject *set_handlers(PyObject *self, PyObject *args) {
    PyObject *fallocate, *lseek, *copy_file_range;

    (void)self;
    if (!PyArg_ParseTuple(args, "OOO", &fallocate, &lseek, &copy_file_range))
        return NULL;
    Py_XSETREF(handlers, PyTuple_Pack(3, fallocate, lseek, copy_file_range));
    Py_RETURN_NONE;
}

static PyObject *replied(int result) {
    /* A request that was interrupted, or whose mount is gone, needs no answer: nobody is told. */
    (void)result;
    Py_RETURN_NONE;
}

static PyObject *reply_error(PyObject *self, PyObject *args) {
    Py_ssize_t req;
    int code;

    (void)self;
    if (!PyArg_ParseTuple(args, "ni", &req, &code))
        return NULL;
    return replied(fuse_reply_err((fuse_req_t)req, code));
}

static PyObject *reply_offset(PyObject *self, PyObject *args) {
    Py_ssize_t req;
    long long offset;

    (void)self;
    if (!PyArg_ParseTuple(args, "nL", &req, &offset))
        return NULL;
    return replied(fuse_reply_lseek((fuse_req_t)req, (off_t)offset));
}

static PyObject *reply_count(PyObject *self, PyObject *args) {
    Py_ssize_t req, count;

    (void)self;
    if (!PyArg_ParseTuple(args, "nn", &req, &count))
        return NULL;
    return replied(fuse_reply_write((fuse_req_t)req, (size_t)count));
}

static PyObject *active(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    return PyBool_FromLong(sessions > 0);
}

static PyMethodDef methods[] = {
    {"set_handlers", set_handlers, METH_VARARGS, "set_handlers(fallocate, lseek, copy_file_range)"},
    {"reply_error", reply_error, METH_VARARGS, "reply_error(request, errno); 0 is success"},
    {"reply_offset", reply_offset, METH_VARARGS, "reply_offset(request, offset_bytes): answers lseek"},
    {"reply_count", reply_count, METH_VARARGS, "reply_count(request, bytes): answers copy_file_range"},
    {"serve", native_serve, METH_VARARGS,
     "serve(handles, pool, committer, set_time, data_fd, Disk, Snapshot, DIRTY): answer the commonest requests without Python from now on"},
    {"stop", native_stop, METH_NOARGS, "Wait for the workers, and answer nothing any more"},
    {"sync_data", native_sync_data, METH_VARARGS, "sync_data(fd): fdatasync; fails for ever once it has failed"},
    {"block_sums", native_block_sums, METH_VARARGS, "block_sums(data, sums): fill `sums` (u32) with the sums of blocks"},
    {"try_requests", native_try_requests, METH_VARARGS,
     "try_requests(fuse_fd, requests): how many were answered, one after the other; for tests"},
    {"linger", native_linger, METH_VARARGS,
     "linger(fuse_fd, epoll_fd, timeout_ms): answer requests until there is something for the event loop; then wake_fd is"
     " readable, or epoll_fd"},
    {"wake_fd", native_wake_fd, METH_NOARGS, "A descriptor that is readable when `linger` has left something to do"},
    {"served", native_served, METH_NOARGS, "How many reads, writes and syncs were answered without Python, and how many of the syncs with a record of the journal"},
    {"encode_page", native_encode_page, METH_VARARGS,
     "encode_page(key, addresses, owned): what stores a page version, as rowfs.base.pagecode.encode has it"},
    {"active", active, METH_NOARGS, "Whether pyfuse3's session was made through this module"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "FUSE operations that pyfuse3 does not hand on", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) {
    crc32c_begin();
    return PyModule_Create(&module);
}
