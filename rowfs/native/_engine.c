/* Looking at the engine's objects (handle -> disk -> head -> page), and who they are. */
#include "_engine.h"

#include <unistd.h>

struct engine engine;
struct names names;

bool get_number(PyObject *object, PyObject *name, long long *number) {
    PyObject *value = PyObject_GetAttr(object, name);

    if (value == NULL)
        return false;
    *number = PyLong_AsLongLong(value);
    Py_DECREF(value);
    return !PyErr_Occurred();
}

bool is(PyObject *object, PyObject *name, PyObject *wanted) {
    PyObject *value = PyObject_GetAttr(object, name);

    Py_XDECREF(value); /* compared by address alone */
    return value == wanted;
}

PyObject *target_of(uint64_t fh, uint64_t offset, size_t size, bool writing) {
    PyObject *key = PyLong_FromUnsignedLongLong(fh), *handle, *target;
    long long size_bytes;

    if (key == NULL || size == 0 || size > REQUEST_BYTES_MAX || (offset | size) % BLOCK_BYTES) {
        Py_XDECREF(key);
        return NULL;
    }
    handle = PyDict_GetItemWithError(engine.handles, key); /* borrowed; nothing below drops it */
    Py_DECREF(key);
    if (handle == NULL || (writing && !is(handle, names.sync, Py_False)))
        return NULL;
    target = PyObject_GetAttr(handle, names.target);
    if (target == NULL)
        return NULL;
    if (get_number(target, names.size_bytes, &size_bytes) && size_bytes >= 0 && offset <= (uint64_t)size_bytes &&
        size <= (uint64_t)size_bytes - offset)
        return target;
    Py_DECREF(target);
    return NULL;
}

PyObject *page_of(PyObject *pages, uint64_t block) {
    PyObject *index = PyLong_FromUnsignedLongLong(block / PAGE_BLOCKS);
    PyObject *page = index && PyDict_Check(pages) ? PyDict_GetItemWithError(pages, index) : NULL;

    Py_XDECREF(index);
    return page;
}

size_t in_page(uint64_t block, uint64_t end) {
    size_t left = PAGE_BLOCKS - block % PAGE_BLOCKS;

    return end - block < left ? end - block : left;
}

static bool get_bytes(PyObject *page, PyObject *name, Py_ssize_t size, Py_buffer *view) {
    PyObject *value = PyObject_GetAttr(page, name);
    int failed;

    if (value == NULL)
        return false;
    failed = PyObject_GetBuffer(value, view, PyBUF_WRITABLE);
    Py_DECREF(value);
    if (failed)
        return false;
    if (view->len == size)
        return true;
    PyBuffer_Release(view);
    return false;
}

bool look(PyObject *page, struct view *view) {
    if (PyObject_SetAttr(page, names.used, Py_True) != 0 ||
        !get_bytes(page, names.addresses, PAGE_BLOCKS * sizeof(int64_t), &view->addresses))
        return false;
    if (get_bytes(page, names.owned, PAGE_BLOCKS, &view->owned))
        return true;
    PyBuffer_Release(&view->addresses);
    return false;
}

void look_away(struct view *view) {
    PyBuffer_Release(&view->owned);
    PyBuffer_Release(&view->addresses);
}

void add_runs(const struct view *view, size_t slot, size_t blocks, struct run *runs, size_t *count, size_t start) {
    const int64_t *places = view->addresses.buf;

    for (size_t at = slot; at < slot + blocks; at++, start += BLOCK_BYTES) {
        off_t position = places[at] > 0 ? (off_t)places[at] * BLOCK_BYTES : -1;
        struct run *last = *count ? &runs[*count - 1] : NULL;

        if (last && (position < 0 ? last->position < 0
                                  : last->position >= 0 && last->position + (off_t)last->length == position))
            last->length += BLOCK_BYTES;
        else
            runs[(*count)++] = (struct run){position, start, BLOCK_BYTES};
    }
}

size_t plan(PyObject *point, uint64_t offset, size_t size, struct run *runs) {
    PyObject *pages = PyObject_GetAttr(point, names.pages);
    uint64_t first = offset / BLOCK_BYTES, end = first + size / BLOCK_BYTES;
    size_t count = 0;
    struct view view;

    for (uint64_t block = first; pages != NULL && block < end; block += in_page(block, end)) {
        PyObject *page = page_of(pages, block);

        if (page == NULL || !look(page, &view)) {
            count = 0;
            break;
        }
        add_runs(&view, block % PAGE_BLOCKS, in_page(block, end), runs, &count, (block - first) * BLOCK_BYTES);
        look_away(&view);
    }
    Py_XDECREF(pages);
    return count;
}

/* Python */

static bool intern_names(void) {
    static const struct {
        PyObject **name;
        const char *text;
    } all[] = {
#define NAME(text) {&names.text, #text},
        NAMES(NAME)
#undef NAME
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (*all[i].name == NULL && (*all[i].name = PyUnicode_InternFromString(all[i].text)) == NULL)
            return false;
    return true;
}

static bool take(PyObject **place, PyObject *value) {
    Py_XSETREF(*place, value);
    return value != NULL;
}

/* Look into an object of Python's that has to have so many bytes. */
static bool look_into(PyObject *object, Py_buffer *view, size_t size) {
    if (object == NULL || PyObject_GetBuffer(object, view, PyBUF_WRITABLE) != 0)
        return false;
    if (view->len == (Py_ssize_t)size)
        return true;
    PyErr_Format(PyExc_ValueError, "%s has another length than the extension knows", Py_TYPE(object)->tp_name);
    PyBuffer_Release(view);
    return false;
}

static bool take_recent(void) {
    PyObject *recent = PyObject_GetAttrString(engine.io, "recent");

    if (look_into(recent, &engine.recent_view, (1 + RECENT_BLOCKS_MAX) * sizeof(int64_t)))
        engine.recent = engine.recent_view.buf;
    Py_XDECREF(recent);
    return engine.recent != NULL;
}

static bool take_journal(void) {
    PyObject *journal = PyObject_GetAttrString(engine.commits, "journal"),
             *state = journal ? PyObject_GetAttr(journal, names.state) : NULL;

    if (look_into(state, &engine.journal_view, sizeof(struct journal)))
        engine.journal = engine.journal_view.buf;
    Py_XDECREF(state);
    Py_XDECREF(journal);
    return engine.journal != NULL;
}

static bool take_reach(void) {
    PyObject *data = PyObject_GetAttrString(engine.pool, "data"), *reach = NULL;

    if (data != NULL && (reach = PyObject_GetAttrString(data, "reach")) != NULL &&
        look_into(reach, &engine.reach_view, sizeof(int64_t)))
        engine.reach = engine.reach_view.buf;
    Py_XDECREF(reach);
    Py_XDECREF(data);
    return engine.reach != NULL;
}

/* Whether somebody cut the data file off. Python says so, and changes nothing from then on. */
bool engine_data_cut_off(void) {
    off_t end = lseek(engine.data_fd, 0, SEEK_END);

    return end >= 0 && end < *engine.reach;
}

static bool take_set(PyObject **place, PyObject *value) {
    if (!take(place, value))
        return false;
    if (PySet_Check(value))
        return true;
    PyErr_SetString(PyExc_TypeError, "what is not in the journal is no set");
    return false;
}

bool engine_serve(PyObject *args) {
    PyObject *handles, *pool, *committer, *set_time, *disk_type, *snapshot_type, *dirty;
    int fd;

    if (!PyArg_ParseTuple(args, "O!OOOiOOO", &PyDict_Type, &handles, &pool, &committer, &set_time, &fd, &disk_type,
                          &snapshot_type, &dirty))
        return false;
    engine_stop();
    if (!intern_names() || !take(&engine.pool, Py_NewRef(pool)) || !take(&engine.committer, Py_NewRef(committer)) ||
        !take(&engine.set_time, Py_NewRef(set_time)) || !take(&engine.disk_type, Py_NewRef(disk_type)) ||
        !take(&engine.snapshot_type, Py_NewRef(snapshot_type)) || !take(&engine.dirty, Py_NewRef(dirty)) ||
        !take(&engine.commits, PyObject_GetAttrString(pool, "commits")) ||
        !take(&engine.versions, PyObject_GetAttrString(pool, "versions")) ||
        !take(&engine.io, PyObject_GetAttrString(pool, "io")) ||
        !take(&engine.space, PyObject_GetAttrString(pool, "space")) ||
        !take(&engine.sums, PyObject_GetAttrString(engine.io, "sums")) ||
        !take(&engine.zeros, PyObject_GetAttrString(engine.io, "zeros")) ||
        !take_set(&engine.unjournaled, PyObject_GetAttrString(engine.io, "unjournaled")) || !take_recent() ||
        !take_reach() || !take_journal())
        return false;
    engine.data_fd = fd;
    engine.handles = Py_NewRef(handles);
    return true;
}

void engine_stop(void) {
    if (engine.recent != NULL)
        PyBuffer_Release(&engine.recent_view);
    if (engine.reach != NULL)
        PyBuffer_Release(&engine.reach_view);
    if (engine.journal != NULL)
        PyBuffer_Release(&engine.journal_view);
    engine.recent = NULL;
    engine.reach = NULL;
    engine.journal = NULL;
    Py_CLEAR(engine.handles);
    Py_CLEAR(engine.pool);
    Py_CLEAR(engine.committer);
    Py_CLEAR(engine.set_time);
    Py_CLEAR(engine.commits);
    Py_CLEAR(engine.versions);
    Py_CLEAR(engine.io);
    Py_CLEAR(engine.space);
    Py_CLEAR(engine.sums);
    Py_CLEAR(engine.zeros);
    Py_CLEAR(engine.unjournaled);
    Py_CLEAR(engine.dirty);
}
