/* A version of a page as it is stored, for Python.
 *
 * A commit beside writers codes thousands of pages, and with numpy each step of that waits for the interpreter once more.
 * This is one call a page, of a few microseconds. */
#ifndef ROWFS_PAGECODE_H
#define ROWFS_PAGECODE_H

#include "_base.h"

#include <Python.h>

PyObject *native_encode_page(PyObject *self, PyObject *args);

#endif
