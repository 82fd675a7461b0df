/* What LMDB sees of its file, and what becomes of SIGBUS.
 *
 * LMDB reads through a shared mapping of its file, and trusts what it reads. While the daemon is running it does so in
 * commits alone, and at the start of a transaction in the meta pages. So its mapping, but for the meta pages, is replaced
 * by memory of ours that has nothing in it. A page that LMDB touches is missing; with userfaultfd(2) in the mode that
 * raises SIGBUS for that, the handler, in the very thread that touched it, reads the page, holds it against its digest
 * and puts the copy there. After the commit all copies are dropped. Nobody can change what LMDB reads after it was found
 * to be in order.
 *
 * In place of a page that is damaged, or that cannot be read, there is one of no kind and without nodes, which LMDB
 * refuses; the guard is `struck`, and LMDB's descriptors of the file lead nowhere from then on: whatever it makes of that
 * page, it writes no byte. The same where userfaultfd is not to be had, or a meta page is cut off: then SIGBUS is the host's, for a
 * page of the file that is not there or cannot be read.
 *
 * The handler calls pread, ioctl, mmap, mprotect, dup3 and nothing else. A SIGBUS anywhere else is for the handler before it.
 */
#include "_verified.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum { GUARDS = 64, DESCRIPTORS = 8, PAGE_BYTES_MAX = 1 << 15, COPY_TRIES = 1000 };

struct guard {
    struct pages *pages; /* NULL: this place is free */
    unsigned char *map;
    size_t bytes;
    bool replaced; /* what is behind the meta pages is ours */
    int descriptors[DESCRIPTORS], descriptor_count;
    volatile uint64_t struck; /* a page number; NO_PAGE: none */
};

static struct guard guards[GUARDS];
static struct sigaction before;
static int fault_fd = -1, nowhere = -1;
static size_t host_page;

static void strike(struct guard *guard, uint64_t number) {
    guard->struck = number;
    for (int index = 0; index < guard->descriptor_count; index++)
        dup3(nowhere, guard->descriptors[index], O_CLOEXEC);
}

/* Have a page where LMDB missed one. */
static bool put(const struct guard *guard, uint64_t number, const unsigned char *page) {
    struct uffdio_copy copy = {.dst = (uintptr_t)(guard->map + number * host_page), .src = (uintptr_t)page,
                               .len = host_page};

    for (int tries = 0; tries < COPY_TRIES; tries++) {
        if (ioctl(fault_fd, UFFDIO_COPY, &copy) == 0 || errno == EEXIST)
            return true;
        if (errno != EAGAIN) /* of ENOMEM, say */
            break;
    }
    return false;
}

/* A page of no kind, without nodes. */
static void make_none(unsigned char *page, uint64_t number) {
    const uint16_t lower = HEADER_BYTES, upper = (uint16_t)host_page;

    memset(page, 0, host_page);
    memcpy(page, &number, sizeof(number));
    memcpy(page + 12, &lower, sizeof(lower));
    memcpy(page + 14, &upper, sizeof(upper));
}

/* Where there is no room for a copy: a page without nodes all the same, in memory that nobody watches. */
static bool put_none(struct guard *guard, uint64_t number, unsigned char *page) {
    unsigned char *at = guard->map + number * host_page;

    strike(guard, number);
    make_none(page, number);
    if (mmap(at, host_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return false;
    memcpy(at, page, host_page);
    return mprotect(at, host_page, PROT_READ) == 0;
}

static bool supply(struct guard *guard, uint64_t number) {
    unsigned char page[PAGE_BYTES_MAX];
    ssize_t got = pread(guard->pages->fd, page, host_page, (off_t)(number * host_page));
    uint64_t known = digest_at(guard->pages, number);

    if (got != (ssize_t)host_page || (known > UNSEEN && known != digest_of(page, host_page))) {
        make_none(page, number);
        strike(guard, number);
    }
    return put(guard, number, page) || put_none(guard, number, page);
}

static bool ours(unsigned char *at) {
    for (struct guard *guard = guards; guard < guards + GUARDS; guard++) {
        uint64_t number;
        if (guard->pages == NULL || at < guard->map || at >= guard->map + guard->bytes)
            continue;
        number = (uint64_t)(at - guard->map) / host_page;
        if (guard->replaced && number >= METAS)
            return supply(guard, number);
        strike(guard, (uint64_t)(at - guard->map) / guard->pages->size);
        return mmap(guard->map + number * host_page, host_page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                    0) != MAP_FAILED;
    }
    return false;
}

static void on_sigbus(int number, siginfo_t *info, void *context) {
    int saved = errno;
    bool served = info->si_code > 0 && ours(info->si_addr);

    errno = saved;
    if (served)
        return;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        signal(SIGBUS, SIG_DFL); /* and the same again */
    }
}

static void open_faults(void) {
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};

    fault_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (fault_fd < 0 && errno == EINVAL) /* before Linux 5.11 */
        fault_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fault_fd >= 0 && ioctl(fault_fd, UFFDIO_API, &api) != 0) {
        close(fault_fd);
        fault_fd = -1;
    }
}

static bool install(void) {
    /* On the thread's own stack: that of faulthandler has no room for a page. */
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO}, now;

    if (nowhere < 0) {
        host_page = (size_t)sysconf(_SC_PAGESIZE);
        if ((nowhere = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0)
            return false;
        open_faults();
    }
    if (sigaction(SIGBUS, NULL, &now) != 0)
        return false;
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus)
        return true;
    before = now;
    return sigaction(SIGBUS, &action, NULL) == 0;
}

/* Take the place of the mapping behind the meta pages. */
static bool replace(struct guard *guard) {
    size_t skipped = METAS * host_page;
    unsigned char *start = guard->map + skipped;
    struct uffdio_register wanted = {.range = {(uintptr_t)start, guard->bytes - skipped},
                                     .mode = UFFDIO_REGISTER_MODE_MISSING};

    if (fault_fd < 0 || guard->pages->size != host_page || host_page > PAGE_BYTES_MAX || guard->bytes <= skipped)
        return false;
    if (mmap(start, guard->bytes - skipped, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) ==
        MAP_FAILED)
        return false;
    madvise(start, guard->bytes - skipped, MADV_NOHUGEPAGE);
    if (ioctl(fault_fd, UFFDIO_REGISTER, &wanted) == 0)
        return true;
    if (mmap(start, guard->bytes - skipped, PROT_READ, MAP_SHARED | MAP_FIXED, guard->pages->fd, (off_t)skipped) ==
        MAP_FAILED)
        abort(); /* there is nothing where LMDB believes its file */
    return false;
}

void guard_end(struct pages *pages) {
    if (pages->guard != NULL)
        pages->guard->pages = NULL;
    pages->guard = NULL;
}

/* A page that was verified is there for LMDB before it misses it. */
void guard_put(const struct pages *pages, uint64_t number, const unsigned char *page) {
    if (pages->guard != NULL && pages->guard->replaced)
        put(pages->guard, number, page);
}

/* Python */

PyObject *pages_guard(PyObject *self, PyObject *args) {
    struct pages *pages = (struct pages *)self;
    unsigned long long address;
    Py_ssize_t bytes;
    PyObject *descriptors;
    struct guard *guard = guards;

    if (!PyArg_ParseTuple(args, "KnO!", &address, &bytes, &PyTuple_Type, &descriptors))
        return NULL;
    guard_end(pages);
    while (guard < guards + GUARDS && guard->pages != NULL)
        guard++;
    if (guard == guards + GUARDS || !install())
        Py_RETURN_FALSE;
    *guard = (struct guard){.map = (unsigned char *)(uintptr_t)address, .bytes = (size_t)bytes, .struck = NO_PAGE};
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(descriptors) && index < DESCRIPTORS; index++)
        guard->descriptors[guard->descriptor_count++] = (int)PyLong_AsLong(PyTuple_GET_ITEM(descriptors, index));
    if (PyErr_Occurred())
        return NULL;
    guard->pages = pages;
    pages->guard = guard;
    guard->replaced = replace(guard);
    return PyBool_FromLong(guard->replaced);
}

PyObject *pages_release(PyObject *self, PyObject *args) {
    struct guard *guard = ((struct pages *)self)->guard;

    (void)args;
    if (guard != NULL && guard->replaced)
        madvise(guard->map + METAS * host_page, guard->bytes - METAS * host_page, MADV_DONTNEED);
    Py_RETURN_NONE;
}

PyObject *pages_unguard(PyObject *self, PyObject *args) {
    (void)args;
    guard_end((struct pages *)self);
    Py_RETURN_NONE;
}

PyObject *pages_struck(PyObject *self, PyObject *args) {
    struct guard *guard = ((struct pages *)self)->guard;

    (void)args;
    if (guard == NULL || guard->struck == NO_PAGE)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(guard->struck);
}
