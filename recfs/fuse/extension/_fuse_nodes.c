/* The nodes in memory, and rows of the catalogue, as the kernel wants them: the same as recfs/fuse/entries.py makes. */

#include "_fuse_extension.h"

#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK_BYTES = 512, BLKSIZE = 4096 }; /* BLOCK_BYTES of recfs/state/nodes.py; what pyfuse3 says */

#define DEFINED(name) PyObject *name_##name;
NODE_ATTRIBUTES(DEFINED)

struct node_classes node_classes;

int intern_names(void)
{
#define INTERNED(name) \
	if (!(name_##name = PyUnicode_InternFromString(#name))) \
		return -1;
	NODE_ATTRIBUTES(INTERNED)
	return 0;
}

void set_classes(PyObject *directory, PyObject *file, PyObject *link, PyObject *row)
{
	Py_XSETREF(node_classes.directory, (PyTypeObject *)Py_XNewRef(directory));
	Py_XSETREF(node_classes.file, (PyTypeObject *)Py_XNewRef(file));
	Py_XSETREF(node_classes.link, (PyTypeObject *)Py_XNewRef(link));
	Py_XSETREF(node_classes.row, (PyTypeObject *)Py_XNewRef(row));
}

int read_number(PyObject *object, PyObject *name, long long *value)
{
	PyObject *found = PyObject_GetAttr(object, name);
	const int is_number = found && PyLong_CheckExact(found);

	*value = is_number ? PyLong_AsLongLong(found) : -1;
	Py_XDECREF(found);
	return is_number && !(*value == -1 && PyErr_Occurred()) ? 0 : -1;
}

int read_truth(PyObject *object, PyObject *name)
{
	PyObject *found = PyObject_GetAttr(object, name);
	int is_true = found ? PyObject_IsTrue(found) : -1;

	Py_XDECREF(found);
	return is_true;
}

int read_none(PyObject *object, PyObject *name)
{
	PyObject *found = PyObject_GetAttr(object, name);
	const int none = found == Py_None;

	Py_XDECREF(found);
	return found ? none : -1;
}

int is_node(PyObject *object)
{
	const PyTypeObject *type = Py_TYPE(object);

	return type == node_classes.directory || type == node_classes.file || type == node_classes.link;
}

static int when(PyObject *node, PyObject *name, uint64_t *seconds, uint32_t *nanoseconds)
{
	long long ns, rest;

	if (read_number(node, name, &ns) < 0)
		return -1;
	rest = ns % 1000000000;
	if (rest < 0)
		rest += 1000000000;
	*seconds = (uint64_t)((ns - rest) / 1000000000);
	*nanoseconds = (uint32_t)rest;
	return 0;
}

/* Whether the daemon is not alone in writing the file: then the file below has to be looked at first. */
static int is_written_elsewhere(PyObject *file)
{
	PyObject *body = PyObject_GetAttr(file, name_body);
	int writers = !body ? -1 : body == Py_None ? 0 : read_truth(body, name_unchecked_writers);

	Py_XDECREF(body);
	return writers;
}

static void set_size(struct fuse_attr *attr, long long size)
{
	attr->size = (uint64_t)size;
	attr->blocks = ((uint64_t)size + BLOCK_BYTES - 1) / BLOCK_BYTES;
	if (attr->blocks > INT64_MAX / BLOCK_BYTES)
		attr->blocks = INT64_MAX / BLOCK_BYTES;
}

static int set_length(struct fuse_attr *attr, PyObject *node)
{
	PyObject *target = PyObject_GetAttr(node, name_target);
	const int is_known = target && PyBytes_CheckExact(target);

	if (is_known)
		attr->size = (uint64_t)PyBytes_GET_SIZE(target);
	Py_XDECREF(target);
	return is_known ? 0 : -1;
}

static int node_size(PyObject *node, struct fuse_attr *attr)
{
	long long size;

	if (Py_TYPE(node) == node_classes.link)
		return set_length(attr, node);
	if (Py_TYPE(node) != node_classes.file)
		return Py_TYPE(node) == node_classes.directory ? 0 : -1;
	if (is_written_elsewhere(node) != 0 || read_number(node, name_bytes, &size) < 0 || size < 0)
		return -1;
	set_size(attr, size);
	return 0;
}

/* What nodes and rows have in common. */
static int set_rest(PyObject *object, struct fuse_attr *attr)
{
	long long mode, uid, gid, ino;

	if (read_number(object, name_mode, &mode) < 0 || read_number(object, name_uid, &uid) < 0 ||
	    read_number(object, name_gid, &gid) < 0 || read_number(object, name_ino, &ino) < 0 ||
	    when(object, name_atime_ns, &attr->atime, &attr->atimensec) < 0 ||
	    when(object, name_mtime_ns, &attr->mtime, &attr->mtimensec) < 0 ||
	    when(object, name_ctime_ns, &attr->ctime, &attr->ctimensec) < 0)
		return -1;
	if (uid < 0 || uid > UINT32_MAX || gid < 0 || gid > UINT32_MAX || ino <= 0)
		return -1;
	attr->ino = (uint64_t)ino;
	attr->mode |= (uint32_t)mode;
	attr->uid = (uint32_t)uid;
	attr->gid = (uint32_t)gid;
	attr->blksize = BLKSIZE;
	return 0;
}

int node_attributes(PyObject *node, struct fuse_attr *attr)
{
	long long format;
	int unlinked;

	memset(attr, 0, sizeof *attr);
	if (node_size(node, attr) < 0 || read_number(node, name_format, &format) < 0)
		return -1;
	unlinked = read_truth(node, name_unlinked);
	if (unlinked < 0)
		return -1;
	attr->mode = (uint32_t)format;
	attr->nlink = !unlinked;
	return set_rest(node, attr);
}

/* S_IFMT of a row's kind; 0: it is not known. */
static uint32_t row_format(PyObject *row)
{
	PyObject *kind = PyObject_GetAttr(row, name_kind); /* a str, or of a class below it */
	uint32_t format = 0;

	if (kind && PyUnicode_Check(kind)) {
		if (!PyUnicode_CompareWithASCIIString(kind, "file"))
			format = S_IFREG;
		else if (!PyUnicode_CompareWithASCIIString(kind, "dir"))
			format = S_IFDIR;
		else if (!PyUnicode_CompareWithASCIIString(kind, "symlink"))
			format = S_IFLNK;
	}
	Py_XDECREF(kind);
	return format;
}

int row_attributes(PyObject *row, struct fuse_attr *attr)
{
	long long size;

	memset(attr, 0, sizeof *attr);
	attr->mode = row_format(row);
	attr->nlink = 1;
	if (attr->mode == S_IFREG) {
		if (read_number(row, name_size_bytes, &size) < 0 || size < 0)
			return -1;
		set_size(attr, size);
	} else if (attr->mode == S_IFLNK && set_length(attr, row) < 0) {
		return -1;
	}
	return attr->mode ? set_rest(row, attr) : -1;
}

uint32_t entry_format(PyObject *entry)
{
	long long format;

	if (Py_TYPE(entry) == node_classes.row)
		return row_format(entry);
	if (is_node(entry))
		return read_number(entry, name_format, &format) < 0 ? 0 : (uint32_t)format;
	return S_IFREG;
}

int name_is_lasting(PyObject *node)
{
	PyObject *parent = PyObject_GetAttr(node, name_parent);
	int lasting = parent ? read_none(parent, name_fallback) : -1;

	Py_XDECREF(parent);
	return lasting;
}

int refer(PyObject *node, long change)
{
	long long refs;
	PyObject *changed;
	int res;

	if (read_number(node, name_kernel_refs, &refs) < 0)
		return -1;
	changed = PyLong_FromLongLong(refs + change);
	res = changed ? PyObject_SetAttr(node, name_kernel_refs, changed) : -1;
	Py_XDECREF(changed);
	return res;
}
