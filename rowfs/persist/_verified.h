/* What the parts of rowfs.persist._verified share: pages of LMDB's file, read with pread and held against what they were.
 *
 * `digests` has a word for each page: ABSENT, it is not in the trees of the commit that was followed last; UNSEEN, it is, and
 * was not read yet; or the digest of its bytes. LMDB never writes to a page that is in the trees of the last commit, so
 * one that has another digest is damaged. Digests are of this process alone, they are never stored.
 */
#ifndef ROWFS_VERIFIED_H
#define ROWFS_VERIFIED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { ABSENT = 0, UNSEEN = 1 };
enum { BRANCH = 1, LEAF = 2, LONG = 4 };     /* kinds of pages */
enum { LONG_VALUE = 1, TABLE_ROOT = 2 };     /* flags of nodes */
enum { HEADER_BYTES = 16, NODE_BYTES = 8, ROOT_BYTES = 48, KEY_BYTES_MAX = 511, METAS = 2, DEPTH_MAX = 32 };
#define NO_PAGE UINT64_MAX

struct trouble {
    char text[160]; /* empty: none */
};

struct guard; /* _guard.c */

struct pages {
    PyObject_HEAD
    int fd;
    size_t size;       /* of a page */
    uint64_t *digests;
    uint64_t count;    /* of `digests` */
    uint64_t end;      /* pages in use by the followed commit are before this one */
    uint64_t roots[2]; /* of its free list and its table of tables */
    unsigned depths[2];
    struct guard *guard;
};

/* One tree: how its keys order, and which pages there are. */
struct tree {
    struct pages *pages;
    uint64_t end;
    bool native; /* keys are one number of the machine: the free list */
};

/* Where a node lies in its page, and what it says. */
struct node {
    const unsigned char *key, *value;
    size_t key_bytes, value_bytes;
    unsigned flags;
    uint64_t child; /* in a branch */
};

extern PyObject *verified_damaged; /* the exception */
extern PyTypeObject verified_pages_type, verified_cursor_type;

static inline uint64_t word_at(const unsigned char *at, size_t bytes) {
    uint64_t value = 0;

    if (bytes == 8) {
        memcpy(&value, at, 8);
    } else if (bytes == 4) {
        uint32_t half;
        memcpy(&half, at, 4);
        value = half;
    } else {
        uint16_t quarter;
        memcpy(&quarter, at, 2);
        value = quarter;
    }
    return value;
}

bool trouble_is(struct trouble *trouble, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t digest_of(const unsigned char *page, size_t size);
uint64_t digest_at(const struct pages *pages, uint64_t number);
bool holds(struct pages *pages, uint64_t number, uint64_t digest);
bool read_bytes(const struct pages *pages, uint64_t number, size_t count, unsigned char *buffer, bool may_wait,
                struct trouble *trouble);
bool verify(const struct tree *tree, uint64_t number, int kind, unsigned char *page, struct trouble *trouble);
bool load(const struct tree *tree, uint64_t number, int kind, unsigned char *page, struct trouble *trouble);
bool load_long(const struct tree *tree, const struct node *node, unsigned char *buffer, struct trouble *trouble);
size_t long_pages(const struct pages *pages, const struct node *node);
unsigned count_of(const unsigned char *page);
struct node node_at(const unsigned char *page, unsigned index, int kind);
int compare(const unsigned char *left, size_t left_bytes, const struct node *right, bool native);
unsigned child_for(const unsigned char *page, const unsigned char *key, size_t key_bytes, bool native);

PyObject *pages_follow(PyObject *self, PyObject *args);
PyObject *pages_prepare(PyObject *self, PyObject *args);
PyObject *pages_prepare_all(PyObject *self, PyObject *args);
PyObject *pages_cursor(PyObject *self, PyObject *args);

PyObject *pages_guard(PyObject *self, PyObject *args);
PyObject *pages_release(PyObject *self, PyObject *args);
PyObject *pages_unguard(PyObject *self, PyObject *args);
PyObject *pages_struck(PyObject *self, PyObject *args);
void guard_end(struct pages *pages);
void guard_put(const struct pages *pages, uint64_t number, const unsigned char *page);

#endif
