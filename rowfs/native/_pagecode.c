#include "_pagecode.h"

#include "_record.h"

PyObject *native_encode_page(PyObject *self, PyObject *args) {
    char value[VERSION_ROOM_BYTES];
    Py_buffer key, addresses, owned;
    PyObject *result = NULL;

    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*", &key, &addresses, &owned))
        return NULL;
    if (key.len != VERSION_KEY_BYTES || addresses.len != PAGE_BLOCKS * (Py_ssize_t)sizeof(int64_t) ||
        owned.len != PAGE_BLOCKS)
        PyErr_SetString(PyExc_ValueError, "a page has a key of 12 bytes, 512 addresses, and a byte for each");
    else
        result = PyBytes_FromStringAndSize(value, record_version(value, key.buf, addresses.buf, owned.buf));
    PyBuffer_Release(&owned);
    PyBuffer_Release(&addresses);
    PyBuffer_Release(&key);
    return result;
}
