/* Preloaded into a daemon: counts what it asks of the host that holds its pool, and has one of these calls fail.
 *
 *   TORMENT_POOL   the pool's directory; calls on its files count, and on what LMDB is handed in memory
 *   TORMENT_LOG    where to append a line for each call: its name and the file's
 *   TORMENT_FAIL   "NAME FILE N ERRNO": the N-th such call fails with this errno; ERRNO 0: it does half of it (writes)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

enum { GOES_ON = -1, HALF = 0 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *pool, *log_path;
static char fail_name[32], fail_file[64];
static long fail_at, fail_errno, count;

__attribute__((constructor)) static void begin(void) {
    const char *fail = getenv("TORMENT_FAIL");

    pool = getenv("TORMENT_POOL");
    log_path = getenv("TORMENT_LOG");
    if (fail != NULL && sscanf(fail, "%31s %63s %ld %ld", fail_name, fail_file, &fail_at, &fail_errno) != 4)
        abort();
}

/* What of the pool is at a path; NULL: nothing. */
static const char *inside(const char *path) {
    static const char memory[] = "/dev/shm/rowfs-", descriptors[] = "/proc/self/fd/";
    size_t length = pool ? strlen(pool) : 0;
    const char *slash = strrchr(path, '/');

    if (length == 0 || slash == NULL)
        return NULL;
    if (strncmp(path, memory, sizeof(memory) - 1) == 0)
        return strchr(path + sizeof(memory) - 1, '/') ? slash + 1 : "memory";
    if (strncmp(path, descriptors, sizeof(descriptors) - 1) == 0)
        return strchr(path + sizeof(descriptors) - 1, '/') ? slash + 1 : NULL; /* the socket, by its directory's */
    if (strncmp(path, pool, length) != 0 || (path[length] != '/' && path[length] != 0))
        return NULL;
    return path[length] == 0 ? "pool" : slash + 1;
}

static const char *file_of(int fd, char path[PATH_MAX]) {
    char link[64];
    ssize_t length;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (length <= 0)
        return NULL;
    path[length] = 0;
    return inside(path);
}

static const char *file_at(int directory, const char *path, char whole[PATH_MAX]) {
    char parent[PATH_MAX];

    if (path[0] == '/' || directory == AT_FDCWD)
        return inside(path);
    if (file_of(directory, parent) == NULL)
        return NULL;
    snprintf(whole, PATH_MAX, "%.2000s/%.2000s", parent, path);
    return inside(whole);
}

/* What becomes of a call: GOES_ON, HALF of it, or the errno that it fails with. */
static long fate(const char *name, const char *file) {
    char line[256];
    long fails = GOES_ON;
    int fd;

    if (file == NULL)
        return GOES_ON;
    pthread_mutex_lock(&lock);
    if (log_path != NULL) {
        int length = snprintf(line, sizeof(line), "%s %s\n", name, file);

        fd = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0) {
            (void)!syscall(SYS_write, fd, line, length);
            syscall(SYS_close, fd);
        }
    }
    if (fail_at && strcmp(name, fail_name) == 0 && strcmp(file, fail_file) == 0 && ++count == fail_at)
        fails = fail_errno;
    pthread_mutex_unlock(&lock);
    return fails;
}

#define FAILS(name, file) \
    do { \
        long code = fate(name, file); \
        if (code > 0) { \
            errno = (int)code; \
            return -1; \
        } \
    } while (0)

/* Opening */

#define OPEN(function) \
    int function(const char *path, int flags, ...) { \
        mode_t mode = 0; \
        va_list rest; \
        REAL(function); \
        va_start(rest, flags); \
        if (flags & (O_CREAT | __O_TMPFILE)) \
            mode = va_arg(rest, mode_t); \
        va_end(rest); \
        FAILS(flags & O_CREAT ? "create" : "open", inside(path)); \
        return real(path, flags, mode); \
    }
#define OPENAT(function) \
    int function(int directory, const char *path, int flags, ...) { \
        mode_t mode = 0; \
        char whole[PATH_MAX]; \
        va_list rest; \
        REAL(function); \
        va_start(rest, flags); \
        if (flags & (O_CREAT | __O_TMPFILE)) \
            mode = va_arg(rest, mode_t); \
        va_end(rest); \
        FAILS(flags & O_CREAT ? "create" : "open", file_at(directory, path, whole)); \
        return real(directory, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int memfd_create(const char *name, unsigned flags) {
    REAL(memfd_create);
    FAILS("memfd_create", strncmp(name, "lock", 4) == 0 ? "lock.mdb" : NULL);
    return real(name, flags);
}

/* Bytes */

#define BYTES(function, called, buffer_type) \
    ssize_t function(int fd, buffer_type buffer, size_t size, off_t position) { \
        char path[PATH_MAX]; \
        long code; \
        REAL(function); \
        code = fate(called, file_of(fd, path)); \
        if (code > 0) { \
            errno = (int)code; \
            return -1; \
        } \
        return real(fd, buffer, code == HALF ? (size + 1) / 2 : size, position); \
    }
BYTES(pwrite, "pwrite", const void *)
BYTES(pwrite64, "pwrite", const void *)
BYTES(pread, "pread", void *)
BYTES(pread64, "pread", void *)

#define VECTOR(function, called) \
    ssize_t function(int fd, const struct iovec *vector, int number, off_t position) { \
        char path[PATH_MAX]; \
        long code; \
        REAL(function); \
        code = fate(called, file_of(fd, path)); \
        if (code > 0) { \
            errno = (int)code; \
            return -1; \
        } \
        return real(fd, vector, code == HALF && number > 1 ? number / 2 : number, position); \
    }
VECTOR(pwritev, "pwritev")
VECTOR(pwritev64, "pwritev")
VECTOR(preadv, "preadv")
VECTOR(preadv64, "preadv")

#define VECTOR2(function, called) \
    ssize_t function(int fd, const struct iovec *vector, int number, off_t position, int flags) { \
        char path[PATH_MAX]; \
        REAL(function); \
        FAILS(called, file_of(fd, path)); \
        return real(fd, vector, number, position, flags); \
    }
VECTOR2(preadv2, "preadv2")
VECTOR2(preadv64v2, "preadv2")

ssize_t write(int fd, const void *buffer, size_t size) {
    char path[PATH_MAX];
    REAL(write);
    FAILS("write", file_of(fd, path));
    return real(fd, buffer, size);
}

ssize_t read(int fd, void *buffer, size_t size) {
    char path[PATH_MAX];
    REAL(read);
    FAILS("read", file_of(fd, path));
    return real(fd, buffer, size);
}

/* Syncs, sizes and blocks */

#define ON_FD(function, called, parameters, arguments) \
    int function parameters { \
        char path[PATH_MAX]; \
        REAL(function); \
        FAILS(called, file_of(fd, path)); \
        return real arguments; \
    }
ON_FD(fsync, "fsync", (int fd), (fd))
ON_FD(fdatasync, "fdatasync", (int fd), (fd))
ON_FD(ftruncate, "ftruncate", (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, "ftruncate", (int fd, off64_t size), (fd, size))
ON_FD(fallocate, "fallocate", (int fd, int mode, off_t offset, off_t size), (fd, mode, offset, size))
ON_FD(fallocate64, "fallocate", (int fd, int mode, off64_t offset, off64_t size), (fd, mode, offset, size))
ON_FD(sync_file_range, "sync_file_range", (int fd, off64_t offset, off64_t size, unsigned flags),
      (fd, offset, size, flags))
ON_FD(flock, "flock", (int fd, int operation), (fd, operation))
ON_FD(fstatvfs, "fstatvfs", (int fd, struct statvfs *found), (fd, found))
ON_FD(fstatvfs64, "fstatvfs", (int fd, struct statvfs64 *found), (fd, found))

#define POSIX_FALLOCATE(function, type) \
    int function(int fd, type offset, type size) { \
        char path[PATH_MAX]; \
        long code; \
        REAL(function); \
        code = fate("posix_fallocate", file_of(fd, path)); \
        return code > 0 ? (int)code : real(fd, offset, size); \
    }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

#define MAP(function) \
    void *function(void *address, size_t size, int protection, int flags, int fd, off_t offset) { \
        char path[PATH_MAX]; \
        long code; \
        REAL(function); \
        code = fd < 0 ? GOES_ON : fate("mmap", file_of(fd, path)); \
        if (code > 0) { \
            errno = (int)code; \
            return MAP_FAILED; \
        } \
        return real(address, size, protection, flags, fd, offset); \
    }
MAP(mmap)
MAP(mmap64)

/* Names */

#define ON_PATH(function, called, parameters, arguments) \
    int function parameters { \
        REAL(function); \
        FAILS(called, inside(path)); \
        return real arguments; \
    }
ON_PATH(truncate, "truncate", (const char *path, off_t size), (path, size))
ON_PATH(truncate64, "truncate", (const char *path, off64_t size), (path, size))
ON_PATH(unlink, "unlink", (const char *path), (path))
ON_PATH(rmdir, "rmdir", (const char *path), (path))
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode))
ON_PATH(rename, "rename", (const char *path, const char *to), (path, to))
ON_PATH(statvfs, "statvfs", (const char *path, struct statvfs *found), (path, found))

int symlink(const char *target, const char *path) {
    REAL(symlink);
    FAILS("symlink", inside(path));
    return real(target, path);
}

int unlinkat(int directory, const char *path, int flags) {
    char whole[PATH_MAX];
    REAL(unlinkat);
    FAILS("unlink", file_at(directory, path, whole));
    return real(directory, path, flags);
}

int bind(int fd, const struct sockaddr *address, socklen_t size) {
    const struct sockaddr_un *named = (const void *)address;
    REAL(bind);
    FAILS("bind", size > sizeof(sa_family_t) && named->sun_family == AF_UNIX ? inside(named->sun_path) : NULL);
    return real(fd, address, size);
}
