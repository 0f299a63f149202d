/* What is answered from memory, without a handler: GETATTR, and LOOKUP of a name whose directory is known whole.
 *
 * The kernel asks for a directory's attributes again after each change of a name in it (fuse_dir_changed and
 * fuse_permission, fs/fuse/dir.c), and looks up each name before it creates it: two of the four requests that a new
 * file takes, and most of a stat. Nothing is copied here: what is read are the very objects that the handler would
 * read (recfs/state/nodes.py), at the moment it would read them, so there is nothing to be kept in step. Whatever is not
 * plain (a node that is not loaded, a name that a directory may not know, a file that the kernel writes by itself, a
 * request that somebody observes) goes on to the handler.
 *
 * FORGET has no answer; it is handed over at once.
 */

#include "_fuse_extension.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 255 }; /* NAME_MAX_BYTES of recfs/core/layout.py */

static struct {
	PyObject *nodes; /* NULL: nothing is answered here */
	PyObject *watching;
	PyObject *forget;
	unsigned long cached_s, absent_s;
} memory;

/* The loaded node of a number, borrowed. */
static PyObject *node_of(uint64_t ino)
{
	PyObject *key = PyLong_FromUnsignedLongLong(ino);
	PyObject *node = key ? PyDict_GetItemWithError(memory.nodes, key) : NULL;

	Py_XDECREF(key);
	return node;
}

/* --- answering ---------------------------------------------------------------------------------------------------- */

/* 1: sent; 0: nobody waits for it any more; -1: it could not be sent. */
static int send(int fd, uint64_t unique, const void *answer, size_t size)
{
	struct {
		struct fuse_out_header header;
		unsigned char body[sizeof(struct fuse_entry_out)];
	} out = {.header = {.len = (uint32_t)(sizeof out.header + size), .unique = unique}};
	ssize_t written;

	memcpy(out.body, answer, size);
	do
		written = write(fd, &out, out.header.len);
	while (written < 0 && errno == EINTR);
	return written == (ssize_t)out.header.len ? 1 : written < 0 && errno == ENOENT ? 0 : -1;
}

static int answer_getattr(int fd, const struct fuse_in_header *in)
{
	PyObject *node = node_of(in->nodeid);
	struct fuse_attr_out out = {.attr_valid = memory.cached_s};

	if (!node || node_attributes(node, &out.attr) < 0)
		return 0;
	return send(fd, in->unique, &out, sizeof out) >= 0;
}

static int answer_found(int fd, uint64_t unique, PyObject *node)
{
	struct fuse_entry_out out = {.attr_valid = memory.cached_s};
	int lasting, sent;

	if (!is_node(node) || node_attributes(node, &out.attr) < 0)
		return 0;
	lasting = name_is_lasting(node);
	if (lasting < 0)
		return 0;
	out.nodeid = out.attr.ino;
	out.entry_valid = lasting ? memory.cached_s : 0;
	if (refer(node, 1) < 0) /* before it is sent: the kernel may forget it at once */
		return 0;
	sent = send(fd, unique, &out, sizeof out);
	if (sent < 1)
		refer(node, -1);
	return sent >= 0;
}

static int answer_lookup(int fd, const struct fuse_in_header *in, const char *name, size_t length)
{
	const struct fuse_entry_out absent = {.entry_valid = memory.absent_s};
	PyObject *folder = node_of(in->nodeid), *children, *key, *node = NULL;
	int answered = 0;

	if (!folder || Py_TYPE(folder) != node_classes.directory)
		return 0;
	children = PyObject_GetAttr(folder, name_children);
	key = PyBytes_FromStringAndSize(name, (Py_ssize_t)length);
	if (children && key && PyDict_CheckExact(children))
		node = Py_XNewRef(PyDict_GetItemWithError(children, key));
	if (node)
		answered = answer_found(fd, in->unique, node);
	else if (!PyErr_Occurred() && read_truth(folder, name_complete) == 1 && read_none(folder, name_fallback) == 1)
		answered = send(fd, in->unique, &absent, sizeof absent) >= 0;
	Py_XDECREF(node);
	Py_XDECREF(key);
	Py_XDECREF(children);
	return answered;
}

static int hand_over_forgotten(const struct fuse_forget_one *forgets, size_t count)
{
	PyObject *list = PyList_New(0), *pair, *result;
	size_t i;

	for (i = 0; list && i < count; i++) {
		pair = Py_BuildValue("KK", (unsigned long long)forgets[i].nodeid,
				     (unsigned long long)forgets[i].nlookup);
		if (!pair || PyList_Append(list, pair) < 0)
			Py_CLEAR(list);
		Py_XDECREF(pair);
	}
	if (!list)
		return 0;
	result = PyObject_CallOneArg(memory.forget, list);
	if (!result)
		PyErr_WriteUnraisable(memory.forget);
	Py_XDECREF(result);
	Py_DECREF(list);
	return 1;
}

static int is_watched(PyObject *name)
{
	return PyDict_GET_SIZE(memory.watching) && PyDict_Contains(memory.watching, name) != 0;
}

/* Whether it is one that a directory can have: `.` and `..` are asked for, too, where a file handle is opened. */
static int is_name(const char *argument, size_t size)
{
	return size > 1 && size <= NAME_BYTES + 1 && !argument[size - 1] && strcmp(argument, ".") &&
	       strcmp(argument, "..");
}

int answer_from_memory(int fd, const void *request, size_t size)
{
	const struct fuse_in_header *in = request;
	const char *argument = (const char *)(in + 1);
	const size_t length = size - sizeof *in;
	const struct fuse_batch_forget_in *batch = (const void *)argument;
	struct fuse_forget_one one;
	int answered = 0;

	if (!memory.nodes)
		return 0;
	switch (in->opcode) {
	case FUSE_GETATTR:
		answered = !is_watched(name_getattr) && answer_getattr(fd, in);
		break;
	case FUSE_LOOKUP:
		if (is_name(argument, length) && !is_watched(name_lookup))
			answered = answer_lookup(fd, in, argument, length - 1);
		break;
	case FUSE_FORGET:
		if (length >= sizeof(struct fuse_forget_in)) {
			one.nodeid = in->nodeid;
			memcpy(&one.nlookup, argument, sizeof one.nlookup);
			answered = hand_over_forgotten(&one, 1);
		}
		break;
	case FUSE_BATCH_FORGET:
		if (length >= sizeof *batch && (length - sizeof *batch) / sizeof one >= batch->count)
			answered = hand_over_forgotten((const void *)(batch + 1), batch->count);
		break;
	}
	PyErr_Clear();
	return answered;
}

/* --- for Python --------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(remember_doc,
	     "remember(nodes, watching, forget, directory, file, link, row, cached_s, absent_s)\n--\n\n"
	     "Answer GETATTR and LOOKUP from *nodes*, a dict of nodes by inode number, and hand FORGET to *forget*.\n\n"
	     "*watching*: a dict that has the names of the handlers that somebody observes; those are always called.\n"
	     "*directory*, *file*, *link*: the classes of the nodes; *row*: that of the catalogue's rows. *cached_s*,\n"
	     "*absent_s*: for how many seconds the kernel may believe in a name and attributes, and that there is no\n"
	     "such name. remember(None) ends it.");

static PyObject *remember(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *nodes = NULL, *watching = NULL, *forget = NULL;
	PyObject *directory = NULL, *file = NULL, *link = NULL, *row = NULL;
	unsigned long cached_s = 0, absent_s = 0;
	const int ends = PyTuple_GET_SIZE(args) == 1 && PyTuple_GET_ITEM(args, 0) == Py_None;

	if (!ends && !PyArg_ParseTuple(args, "O!O!OO!O!O!O!kk", &PyDict_Type, &nodes, &PyDict_Type, &watching, &forget,
				       &PyType_Type, &directory, &PyType_Type, &file, &PyType_Type, &link, &PyType_Type,
				       &row, &cached_s, &absent_s))
		return NULL;
	Py_XSETREF(memory.nodes, Py_XNewRef(nodes));
	Py_XSETREF(memory.watching, Py_XNewRef(watching));
	Py_XSETREF(memory.forget, Py_XNewRef(forget));
	set_classes(directory, file, link, row);
	memory.cached_s = cached_s;
	memory.absent_s = absent_s;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(recall_doc, "recall(fd, request)\n--\n\n"
			 "Answer a request on *fd*, as is done with those that the session receives; tell whether it was.");

static PyObject *recall(PyObject *Py_UNUSED(module), PyObject *args)
{
	const char *request;
	Py_ssize_t size;
	int fd;

	if (!PyArg_ParseTuple(args, "iy#", &fd, &request, &size))
		return NULL;
	if (size < (Py_ssize_t)sizeof(struct fuse_in_header)) {
		PyErr_SetString(PyExc_ValueError, "recall() takes a whole request");
		return NULL;
	}
	return PyBool_FromLong(answer_from_memory(fd, request, (size_t)size));
}

static PyMethodDef methods[] = {
	{"recall", recall, METH_VARARGS, recall_doc},
	{"remember", remember, METH_VARARGS, remember_doc},
	{NULL, NULL, 0, NULL},
};

int add_memory(PyObject *module)
{
	return intern_names() < 0 ? -1 : PyModule_AddFunctions(module, methods);
}
