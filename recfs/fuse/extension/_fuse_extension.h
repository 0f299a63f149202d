/* What the sources of the extension recfs.fuse._fuse_reply have in common.
 *
 * It puts right, by symbol interposition, what libfuse and pyfuse3 cannot say to the kernel, or say wrongly: some
 * functions of libfuse are defined here once more. Python loads the extension with RTLD_GLOBAL before pyfuse3
 * (recfs/fuse/interpose.py), so pyfuse3's calls end up here; libfuse's own internal calls do not.
 *
 *   _fuse_reply.c      the answers to OPEN, CREATE and OPENDIR, with flags and backing files of our choice; the module
 *   _fuse_receive.c    receiving: the numbers and senders of requests, interrupts, what is answered without Python
 *   _fuse_memory.c     what is answered from memory: attributes and names
 *   _fuse_listing.c    directories' entries, a whole buffer at a time
 *   _fuse_nodes.c      the nodes in memory, for both
 *   _fuse_extra.c      the requests that pyfuse3 has no handlers for
 *
 * Each has its functions for Python in a table of its own, and finds those of libfuse it stands for by itself. While a
 * request is served, receiving asks memory first, and both memory and listings read nodes. Everything runs with the GIL held, which protects the static variables.
 */

#ifndef RECFS_FUSE_EXTENSION_H
#define RECFS_FUSE_EXTENSION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>

/* All else is hidden (-fvisibility=hidden): other libraries are to find these functions alone. */
#define EXPORTED __attribute__((visibility("default")))

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

/* Add a source's functions to *module*; *libfuse* is libfuse's handle for dlsym. -1 with an exception if they lack
 * something there. */
int add_receive(PyObject *module, void *libfuse);
int add_extra(PyObject *module, void *libfuse);
int add_memory(PyObject *module);
int add_listing(PyObject *module, void *libfuse);

/* Answer a request of *size* bytes, a whole header at least, if that takes nothing but what is in memory; else 0. */
int answer_from_memory(int fd, const void *request, size_t size);

/* Answer READDIR by *readdirplus*, pyfuse3's, where the kernel wants names alone. */
typedef void readdir_function(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
readdir_function on_listing;
uint32_t opcode_of(uint64_t unique); /* of a request that was received lately; 0: not known any more */
void answer_listings_by(readdir_function *readdirplus);

/* --- nodes (recfs/state/nodes.py), and rows of the catalogue (recfs/ports/rows.py) --------------------------------- */

/* What an attribute is called, interned: name_ino, name_mode ... */
#define NODE_ATTRIBUTES(X)												\
	X(atime_ns)													\
	X(body)													\
	X(bytes)													\
	X(children)													\
	X(complete)													\
	X(ctime_ns)													\
	X(fallback)													\
	X(format)													\
	X(getattr)													\
	X(gid)													\
	X(ino)													\
	X(kernel_refs)												\
	X(kind)													\
	X(lookup)													\
	X(mode)													\
	X(mtime_ns)													\
	X(name)													\
	X(parent)													\
	X(size_bytes)													\
	X(target)													\
	X(uid)													\
	X(unchecked_writers)												\
	X(unlinked)

#define NODE_ATTRIBUTE(name) extern PyObject *name_##name;
NODE_ATTRIBUTES(NODE_ATTRIBUTE)
#undef NODE_ATTRIBUTE

struct node_classes {
	PyTypeObject *directory, *file, *link, *row;
};
extern struct node_classes node_classes;

int intern_names(void);
void set_classes(PyObject *directory, PyObject *file, PyObject *link, PyObject *row);

/* Those that return -1 may leave an exception: what cannot be read is the handler's affair, who clears it. */
int read_number(PyObject *object, PyObject *name, long long *value);
int read_truth(PyObject *object, PyObject *name);
int read_none(PyObject *object, PyObject *name);
int is_node(PyObject *object);

/* As Entries.of and Entries.of_row (recfs/fuse/entries.py) answer of a node or a row; -1: they have to be asked. */
int node_attributes(PyObject *node, struct fuse_attr *attr);
int row_attributes(PyObject *row, struct fuse_attr *attr);

/* S_IFMT of a directory's entry: a node, a row, or a shared file that is shown; 0 if it cannot be told. */
uint32_t entry_format(PyObject *entry);

/* Whether the kernel may believe in the name of a node: not where shared files may come to be shown, or go. */
int name_is_lasting(PyObject *node);

/* Add to what the kernel holds of a node. */
int refer(PyObject *node, long change);

#endif
