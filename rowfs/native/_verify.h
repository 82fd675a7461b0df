/* Sealed blocks: what a read of them has to sum up to (rowfs.seal.sums). Trio thread, GIL held.
 *
 * C looks at the engine's own arrays: `table` has the row of each stretch of the data file, or that it has none, or that
 * Python has to look it up in the map; `rows` has the sums, 0 for a block that is not sealed. Python puts longer arrays in
 * their places, so whether they are still the same is looked at each time. A read that does not sum up to what it has to is
 * left to Python, which reads again, tells of it, and answers EIO.
 */
#ifndef ROWFS_VERIFY_H
#define ROWFS_VERIFY_H

#include "_base.h"

enum sealed { SEALED_NONE, SEALED_SOME, SEALED_UNKNOWN };
/* What the blocks of the runs have to sum up to, in `sums`, 0 for those that are not sealed. UNKNOWN: Python has to look. NONE:
 * `sums` is as it was. */
enum sealed verify_expected(const struct run *runs, size_t count, uint32_t *sums);
/* Let go of what is held of the sums. */
void verify_stop(void);

/* A method of the module */
PyObject *native_block_sums(PyObject *self, PyObject *args);

#endif
