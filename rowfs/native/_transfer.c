/* Moving data. */
#include "_transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    WRITE_BYTES_MAX = 64 << 10, /* as rowfs.persist.datafile has it */
    HUGE_BYTES = 2 << 20,       /* of a huge page, where Linux can give one */
};

/* /dev/fuse looks up each page of a buffer, which takes as long as copying it. Least so in a huge page, and where the
 * pages of the data begin where those of the buffer do: 1 MiB is received in 85 us then, else in 102. */
char *transfer_buffer(void) {
    char *buffer = aligned_alloc(HUGE_BYTES, HUGE_BYTES);

    if (buffer != NULL)
        madvise(buffer, HUGE_BYTES, MADV_HUGEPAGE); /* it may say no: then the pages are small */
    return buffer;
}

char *transfer_request(char *buffer) {
    _Static_assert(BLOCK_BYTES + BUFFER_BYTES <= HUGE_BYTES, "a request and what comes before it");
    return buffer + BLOCK_BYTES - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in);
}

void reply_data(int fuse_fd, uint64_t unique, const void *data, size_t size) {
    struct fuse_out_header header = {.len = sizeof(header) + size, .error = 0, .unique = unique};
    struct iovec parts[] = {{&header, sizeof(header)}, {(void *)data, size}};

    /* It fails when the request was interrupted or the mount is gone: nobody is there to be told. */
    if (writev(fuse_fd, parts, size ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV)
        perror("rowfs: cannot answer a request");
}

void reply_errno(int fuse_fd, uint64_t unique, int code) {
    struct fuse_out_header header = {.len = sizeof(header), .error = -code, .unique = unique};

    if (write(fuse_fd, &header, sizeof(header)) < 0 && errno != ENOENT && errno != ENODEV)
        perror("rowfs: cannot answer a request");
}

bool fetch(int fd, const struct run *runs, size_t count, char *data, int flags) {
    for (size_t i = 0; i < count; i++) {
        struct iovec part = {data + runs[i].start, runs[i].length};

        if (runs[i].position < 0)
            memset(part.iov_base, 0, part.iov_len);
        else if (preadv2(fd, &part, 1, runs[i].position, flags) != (ssize_t)part.iov_len)
            return false;
    }
    return true;
}

static bool fetch_side_by_side(int fd, int64_t address, size_t count, char *const *places) {
    struct iovec parts[BLOCKS_MAX];
    ssize_t size = count * BLOCK_BYTES, done;

    for (size_t i = 0; i < count; i++)
        parts[i] = (struct iovec){places[i], BLOCK_BYTES};
    done = preadv2(fd, parts, count, (off_t)address * BLOCK_BYTES, RWF_NOWAIT);
    if (done < 0 && errno == EOPNOTSUPP)
        done = preadv(fd, parts, count, (off_t)address * BLOCK_BYTES);
    return done == size;
}

bool fetch_blocks(int fd, const int64_t *addresses, size_t count, char *const *places) {
    for (size_t first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && end - first < BLOCKS_MAX && addresses[end] == addresses[end - 1] + 1; end++)
            ;
        if (!fetch_side_by_side(fd, addresses[first], end - first, places + first))
            return false;
    }
    return true;
}

bool store(int fd, const struct run *runs, size_t count, const char *data) {
    for (size_t i = 0; i < count; i++)
        for (size_t done = 0; done < runs[i].length; done += WRITE_BYTES_MAX) {
            size_t length = runs[i].length - done < WRITE_BYTES_MAX ? runs[i].length - done : WRITE_BYTES_MAX;

            if (pwrite(fd, data + runs[i].start + done, length, runs[i].position + done) != (ssize_t)length)
                return false;
        }
    return true;
}

void announce(int fd, const struct run *runs, size_t count) {
    for (size_t i = 0; count > 1 && i < count; i++)
        if (runs[i].position >= 0)
            (void)posix_fadvise(fd, runs[i].position, runs[i].length, POSIX_FADV_WILLNEED); /* who reads will be told */
}

void start_writeback(int fd, const struct run *runs, size_t count) {
    for (size_t i = 0; i < count; i++)
        /* With this flag the kernel keeps what fails for the next fdatasync, whose caller is told. */
        (void)sync_file_range(fd, runs[i].position, runs[i].length, SYNC_FILE_RANGE_WRITE);
}
