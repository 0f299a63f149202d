/* Directories' entries: a whole buffer at a time, and names alone where the kernel asks for no more.
 *
 *   fuse_add_direntry_plus
 *       As in libfuse, unless Python has staged entries: then as many of them as fit. pyfuse3's readdir_reply calls it for
 *       one entry, and takes what it returns for the length of that.
 *
 * With FUSE_READDIRPLUS_AUTO the kernel asks for attributes (READDIRPLUS) when a listing begins, and goes on asking for
 * them where somebody looks at the files; else for names (READDIR), which pyfuse3 has no handler for. Its other one
 * serves both: whether names are asked for is told by `is_plain`, of each request.
 */

#define _GNU_SOURCE /* DT_* */
#include "_fuse_extension.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { DOTS = 2 }; /* offsets: 1 is `.`, 2 is `..`, and an entry's is its inode number + 2 (recfs/fuse/directories.py) */

static size_t (*libfuse_add_direntry_plus)(fuse_req_t, char *, size_t, const char *, const struct fuse_entry_param *,
					   off_t);
static readdir_function *pyfuse3_readdirplus;

static struct {
	PyObject *entries; /* a list or tuple; NULL: nothing is staged */
	PyObject *folder;
	Py_ssize_t next; /* the first that is not in the buffer yet */
	long long offset; /* from where on; below DOTS, `.` and `..` come first */
	int plain, full;
	unsigned long cached_s;
} staged;

void answer_listings_by(readdir_function *readdirplus)
{
	pyfuse3_readdirplus = readdirplus;
}

/* Of READDIR and of READDIRPLUS. */
void on_listing(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	pyfuse3_readdirplus(req, ino, size, offset, fi);
}


/* --- packing ------------------------------------------------------------------------------------------------------ */

/* How the kernel is told of an entry besides its name; -1: the handler has to tell it. */
static int describe(PyObject *entry, struct fuse_entry_out *out)
{
	int lasting = 1;

	memset(out, 0, sizeof *out);
	if (is_node(entry)) {
		lasting = name_is_lasting(entry);
		if (lasting < 0 || node_attributes(entry, &out->attr) < 0)
			return -1;
	} else if (Py_TYPE(entry) != node_classes.row || row_attributes(entry, &out->attr) < 0) {
		return -1;
	}
	out->nodeid = out->attr.ino;
	out->attr_valid = staged.cached_s;
	out->entry_valid = lasting ? staged.cached_s : 0;
	return 0;
}

/* Put an entry into the buffer, behind *out* if attributes are asked for; its length there, 0 if it does not fit. */
static size_t put(char *buffer, size_t room, const struct fuse_entry_out *out, const struct fuse_dirent *head,
		  const char *name)
{
	const size_t before = out ? sizeof *out : 0;
	const size_t all = before + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + head->namelen);

	if (all > room)
		return 0;
	memset(buffer, 0, all);
	if (out)
		memcpy(buffer, out, sizeof *out);
	memcpy(buffer + before, head, FUSE_NAME_OFFSET);
	memcpy(buffer + before + FUSE_NAME_OFFSET, name, head->namelen);
	return all;
}

/* Put a node, a row or a shown file into the buffer; 0 if it does not fit, -1 if the handler has to tell it. */
static Py_ssize_t put_entry(char *buffer, size_t room, PyObject *entry, PyObject *name)
{
	struct fuse_dirent head = {.namelen = (uint32_t)PyBytes_GET_SIZE(name)};
	struct fuse_entry_out out;
	uint32_t format;
	long long ino;
	size_t used;

	if (read_number(entry, name_ino, &ino) < 0 || ino <= 0)
		return -1;
	if (!staged.plain && describe(entry, &out) < 0)
		return -1;
	format = staged.plain ? entry_format(entry) : out.attr.mode;
	if (!format)
		return -1;
	head.ino = (uint64_t)ino;
	head.off = (uint64_t)ino + DOTS;
	head.type = (format & S_IFMT) >> 12;
	used = put(buffer, room, staged.plain ? NULL : &out, &head, PyBytes_AS_STRING(name));
	if (used && !staged.plain && is_node(entry) && refer(entry, 1) < 0)
		return -1;
	return (Py_ssize_t)used;
}

/* Put `.` and `..` into the buffer, as far as they are asked for. The kernel takes no attributes of them. */
static size_t put_dots(char *buffer, size_t room)
{
	static const struct fuse_entry_out nothing;
	struct fuse_dirent head = {.type = S_IFDIR >> 12};
	PyObject *parent = PyObject_GetAttr(staged.folder, name_parent);
	size_t used = 0, length = 1;
	long long ino;

	for (; parent && length && staged.offset < DOTS; staged.offset++) {
		if (read_number(staged.offset ? parent : staged.folder, name_ino, &ino) < 0)
			break;
		head.ino = (uint64_t)ino;
		head.off = (uint64_t)staged.offset + 1;
		head.namelen = (uint32_t)head.off;
		length = put(buffer + used, room - used, staged.plain ? NULL : &nothing, &head, "..");
		staged.full = !length;
		used += length;
	}
	Py_XDECREF(parent);
	return used;
}

/* Put as many of the staged entries into the buffer as fit, up to one that the handler has to tell. */
static size_t put_staged(char *buffer, size_t room)
{
	PyObject *const *entries = PySequence_Fast_ITEMS(staged.entries);
	const Py_ssize_t count = PySequence_Fast_GET_SIZE(staged.entries);
	size_t used = put_dots(buffer, room);
	Py_ssize_t length;
	PyObject *name;

	for (; !staged.full && staged.next < count; staged.next++) {
		name = PyObject_GetAttr(entries[staged.next], name_name);
		length = name && PyBytes_CheckExact(name)
				 ? put_entry(buffer + used, room - used, entries[staged.next], name)
				 : -1;
		Py_XDECREF(name);
		staged.full = !length;
		if (length <= 0)
			break;
		used += (size_t)length;
	}
	PyErr_Clear();
	return used;
}

EXPORTED size_t fuse_add_direntry_plus(fuse_req_t req, char *buffer, size_t size, const char *name,
				       const struct fuse_entry_param *entry, off_t offset)
{
	size_t used;

	if (!staged.entries)
		return libfuse_add_direntry_plus(req, buffer, size, name, entry, offset);
	used = put_staged(buffer, size);
	Py_CLEAR(staged.entries);
	Py_CLEAR(staged.folder);
	return used;
}

/* --- for Python --------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(is_plain_doc, "is_plain(unique, /)\n--\n\n"
			   "Tell whether names alone are asked for by a listing request that is under way.");

static PyObject *is_plain(PyObject *Py_UNUSED(module), PyObject *number)
{
	const unsigned long long unique = PyLong_AsUnsignedLongLong(number);

	return PyErr_Occurred() ? NULL : PyBool_FromLong(opcode_of(unique) == FUSE_READDIR);
}

PyDoc_STRVAR(stage_entries_doc,
	     "stage_entries(entries, first, folder, offset, plain, cached_s)\n--\n\n"
	     "Have the next call of pyfuse3.readdir_reply tell these entries, from number *first* on, whatever it is given.\n\n"
	     "*entries*: a list or tuple of nodes, rows and, if *plain*, of whatever has a name and an inode number and\n"
	     "stands for a file. *offset*: 0: `.` and `..` of *folder* come first; 1: `..` does. *plain*: names alone;\n"
	     "else with attributes, which the kernel may believe for *cached_s* seconds, and it holds a reference to each\n"
	     "node.");

static PyObject *stage_entries(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *entries, *folder;
	Py_ssize_t first;
	unsigned long cached_s;
	long long offset;
	int plain;

	if (!PyArg_ParseTuple(args, "OnOLpk", &entries, &first, &folder, &offset, &plain, &cached_s))
		return NULL;
	if (!PyList_CheckExact(entries) && !PyTuple_CheckExact(entries)) {
		PyErr_SetString(PyExc_TypeError, "stage_entries() takes a list or a tuple");
		return NULL;
	}
	if (first < 0 || offset < 0) {
		PyErr_SetString(PyExc_ValueError, "stage_entries() takes numbers from 0 on");
		return NULL;
	}
	Py_XSETREF(staged.entries, Py_NewRef(entries));
	Py_XSETREF(staged.folder, Py_NewRef(folder));
	staged.next = first;
	staged.offset = offset;
	staged.plain = plain;
	staged.full = 0;
	staged.cached_s = cached_s;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(entries_put_doc, "entries_put()\n--\n\n"
			      "Return the number of the first staged entry that was not told, and whether the answer is full.\n\n"
			      "-1 and False: no call has come through here.");

static PyObject *entries_put(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	if (!staged.entries)
		return Py_BuildValue("nO", staged.next, staged.full ? Py_True : Py_False);
	Py_CLEAR(staged.entries);
	Py_CLEAR(staged.folder);
	return Py_BuildValue("nO", (Py_ssize_t)-1, Py_False);
}

static PyMethodDef methods[] = {
	{"is_plain", is_plain, METH_O, is_plain_doc},
	{"stage_entries", stage_entries, METH_VARARGS, stage_entries_doc},
	{"entries_put", entries_put, METH_NOARGS, entries_put_doc},
	{NULL, NULL, 0, NULL},
};

int add_listing(PyObject *module, void *libfuse)
{
	*(void **)&libfuse_add_direntry_plus = dlsym(libfuse, "fuse_add_direntry_plus");
	if (!libfuse_add_direntry_plus || libfuse_add_direntry_plus == fuse_add_direntry_plus) {
		PyErr_SetString(PyExc_ImportError, "no fuse_add_direntry_plus in libfuse3");
		return -1;
	}
	return PyModule_AddFunctions(module, methods);
}
