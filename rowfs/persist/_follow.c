/* From one commit of LMDB to the next, and what it will read to make one.
 *
 * LMDB copies a page before it changes it, up to the root. So of two commits the one's trees share whole subtrees with the
 * other's: a page of the new trees that was in the old ones is as it was, and all below it. `follow` walks the new trees
 * down to such pages, and has the digests of what is new; then the old trees down to pages that it has seen there, and
 * forgets what is gone. That costs as much as the commit changed.
 *
 * `prepare` reads what LMDB will: the path to each key, the pages beside it (which are merged with what gets too small),
 * and the whole free list. None of it holds the GIL.
 */
#include "_verified.h"

#include <stdlib.h>

struct added {
    uint64_t number, digest;
};

struct walk {
    struct tree tree;
    struct trouble trouble;
    unsigned char *seen; /* a bit for each page: of the new trees, or prepared */
    uint64_t left;       /* pages that may still be read */
    struct added *added;
    uint64_t *removed;
    size_t added_count, added_room, removed_count, removed_room;
};

static bool is_seen(const struct walk *walk, uint64_t number) {
    return walk->seen[number / 8] >> number % 8 & 1;
}

static void see(struct walk *walk, uint64_t number) {
    walk->seen[number / 8] |= (unsigned char)(1 << number % 8);
}

static bool no_memory(struct walk *walk) {
    return trouble_is(&walk->trouble, "there is no memory to look at it");
}

static bool begin(struct walk *walk, struct pages *pages, uint64_t end) {
    uint64_t most = end > pages->end ? end : pages->end;

    *walk = (struct walk){.tree = {pages, end, false}, .left = UINT64_MAX, .seen = calloc(1, most / 8 + 1)};
    return walk->seen != NULL || no_memory(walk);
}

static void end(struct walk *walk) {
    free(walk->seen);
    free(walk->added);
    free(walk->removed);
}

static bool add(struct walk *walk, uint64_t number, uint64_t digest) {
    if (walk->added_count == walk->added_room) {
        size_t room = walk->added_room ? 2 * walk->added_room : 256;
        struct added *more = realloc(walk->added, room * sizeof(*more));
        if (more == NULL)
            return no_memory(walk);
        walk->added = more;
        walk->added_room = room;
    }
    walk->added[walk->added_count++] = (struct added){number, digest};
    return true;
}

static bool removes(struct walk *walk, uint64_t number) {
    if (walk->removed_count == walk->removed_room) {
        size_t room = walk->removed_room ? 2 * walk->removed_room : 256;
        uint64_t *more = realloc(walk->removed, room * sizeof(*more));
        if (more == NULL)
            return no_memory(walk);
        walk->removed = more;
        walk->removed_room = room;
    }
    walk->removed[walk->removed_count++] = number;
    return true;
}

/* A tree page, verified, in a new buffer; NULL: trouble. */
static unsigned char *page_of(struct walk *walk, uint64_t number, unsigned depth) {
    unsigned char *page = malloc(walk->tree.pages->size);

    if (page == NULL) {
        no_memory(walk);
    } else if (!read_bytes(walk->tree.pages, number, 1, page, false, &walk->trouble) ||
               !load(&walk->tree, number, depth > 1 ? BRANCH : LEAF, page, &walk->trouble)) {
        free(page);
        page = NULL;
    }
    return page;
}

static unsigned char *long_of(struct walk *walk, const struct node *node) {
    size_t count = long_pages(walk->tree.pages, node);
    unsigned char *buffer = malloc(count * walk->tree.pages->size);

    if (buffer == NULL) {
        no_memory(walk);
    } else if (!read_bytes(walk->tree.pages, word_at(node->value, 8), count, buffer, false, &walk->trouble) ||
               !load_long(&walk->tree, node, buffer, &walk->trouble)) {
        free(buffer);
        buffer = NULL;
    }
    return buffer;
}

/* Of a node that holds the root of a table; `depth` 0: the table is empty. */
static uint64_t root_in(const struct node *node, unsigned *depth) {
    uint64_t root = word_at(node->value + 40, 8);

    *depth = root == NO_PAGE ? 0 : (unsigned)word_at(node->value + 6, 2);
    return root;
}

static bool can_be(struct walk *walk, uint64_t number, unsigned depth) {
    if (depth <= DEPTH_MAX && number >= METAS && number < walk->tree.end)
        return true;
    return trouble_is(&walk->trouble, "page %llu cannot be a root", (unsigned long long)number);
}

/* The new trees */

static bool appears(struct walk *walk, uint64_t number, unsigned depth);

static bool long_appears(struct walk *walk, const struct node *node) {
    struct pages *pages = walk->tree.pages;
    uint64_t first = word_at(node->value, 8);
    size_t count = long_pages(pages, node);
    bool was = digest_at(pages, first) != ABSENT, read = !was && walk->left >= count, done = true;
    unsigned char *buffer = NULL;

    if (read && walk->left != UINT64_MAX)
        read = false; /* at first those are left for when they are wanted: they may be many, and have checksums */
    if (read && (buffer = long_of(walk, node)) == NULL)
        return false;
    for (size_t index = 0; done && index < count; index++) {
        if (is_seen(walk, first + index))
            done = trouble_is(&walk->trouble, "page %llu is in use twice", (unsigned long long)first + index);
        see(walk, first + index);
        if (done && !was)
            done = add(walk, first + index, read ? digest_of(buffer + index * pages->size, pages->size) : UNSEEN);
    }
    free(buffer);
    return done;
}

static bool below_appears(struct walk *walk, const unsigned char *page, unsigned depth) {
    for (unsigned index = 0; index < count_of(page); index++) {
        struct node node = node_at(page, index, depth > 1 ? BRANCH : LEAF);
        unsigned levels = 0;
        if (depth > 1) {
            if (!appears(walk, node.child, depth - 1))
                return false;
        } else if (node.flags & LONG_VALUE) {
            if (!long_appears(walk, &node))
                return false;
        } else if (node.flags & TABLE_ROOT) {
            uint64_t root = root_in(&node, &levels);
            if (levels && (!can_be(walk, root, levels) || !appears(walk, root, levels)))
                return false;
        }
    }
    return true;
}

static bool appears(struct walk *walk, uint64_t number, unsigned depth) {
    unsigned char *page;
    bool done;

    if (is_seen(walk, number))
        return trouble_is(&walk->trouble, "page %llu is in use twice", (unsigned long long)number);
    see(walk, number);
    if (digest_at(walk->tree.pages, number) != ABSENT)
        return true;
    if (walk->left == 0)
        return add(walk, number, UNSEEN);
    if (walk->left != UINT64_MAX)
        walk->left--;
    if ((page = page_of(walk, number, depth)) == NULL)
        return false;
    done = add(walk, number, digest_of(page, walk->tree.pages->size)) && below_appears(walk, page, depth);
    free(page);
    return done;
}

/* The old trees */

static bool disappears(struct walk *walk, uint64_t number, unsigned depth) {
    unsigned char *page;
    bool done = true;

    if (is_seen(walk, number) || digest_at(walk->tree.pages, number) == ABSENT)
        return true;
    if (!removes(walk, number) || (page = page_of(walk, number, depth)) == NULL)
        return false;
    for (unsigned index = 0; done && index < count_of(page); index++) {
        struct node node = node_at(page, index, depth > 1 ? BRANCH : LEAF);
        unsigned levels = 0;
        if (depth > 1) {
            done = disappears(walk, node.child, depth - 1);
        } else if (node.flags & LONG_VALUE) {
            uint64_t first = word_at(node.value, 8);
            for (size_t place = 0; done && place < long_pages(walk->tree.pages, &node); place++)
                done = is_seen(walk, first + place) || removes(walk, first + place);
        } else if (node.flags & TABLE_ROOT) {
            uint64_t root = root_in(&node, &levels);
            done = !levels || disappears(walk, root, levels);
        }
    }
    free(page);
    return done;
}

static bool from_to(struct walk *walk, const uint64_t roots[2], const unsigned depths[2]) {
    struct pages *pages = walk->tree.pages;
    uint64_t new_end = walk->tree.end;

    for (int which = 0; which < 2; which++) {
        walk->tree.native = which == 0;
        if (roots[which] != NO_PAGE &&
            (!can_be(walk, roots[which], depths[which]) || !appears(walk, roots[which], depths[which])))
            return false;
    }
    walk->tree.end = pages->end;
    for (int which = 0; which < 2; which++) {
        walk->tree.native = which == 0;
        if (pages->roots[which] != NO_PAGE && !disappears(walk, pages->roots[which], pages->depths[which]))
            return false;
    }
    for (size_t index = 0; index < walk->removed_count; index++)
        __atomic_store_n(&pages->digests[walk->removed[index]], ABSENT, __ATOMIC_RELAXED);
    for (size_t index = 0; index < walk->added_count; index++)
        __atomic_store_n(&pages->digests[walk->added[index].number], walk->added[index].digest, __ATOMIC_RELAXED);
    for (int which = 0; which < 2; which++) {
        pages->roots[which] = roots[which];
        pages->depths[which] = depths[which];
    }
    pages->end = new_end;
    return true;
}

static PyObject *told(struct walk *walk, bool done) {
    end(walk);
    if (done)
        Py_RETURN_NONE;
    PyErr_SetString(verified_damaged, walk->trouble.text);
    return NULL;
}

static bool has_room(struct pages *pages, uint64_t count) {
    uint64_t *more;

    if (count <= pages->count)
        return true;
    count += count / 4;
    if ((more = realloc(pages->digests, count * sizeof(*more))) == NULL) {
        PyErr_NoMemory();
        return false;
    }
    memset(more + pages->count, 0, (count - pages->count) * sizeof(*more));
    pages->digests = more;
    pages->count = count;
    return true;
}

PyObject *pages_follow(PyObject *self, PyObject *args) {
    struct pages *pages = (struct pages *)self;
    const char *records[2];
    Py_ssize_t lengths[2];
    unsigned long long count, most;
    uint64_t roots[2];
    unsigned depths[2];
    struct walk walk;
    bool done;

    if (!PyArg_ParseTuple(args, "y#y#KK", &records[0], &lengths[0], &records[1], &lengths[1], &count, &most))
        return NULL;
    for (int which = 0; which < 2; which++) {
        if (lengths[which] != ROOT_BYTES)
            return PyErr_Format(verified_damaged, "a root has %zd bytes", lengths[which]);
        roots[which] = word_at((const unsigned char *)records[which] + 40, 8);
        depths[which] = (unsigned)word_at((const unsigned char *)records[which] + 6, 2);
    }
    if (!has_room(pages, count))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = begin(&walk, pages, count);
    if (most)
        walk.left = most;
    done = done && from_to(&walk, roots, depths);
    Py_END_ALLOW_THREADS
    return told(&walk, done);
}

/* What LMDB will read */

static bool ready(struct walk *walk, uint64_t number, const unsigned char *page) {
    see(walk, number);
    guard_put(walk->tree.pages, number, page);
    return true;
}

static bool all_ready(struct walk *walk, uint64_t number, unsigned depth) {
    unsigned char *page = page_of(walk, number, depth), *buffer;
    bool done = page != NULL && ready(walk, number, page);

    for (unsigned index = 0; done && index < count_of(page); index++) {
        struct node node = node_at(page, index, depth > 1 ? BRANCH : LEAF);
        if (depth > 1) {
            done = all_ready(walk, node.child, depth - 1);
        } else if (node.flags & LONG_VALUE) {
            done = (buffer = long_of(walk, &node)) != NULL;
            for (size_t place = 0; done && place < long_pages(walk->tree.pages, &node); place++)
                ready(walk, word_at(node.value, 8) + place, buffer + place * walk->tree.pages->size);
            free(buffer);
        }
    }
    free(page);
    return done;
}

PyObject *pages_prepare_all(PyObject *self, PyObject *args) {
    unsigned long long root, count;
    unsigned depth;
    int native;
    struct walk walk;
    bool done;

    if (!PyArg_ParseTuple(args, "KIKp", &root, &depth, &count, &native))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    done = begin(&walk, (struct pages *)self, count);
    walk.tree.native = native;
    done = done && (!depth || (can_be(&walk, root, depth) && all_ready(&walk, root, depth)));
    Py_END_ALLOW_THREADS
    return told(&walk, done);
}

/* The way to some keys */

struct path {
    struct walk walk;
    uint64_t numbers[DEPTH_MAX];
    unsigned char *held[DEPTH_MAX];
};

static bool step_to(struct path *path, unsigned level, uint64_t number, unsigned depth) {
    if (path->held[level] != NULL && path->numbers[level] == number)
        return true;
    free(path->held[level]);
    path->numbers[level] = number;
    if ((path->held[level] = page_of(&path->walk, number, depth)) == NULL)
        return false;
    return is_seen(&path->walk, number) || ready(&path->walk, number, path->held[level]);
}

static bool beside(struct path *path, uint64_t number, unsigned depth) {
    unsigned char *page;
    bool done;

    if (is_seen(&path->walk, number))
        return true;
    page = page_of(&path->walk, number, depth);
    done = page != NULL && ready(&path->walk, number, page);
    free(page);
    return done;
}

static bool long_ready(struct path *path, const struct node *node) {
    struct walk *walk = &path->walk;
    unsigned char *buffer = is_seen(walk, word_at(node->value, 8)) ? NULL : long_of(walk, node);

    if (buffer != NULL) /* LMDB looks at the header alone */
        ready(walk, word_at(node->value, 8), buffer);
    free(buffer);
    return is_seen(walk, word_at(node->value, 8));
}

static bool way_to(struct path *path, uint64_t root, unsigned depth, const unsigned char *key, size_t key_bytes) {
    unsigned level = 0;

    if (!step_to(path, 0, root, depth))
        return false;
    for (; level + 1 < depth; level++) {
        const unsigned char *page = path->held[level];
        unsigned index = child_for(page, key, key_bytes, false), below = depth - level - 1;
        if ((index && !beside(path, node_at(page, index - 1, BRANCH).child, below)) ||
            (index + 1 < count_of(page) && !beside(path, node_at(page, index + 1, BRANCH).child, below)) ||
            !step_to(path, level + 1, node_at(page, index, BRANCH).child, below))
            return false;
    }
    for (unsigned low = 0, high = count_of(path->held[level]); low < high;) {
        unsigned middle = (low + high) / 2;
        struct node node = node_at(path->held[level], middle, LEAF);
        int order = compare(key, key_bytes, &node, false);
        if (order == 0)
            return !(node.flags & LONG_VALUE) || long_ready(path, &node);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return true;
}

PyObject *pages_prepare(PyObject *self, PyObject *args) {
    unsigned long long root, count;
    unsigned depth;
    PyObject *keys;
    Py_ssize_t wanted;
    const unsigned char **starts;
    size_t *lengths;
    struct path path = {.numbers = {0}};
    bool done;

    if (!PyArg_ParseTuple(args, "KIKO!", &root, &depth, &count, &PyList_Type, &keys))
        return NULL;
    wanted = PyList_GET_SIZE(keys);
    starts = PyMem_Malloc(((size_t)wanted + 1) * sizeof(*starts));
    lengths = PyMem_Malloc(((size_t)wanted + 1) * sizeof(*lengths));
    for (Py_ssize_t index = 0; starts != NULL && lengths != NULL && index < wanted; index++) {
        PyObject *key = PyList_GET_ITEM(keys, index);
        starts[index] = PyBytes_Check(key) ? (const unsigned char *)PyBytes_AS_STRING(key) : (const unsigned char *)"";
        lengths[index] = PyBytes_Check(key) ? (size_t)PyBytes_GET_SIZE(key) : 0;
    }
    Py_BEGIN_ALLOW_THREADS
    done = begin(&path.walk, (struct pages *)self, count);
    if (starts == NULL || lengths == NULL)
        done = no_memory(&path.walk);
    done = done && (!depth || can_be(&path.walk, root, depth));
    for (Py_ssize_t index = 0; depth && done && index < wanted; index++)
        done = way_to(&path, root, depth, starts[index], lengths[index]);
    for (unsigned level = 0; level < DEPTH_MAX; level++)
        free(path.held[level]);
    Py_END_ALLOW_THREADS
    PyMem_Free(starts);
    PyMem_Free(lengths);
    return told(&path.walk, done);
}
