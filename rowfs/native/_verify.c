/* What sealed blocks have to sum up to. */
#include "_verify.h"

#include "_crc32c.h"
#include "_engine.h"

#include <string.h>

enum {
    STRETCH_BLOCKS = 960, /* rowfs.base.sumcode */
    NO_ROW = -1,          /* rowfs.seal.sums.NONE; anything lower: UNKNOWN */
};

_Static_assert((int)CRC32C_BLOCK_BYTES == (int)BLOCK_BYTES, "a sum is of a block");

/* An array of Python's, held as long as it is the one. */
struct held {
    PyObject *object;
    Py_buffer view;
};
static struct held table, rows;

static void let_go(struct held *held) {
    if (held->object != NULL)
        PyBuffer_Release(&held->view);
    Py_CLEAR(held->object);
}

static bool hold(struct held *held, PyObject *name) {
    PyObject *object = PyObject_GetAttr(engine.sums, name);

    if (object != NULL && object == held->object) {
        Py_DECREF(object);
        return true;
    }
    let_go(held);
    if (object == NULL)
        return false;
    if (PyObject_GetBuffer(object, &held->view, PyBUF_C_CONTIGUOUS) != 0) {
        Py_DECREF(object);
        return false;
    }
    held->object = object;
    return true;
}

enum sealed verify_expected(const struct run *runs, size_t count, uint32_t *sums) {
    enum sealed found = SEALED_NONE;
    const int32_t *row_of;
    size_t stretches;

    if (!hold(&table, names.table) || !hold(&rows, names.rows))
        return SEALED_UNKNOWN;
    row_of = table.view.buf;
    stretches = table.view.len / sizeof(*row_of);
    for (size_t i = 0; i < count; i++) {
        uint64_t block = runs[i].position / BLOCK_BYTES, end = block + runs[i].length / BLOCK_BYTES;

        if (runs[i].position < 0)
            continue;
        for (size_t at = runs[i].start / BLOCK_BYTES; block < end;) {
            uint64_t stretch = block / STRETCH_BLOCKS, first = block % STRETCH_BLOCKS;
            uint64_t blocks = end - block < STRETCH_BLOCKS - first ? end - block : STRETCH_BLOCKS - first;
            int32_t row = stretch < stretches ? row_of[stretch] : NO_ROW;

            if (row < NO_ROW)
                return SEALED_UNKNOWN;
            if (row >= 0) {
                if (found == SEALED_NONE)
                    memset(sums, 0, BLOCKS_MAX * sizeof(*sums));
                found = SEALED_SOME;
                memcpy(sums + at, (const uint32_t *)rows.view.buf + (size_t)row * STRETCH_BLOCKS + first,
                       blocks * sizeof(*sums));
            }
            block += blocks;
            at += blocks;
        }
    }
    return found;
}

void verify_stop(void) {
    let_go(&table);
    let_go(&rows);
}

PyObject *native_block_sums(PyObject *self, PyObject *args) {
    Py_buffer data, sums;
    bool fits;

    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*", &data, &sums))
        return NULL;
    fits = data.len % BLOCK_BYTES == 0 && sums.len == data.len / BLOCK_BYTES * (Py_ssize_t)sizeof(uint32_t);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        crc32c_blocks(data.buf, data.len / BLOCK_BYTES, sums.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&sums);
    PyBuffer_Release(&data);
    if (fits)
        Py_RETURN_NONE;
    PyErr_SetString(PyExc_ValueError, "a buffer of whole blocks, and room for a sum of each");
    return NULL;
}
