/* Waking trio: an eventfd that its task waits for beside the session's descriptor (mount/polling.py). */
#include "_wake.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int fd = -1;

int wake_descriptor(bool make) {
    if (make && fd < 0)
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd;
}

void wake_trio(void) {
    uint64_t one = 1;

    if (fd >= 0 && write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        perror("rowfs: eventfd");
}

void woken(void) {
    uint64_t count;

    if (fd >= 0 && read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        perror("rowfs: eventfd");
}
