/* Reads LMDB's file without LMDB, and believes no page that is not what it was (rowfs/persist/verified.py says what for).
 *
 *   _verified.c    pages: reading them, their digests, whether nodes lie where they can
 *   _follow.c      from one commit to the next: which pages are new, which are gone; what a commit will touch
 *   _cursor.c      a cursor over one tree, with the methods of py-lmdb's
 *   _guard.c       what LMDB sees of its file while it commits, and SIGBUS
 *
 * The layout of pages is in persist/mappages.py.
 */
#include "_verified.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

PyObject *verified_damaged;

/* Sets what is wrong; false, for callers to return. */
bool trouble_is(struct trouble *trouble, const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(trouble->text, sizeof(trouble->text), format, arguments);
    va_end(arguments);
    return false;
}

/* Digests */

static inline uint64_t rotated(uint64_t word, int by) {
    return word << by | word >> (64 - by);
}

/* Four lanes of xxHash's round: a change of any one word changes its lane for certain. Never ABSENT nor UNSEEN. */
uint64_t digest_of(const unsigned char *page, size_t size) {
    static const uint64_t first = 0x9E3779B185EBCA87ull, second = 0xC2B2AE3D27D4EB4Full;
    uint64_t lanes[4] = {1, 2, 3, 4}, digest;

    for (size_t at = 0; at < size; at += 32)
        for (int lane = 0; lane < 4; lane++)
            lanes[lane] = rotated(lanes[lane] + word_at(page + at + 8 * lane, 8) * second, 31) * first;
    digest = rotated(lanes[0], 1) + rotated(lanes[1], 7) + rotated(lanes[2], 12) + rotated(lanes[3], 18);
    digest = (digest ^ digest >> 33) * second;
    digest ^= digest >> 29;
    return digest <= UNSEEN ? digest + 2 : digest;
}

uint64_t digest_at(const struct pages *pages, uint64_t number) {
    return number < pages->count ? __atomic_load_n(&pages->digests[number], __ATOMIC_RELAXED) : ABSENT;
}

/* Whether a page may have this digest. One that is read for the first time has it from then on. */
bool holds(struct pages *pages, uint64_t number, uint64_t digest) {
    uint64_t known = digest_at(pages, number), unseen = UNSEEN;

    if (known == UNSEEN)
        __atomic_compare_exchange_n(&pages->digests[number], &unseen, digest, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return known <= UNSEEN || known == digest;
}

/* Pages */

/* Read pages that follow each other. With `may_wait` the GIL is held, and let go of while the host's disk is waited for. */
bool read_bytes(const struct pages *pages, uint64_t number, size_t count, unsigned char *buffer, bool may_wait,
                struct trouble *trouble) {
    size_t wanted = count * pages->size;
    off_t position = (off_t)(number * pages->size);
    struct iovec whole = {buffer, wanted};
    ssize_t got = may_wait ? preadv2(pages->fd, &whole, 1, position, RWF_NOWAIT) : -1;

    if (got == (ssize_t)wanted)
        return true;
    if (may_wait) {
        Py_BEGIN_ALLOW_THREADS
        got = pread(pages->fd, buffer, wanted, position);
        Py_END_ALLOW_THREADS
    } else {
        got = pread(pages->fd, buffer, wanted, position);
    }
    if (got == (ssize_t)wanted)
        return true;
    if (got < 0)
        return trouble_is(trouble, "page %llu cannot be read: %s", (unsigned long long)number, strerror(errno));
    return trouble_is(trouble, "page %llu is not there: the file is cut off", (unsigned long long)number);
}

unsigned count_of(const unsigned char *page) {
    return ((unsigned)word_at(page + 12, 2) - HEADER_BYTES) / 2;
}

struct node node_at(const unsigned char *page, unsigned index, int kind) {
    const unsigned char *at = page + word_at(page + HEADER_BYTES + 2 * index, 2);
    struct node node = {.key = at + NODE_BYTES, .key_bytes = word_at(at + 6, 2), .flags = word_at(at + 4, 2)};
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t low = word_at(at, 2) | word_at(at + 2, 2) << 16;
#else
    uint64_t low = word_at(at + 2, 2) | word_at(at, 2) << 16;
#endif

    node.value = node.key + node.key_bytes;
    if (kind == BRANCH)
        node.child = low | (uint64_t)node.flags << 32;
    else
        node.value_bytes = low;
    return node;
}

/* How a key orders against that of a node. */
int compare(const unsigned char *left, size_t left_bytes, const struct node *right, bool native) {
    size_t shorter = left_bytes < right->key_bytes ? left_bytes : right->key_bytes;
    int order;

    if (native) {
        uint64_t one = word_at(left, 8), other = word_at(right->key, 8);
        return one < other ? -1 : one > other;
    }
    order = memcmp(left, right->key, shorter);
    return order ? order : left_bytes < right->key_bytes ? -1 : left_bytes > right->key_bytes;
}

/* Which node of a branch leads to a key: the last whose key is not after it; the first one's stands for all before. */
unsigned child_for(const unsigned char *page, const unsigned char *key, size_t key_bytes, bool native) {
    unsigned low = 0, high = count_of(page); /* the answer is in [low, high) */

    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        struct node node = node_at(page, middle, BRANCH);
        if (compare(key, key_bytes, &node, native) < 0)
            high = middle;
        else
            low = middle;
    }
    return low;
}

size_t long_pages(const struct pages *pages, const struct node *node) {
    return (HEADER_BYTES - 1 + node->value_bytes) / pages->size + 1;
}

static bool inside(uint64_t first, uint64_t count, uint64_t end) {
    return first >= METAS && count <= end && first <= end - count;
}

/* Whether a page is of a kind, and nothing in it leads out of it or out of the file. */
bool verify(const struct tree *tree, uint64_t number, int kind, unsigned char *page, struct trouble *trouble) {
    const size_t size = tree->pages->size;
    size_t lower = word_at(page + 12, 2), upper = word_at(page + 14, 2);
    unsigned long long shown = number;
    struct node before = {0};

    if (word_at(page, 8) != number)
        return trouble_is(trouble, "page %llu is another page", shown);
    if (word_at(page + 10, 2) != (uint64_t)kind)
        return trouble_is(trouble, "page %llu is not of kind %d", shown, kind);
    if (lower < HEADER_BYTES + 2 * (kind == BRANCH && !tree->native ? 2 : 1) || lower > upper || upper > size ||
        (lower | upper) & 1)
        return trouble_is(trouble, "page %llu has impossible bounds", shown);
    for (unsigned index = 0; index < count_of(page); index++) {
        size_t at = word_at(page + HEADER_BYTES + 2 * index, 2), room;
        struct node node;
        if (at < upper || at > size - NODE_BYTES || at & 1)
            return trouble_is(trouble, "page %llu has a node out of its bounds", shown);
        node = node_at(page, index, kind);
        room = size - at - NODE_BYTES;
        if (node.key_bytes > KEY_BYTES_MAX || node.key_bytes > room || (!node.key_bytes && (kind == LEAF || index)) ||
            (tree->native && node.key_bytes != 8 && (kind == LEAF || index)))
            return trouble_is(trouble, "page %llu has a key of impossible length", shown);
        room -= node.key_bytes;
        if (kind == BRANCH) {
            if (!inside(node.child, 1, tree->end))
                return trouble_is(trouble, "page %llu leads to a page that is not there", shown);
        } else {
            if (node.flags & ~(LONG_VALUE | TABLE_ROOT) || (node.flags & TABLE_ROOT && node.value_bytes != ROOT_BYTES))
                return trouble_is(trouble, "page %llu has a node of no known kind", shown);
            if ((node.flags & LONG_VALUE ? sizeof(uint64_t) : node.value_bytes) > room)
                return trouble_is(trouble, "page %llu has a value of impossible length", shown);
            if (node.flags & LONG_VALUE &&
                !inside(word_at(node.value, 8), long_pages(tree->pages, &node), tree->end))
                return trouble_is(trouble, "page %llu has a value in pages that are not there", shown);
        }
        if (index > (kind == BRANCH) && compare(before.key, before.key_bytes, &node, tree->native) >= 0)
            return trouble_is(trouble, "page %llu has keys out of order", shown);
        before = node;
    }
    return true;
}

/* A page that was read is what it was, or, if that is not known, can be one. */
bool load(const struct tree *tree, uint64_t number, int kind, unsigned char *page, struct trouble *trouble) {
    struct pages *pages = tree->pages;

    if (digest_at(pages, number) <= UNSEEN && !verify(tree, number, kind, page, trouble))
        return false;
    if (!holds(pages, number, digest_of(page, pages->size)))
        return trouble_is(trouble, "page %llu is not what was written", (unsigned long long)number);
    return true;
}

/* The same of all pages of a long value. */
bool load_long(const struct tree *tree, const struct node *node, unsigned char *buffer, struct trouble *trouble) {
    struct pages *pages = tree->pages;
    uint64_t first = word_at(node->value, 8);
    size_t count = long_pages(pages, node);

    if (word_at(buffer, 8) != first || word_at(buffer + 10, 2) != LONG || word_at(buffer + 12, 4) < count)
        return trouble_is(trouble, "page %llu is not of a long value", (unsigned long long)first);
    for (size_t index = 0; index < count; index++)
        if (!holds(pages, first + index, digest_of(buffer + index * pages->size, pages->size)))
            return trouble_is(trouble, "page %llu is not what was written", (unsigned long long)(first + index));
    return true;
}

/* Python */

static PyObject *pages_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    struct pages *self;
    int fd;
    Py_ssize_t size;

    (void)keywords;
    if (!PyArg_ParseTuple(args, "in", &fd, &size))
        return NULL;
    if (size < 256 || size & (size - 1)) {
        PyErr_SetString(PyExc_ValueError, "no size of a page");
        return NULL;
    }
    if ((self = (struct pages *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    self->fd = fd;
    self->size = (size_t)size;
    self->roots[0] = self->roots[1] = NO_PAGE;
    return (PyObject *)self;
}

static void pages_dealloc(PyObject *object) {
    struct pages *self = (struct pages *)object;

    guard_end(self);
    free(self->digests);
    Py_TYPE(object)->tp_free(object);
}

/* For tests: of each page whether it is ABSENT, UNSEEN, or (2) its digest is known. */
static PyObject *pages_states(PyObject *self, PyObject *args) {
    struct pages *pages = (struct pages *)self;
    PyObject *states = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)pages->count);

    (void)args;
    for (uint64_t number = 0; states != NULL && number < pages->count; number++) {
        uint64_t known = digest_at(pages, number);
        PyBytes_AS_STRING(states)[number] = (char)(known < 2 ? known : 2);
    }
    return states;
}

static PyMethodDef pages_methods[] = {
    {"follow", pages_follow, METH_VARARGS, "follow(free, main, end, read_max): this commit is the last one now"},
    {"prepare", pages_prepare, METH_VARARGS, "prepare(root, depth, end, keys): what LMDB reads to change these is in order"},
    {"prepare_all", pages_prepare_all, METH_VARARGS, "prepare_all(root, depth, end, native): so are all pages of a tree"},
    {"cursor", pages_cursor, METH_VARARGS, "cursor(root, depth, end): over a tree of keys that are bytes"},
    {"guard", pages_guard, METH_VARARGS, "guard(address, bytes, descriptors): whether LMDB sees verified pages alone"},
    {"release", pages_release, METH_NOARGS, "LMDB has done with the pages that it has seen"},
    {"unguard", pages_unguard, METH_NOARGS, "LMDB's mapping is about to go"},
    {"states", pages_states, METH_NOARGS, "A byte for each page: 0 not in use, 1 not seen yet, 2 known; for tests"},
    {"struck", pages_struck, METH_NOARGS, "The page that LMDB would have seen and that was damaged; None: no such"},
    {NULL, NULL, 0, NULL},
};

PyTypeObject verified_pages_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "rowfs.persist._verified.Pages",
    .tp_basicsize = sizeof(struct pages),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Pages(fd, page_bytes): the file of a block map",
    .tp_new = pages_new,
    .tp_dealloc = pages_dealloc,
    .tp_methods = pages_methods,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_verified", "LMDB's file, page by page", -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__verified(void) {
    PyObject *self = PyModule_Create(&module);

    verified_damaged = PyErr_NewException("rowfs.persist._verified.DamagedError", NULL, NULL);
    if (self == NULL || verified_damaged == NULL || PyModule_AddType(self, &verified_pages_type) < 0 ||
        PyModule_AddType(self, &verified_cursor_type) < 0 ||
        PyModule_AddObjectRef(self, "DamagedError", verified_damaged) < 0)
        return NULL;
    return self;
}
