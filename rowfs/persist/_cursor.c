/* A cursor over one tree, over copies of its pages that were verified: a page that changes later changes nothing here. */
#include "_verified.h"

#include <stdlib.h>

struct level {
    uint64_t number; /* of the page that is held; NO_PAGE: none */
    unsigned index, count;
    unsigned char *page;
};

struct cursor {
    PyObject_HEAD
    struct tree tree;
    uint64_t root;
    unsigned depth;
    bool placed; /* on a node */
    struct level levels[DEPTH_MAX];
};

static struct level *leaf_of(struct cursor *self) {
    return &self->levels[self->depth - 1];
}

static struct node node_of(struct cursor *self) {
    struct level *leaf = leaf_of(self);
    return node_at(leaf->page, leaf->index, LEAF);
}

static bool fetch(struct cursor *self, unsigned depth, uint64_t number, struct trouble *trouble) {
    struct level *level = &self->levels[depth];
    struct pages *pages = self->tree.pages;

    if (level->number == number)
        return true;
    level->number = NO_PAGE;
    if (level->page == NULL && (level->page = malloc(pages->size)) == NULL)
        return trouble_is(trouble, "there is no memory for a page");
    if (!read_bytes(pages, number, 1, level->page, true, trouble) ||
        !load(&self->tree, number, depth + 1 < self->depth ? BRANCH : LEAF, level->page, trouble))
        return false;
    level->number = number;
    level->count = count_of(level->page);
    return true;
}

/* From the node at `depth` down, along the first (or the last) nodes, to a leaf. */
static bool descend(struct cursor *self, unsigned depth, bool last, struct trouble *trouble) {
    for (; depth + 1 < self->depth; depth++) {
        struct level *level = &self->levels[depth];
        if (!fetch(self, depth + 1, node_at(level->page, level->index, BRANCH).child, trouble))
            return false;
        self->levels[depth + 1].index = last ? self->levels[depth + 1].count - 1 : 0;
    }
    return true;
}

/* To the leaf beside this one. `placed` says whether there is one. */
static bool turn(struct cursor *self, bool back, struct trouble *trouble) {
    self->placed = false;
    for (unsigned depth = self->depth - 1; depth-- > 0;) {
        struct level *level = &self->levels[depth];
        if (back ? level->index == 0 : level->index + 1 >= level->count)
            continue;
        level->index += back ? -1 : 1;
        self->placed = descend(self, depth, back, trouble);
        return self->placed;
    }
    return true;
}

static bool edge(struct cursor *self, bool last, struct trouble *trouble) {
    self->placed = false;
    if (!self->depth)
        return true;
    if (!fetch(self, 0, self->root, trouble))
        return false;
    self->levels[0].index = last ? self->levels[0].count - 1 : 0;
    return self->placed = descend(self, 0, last, trouble);
}

static bool seek(struct cursor *self, const unsigned char *key, size_t key_bytes, struct trouble *trouble) {
    struct level *leaf;
    unsigned low = 0, high;

    self->placed = false;
    if (!self->depth)
        return true;
    if (!fetch(self, 0, self->root, trouble))
        return false;
    for (unsigned depth = 0; depth + 1 < self->depth; depth++) {
        struct level *level = &self->levels[depth];
        level->index = child_for(level->page, key, key_bytes, false);
        if (!fetch(self, depth + 1, node_at(level->page, level->index, BRANCH).child, trouble))
            return false;
    }
    leaf = leaf_of(self);
    high = leaf->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        struct node node = node_at(leaf->page, middle, LEAF);
        if (compare(key, key_bytes, &node, false) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    leaf->index = low;
    self->placed = low < leaf->count;
    return self->placed || turn(self, false, trouble);
}

static bool step(struct cursor *self, bool back, struct trouble *trouble) {
    struct level *leaf;

    if (!self->placed)
        return true;
    leaf = leaf_of(self);
    if (back ? leaf->index > 0 : leaf->index + 1 < leaf->count) {
        leaf->index += back ? -1 : 1;
        return true;
    }
    return turn(self, back, trouble);
}

/* Python */

static PyObject *outcome(struct cursor *self, bool done, const struct trouble *trouble) {
    if (done)
        return PyBool_FromLong(self->placed);
    self->placed = false;
    PyErr_SetString(verified_damaged, trouble->text);
    return NULL;
}

static PyObject *cursor_seek(struct cursor *self, PyObject *key, bool exactly) {
    struct trouble trouble = {""};
    Py_buffer wanted;
    bool done;

    if (PyObject_GetBuffer(key, &wanted, PyBUF_SIMPLE) < 0)
        return NULL;
    done = seek(self, wanted.buf, (size_t)wanted.len, &trouble);
    if (done && self->placed && exactly) {
        struct node node = node_of(self);
        self->placed = compare(wanted.buf, (size_t)wanted.len, &node, false) == 0;
    }
    PyBuffer_Release(&wanted);
    return outcome(self, done, &trouble);
}

static PyObject *cursor_set_range(PyObject *self, PyObject *key) {
    return cursor_seek((struct cursor *)self, key, false);
}

static PyObject *cursor_set_key(PyObject *self, PyObject *key) {
    return cursor_seek((struct cursor *)self, key, true);
}

static PyObject *cursor_first(PyObject *self, PyObject *args) {
    struct trouble trouble = {""};

    (void)args;
    return outcome((struct cursor *)self, edge((struct cursor *)self, false, &trouble), &trouble);
}

static PyObject *cursor_last(PyObject *self, PyObject *args) {
    struct trouble trouble = {""};

    (void)args;
    return outcome((struct cursor *)self, edge((struct cursor *)self, true, &trouble), &trouble);
}

static PyObject *cursor_next(PyObject *self, PyObject *args) {
    struct trouble trouble = {""};

    (void)args;
    return outcome((struct cursor *)self, step((struct cursor *)self, false, &trouble), &trouble);
}

static PyObject *cursor_prev(PyObject *self, PyObject *args) {
    struct trouble trouble = {""};

    (void)args;
    return outcome((struct cursor *)self, step((struct cursor *)self, true, &trouble), &trouble);
}

static PyObject *cursor_key(PyObject *object, PyObject *args) {
    struct cursor *self = (struct cursor *)object;
    struct node node;

    (void)args;
    if (!self->placed)
        return PyBytes_FromStringAndSize(NULL, 0);
    node = node_of(self);
    return PyBytes_FromStringAndSize((const char *)node.key, (Py_ssize_t)node.key_bytes);
}

static PyObject *cursor_value(PyObject *object, PyObject *args) {
    struct cursor *self = (struct cursor *)object;
    struct trouble trouble = {""};
    struct node node;
    size_t count;
    unsigned char *buffer;
    PyObject *value = NULL;

    (void)args;
    if (!self->placed)
        return PyBytes_FromStringAndSize(NULL, 0);
    node = node_of(self);
    if (!(node.flags & LONG_VALUE))
        return PyBytes_FromStringAndSize((const char *)node.value, (Py_ssize_t)node.value_bytes);
    count = long_pages(self->tree.pages, &node);
    if ((buffer = malloc(count * self->tree.pages->size)) == NULL)
        return PyErr_NoMemory();
    if (read_bytes(self->tree.pages, word_at(node.value, 8), count, buffer, true, &trouble) &&
        load_long(&self->tree, &node, buffer, &trouble))
        value = PyBytes_FromStringAndSize((const char *)buffer + HEADER_BYTES, (Py_ssize_t)node.value_bytes);
    else
        PyErr_SetString(verified_damaged, trouble.text);
    free(buffer);
    return value;
}

PyObject *pages_cursor(PyObject *pages, PyObject *args) {
    unsigned long long root, end;
    unsigned depth;
    struct cursor *self;

    if (!PyArg_ParseTuple(args, "KIK", &root, &depth, &end))
        return NULL;
    if (depth > DEPTH_MAX || (depth && (root < METAS || root >= end)))
        return PyErr_Format(verified_damaged, "a table has no root that can be");
    if ((self = PyObject_New(struct cursor, &verified_cursor_type)) == NULL)
        return NULL;
    self->tree = (struct tree){(struct pages *)Py_NewRef(pages), end, false};
    self->root = root;
    self->depth = depth;
    self->placed = false;
    for (unsigned level = 0; level < DEPTH_MAX; level++)
        self->levels[level] = (struct level){.number = NO_PAGE};
    return (PyObject *)self;
}

static void cursor_dealloc(PyObject *object) {
    struct cursor *self = (struct cursor *)object;

    for (unsigned level = 0; level < DEPTH_MAX; level++)
        free(self->levels[level].page);
    Py_DECREF(self->tree.pages);
    PyObject_Free(object);
}

static PyMethodDef cursor_methods[] = {
    {"set_range", cursor_set_range, METH_O, "set_range(key): to the first node that is not before it; is there one?"},
    {"set_key", cursor_set_key, METH_O, "set_key(key): to the node of that key; is there one?"},
    {"first", cursor_first, METH_NOARGS, "To the first node; is there one?"},
    {"last", cursor_last, METH_NOARGS, "To the last node; is there one?"},
    {"next", cursor_next, METH_NOARGS, "To the next node; is there one?"},
    {"prev", cursor_prev, METH_NOARGS, "To the node before; is there one?"},
    {"key", cursor_key, METH_NOARGS, "The node's key; none: b''"},
    {"value", cursor_value, METH_NOARGS, "The node's value; none: b''"},
    {NULL, NULL, 0, NULL},
};

PyTypeObject verified_cursor_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "rowfs.persist._verified.Cursor",
    .tp_basicsize = sizeof(struct cursor),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A cursor over one tree. Methods raise DamagedError.",
    .tp_dealloc = cursor_dealloc,
    .tp_methods = cursor_methods,
};
