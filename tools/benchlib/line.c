/* The line that a FUSE server of one file cannot well be above: it does nothing but what it must, in one C thread.
 *
 *   line BACKING MOUNTPOINT [fuse options]
 *
 * The mount shows one file, "disk", which is BACKING: each read, write and sync is one pread, pwrite, fdatasync.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOT = FUSE_ROOT_ID, DISK = 2, LARGEST = 1 << 20 };

static int backing;
static char *buffer;

static int describe(fuse_ino_t ino, struct stat *st) {
    memset(st, 0, sizeof *st);
    st->st_ino = ino;
    st->st_mode = S_IFDIR | 0755;
    st->st_nlink = 1;
    if (ino == DISK) {
        if (fstat(backing, st) != 0)
            return errno;
        st->st_ino = ino;
        st->st_mode = S_IFREG | 0644;
    }
    return 0;
}

static void do_init(void *unused, struct fuse_conn_info *connection) {
    (void)unused;
    connection->want |= connection->capable & FUSE_CAP_WRITEBACK_CACHE;
    connection->max_write = LARGEST;
}

static void do_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *unused) {
    struct stat st;
    int code = describe(ino, &st);

    (void)unused;
    if (code)
        fuse_reply_err(request, code);
    else
        fuse_reply_attr(request, &st, 1.0);
}

static void do_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *wanted, int which, struct fuse_file_info *file) {
    if (which & FUSE_SET_ATTR_SIZE && ftruncate(backing, wanted->st_size) != 0)
        fuse_reply_err(request, errno);
    else
        do_getattr(request, ino, file);
}

static void do_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct fuse_entry_param entry = {.ino = DISK, .attr_timeout = 1.0, .entry_timeout = 1.0};

    if (parent != ROOT || strcmp(name, "disk") != 0)
        fuse_reply_err(request, ENOENT);
    else if (describe(DISK, &entry.attr) != 0)
        fuse_reply_err(request, EIO);
    else
        fuse_reply_entry(request, &entry);
}

static void do_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    (void)ino;
    file->keep_cache = 1;
    fuse_reply_open(request, file);
}

static void do_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    ssize_t done = pread(backing, buffer, size, offset);

    (void)ino, (void)file;
    if (done < 0)
        fuse_reply_err(request, errno);
    else
        fuse_reply_buf(request, buffer, (size_t)done);
}

static void do_write(
    fuse_req_t request, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *file
) {
    ssize_t done = pwrite(backing, data, size, offset);

    (void)ino, (void)file;
    if (done < 0)
        fuse_reply_err(request, errno);
    else
        fuse_reply_write(request, (size_t)done);
}

static void do_fsync(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file) {
    (void)ino, (void)data_only, (void)file;
    fuse_reply_err(request, fdatasync(backing) ? errno : 0);
}

static void do_fallocate(
    fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *file
) {
    (void)ino, (void)file;
    fuse_reply_err(request, fallocate(backing, mode, offset, length) ? errno : 0);
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init,
    .lookup = do_lookup,
    .getattr = do_getattr,
    .setattr = do_setattr,
    .open = do_open,
    .read = do_read,
    .write = do_write,
    .fsync = do_fsync,
    .fallocate = do_fallocate,
};

int main(int argc, char **argv) {
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct fuse_session *session;
    int code = 1;

    if (argc < 3 || (backing = open(argv[1], O_RDWR)) < 0 || (buffer = malloc(LARGEST)) == NULL)
        return perror("line"), 2;
    fuse_opt_add_arg(&args, argv[0]);
    for (int at = 3; at < argc; at++)
        fuse_opt_add_arg(&args, argv[at]);
    session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (session == NULL)
        return 1;
    if (fuse_set_signal_handlers(session) == 0 && fuse_session_mount(session, argv[2]) == 0) {
        code = fuse_session_loop(session) != 0;
        fuse_session_unmount(session);
    }
    fuse_session_destroy(session);
    return code;
}
