/* The answers to OPEN, CREATE and OPENDIR; and the module.
 *
 *   fuse_reply_open, fuse_reply_create
 *       As in libfuse, unless Python has staged an answer for this file handle: then with its open flags and its
 *       backing file (passthrough, Linux 6.9). libfuse learned to say that in 3.17; pyfuse3 cannot pass it on.
 *       fuse_reply_open answers OPEN and OPENDIR.
 */

#define _GNU_SOURCE /* dladdr */
#include "_fuse_extension.h"

#include <dlfcn.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <string.h>

/* Younger than the oldest linux/fuse.h this has to compile with. */
#ifndef FOPEN_NOFLUSH
#define FOPEN_NOFLUSH (1 << 5)
#endif
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif
#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH (1 << 7)
#endif

/* The kernel refuses a passthrough open with any other flag (fs/fuse/iomode.c). */
#define BESIDE_PASSTHROUGH (FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH)

/* struct fuse_open_out of Linux 6.9; older headers call the last member padding. */
struct open_out {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};
_Static_assert(sizeof(struct open_out) == sizeof(struct fuse_open_out), "the size of the answer never changed");

struct create_out {
	struct fuse_entry_out entry;
	struct open_out open;
};
_Static_assert(sizeof(struct create_out) == sizeof(struct fuse_entry_out) + sizeof(struct open_out), "no gap");

static struct {
	int waiting;
	struct open_out out;
} staged;

static unsigned long long replies_sent;

static struct open_out open_answer(const struct fuse_file_info *fi)
{
	struct open_out out = {.fh = fi->fh};

	if (staged.waiting && staged.out.fh == fi->fh) {
		staged.waiting = 0;
		return staged.out;
	}
	if (fi->direct_io)
		out.open_flags |= FOPEN_DIRECT_IO;
	if (fi->keep_cache)
		out.open_flags |= FOPEN_KEEP_CACHE;
	if (fi->nonseekable)
		out.open_flags |= FOPEN_NONSEEKABLE;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 5)
	if (fi->cache_readdir)
		out.open_flags |= FOPEN_CACHE_DIR;
#endif
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 12)
	if (fi->noflush)
		out.open_flags |= FOPEN_NOFLUSH;
#endif
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 16)
	if (fi->parallel_direct_writes)
		out.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
#endif
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	if (fi->backing_id > 0) {
		out.open_flags |= FOPEN_PASSTHROUGH;
		out.backing_id = fi->backing_id;
	}
#endif
	return out;
}

static uint64_t whole_seconds(double timeout)
{
	if (!(timeout > 0.0))
		return 0;
	return timeout >= (double)UINT64_MAX ? UINT64_MAX : (uint64_t)timeout;
}

static uint32_t nanoseconds(double timeout)
{
	double rest = timeout - (double)whole_seconds(timeout);

	if (!(rest > 0.0))
		return 0;
	return rest >= 0.999999999 ? 999999999 : (uint32_t)(rest * 1.0e9);
}

static struct fuse_entry_out entry_answer(const struct fuse_entry_param *param)
{
	const struct stat *st = &param->attr;
	struct fuse_entry_out out;

	memset(&out, 0, sizeof out);
	out.nodeid = param->ino;
	out.generation = param->generation;
	out.entry_valid = whole_seconds(param->entry_timeout);
	out.entry_valid_nsec = nanoseconds(param->entry_timeout);
	out.attr_valid = whole_seconds(param->attr_timeout);
	out.attr_valid_nsec = nanoseconds(param->attr_timeout);
	out.attr.ino = st->st_ino;
	out.attr.size = (uint64_t)st->st_size;
	out.attr.blocks = (uint64_t)st->st_blocks;
	out.attr.atime = (uint64_t)st->st_atim.tv_sec;
	out.attr.mtime = (uint64_t)st->st_mtim.tv_sec;
	out.attr.ctime = (uint64_t)st->st_ctim.tv_sec;
	out.attr.atimensec = (uint32_t)st->st_atim.tv_nsec;
	out.attr.mtimensec = (uint32_t)st->st_mtim.tv_nsec;
	out.attr.ctimensec = (uint32_t)st->st_ctim.tv_nsec;
	out.attr.mode = st->st_mode;
	out.attr.nlink = (uint32_t)st->st_nlink;
	out.attr.uid = st->st_uid;
	out.attr.gid = st->st_gid;
	out.attr.rdev = (uint32_t)st->st_rdev;
	out.attr.blksize = (uint32_t)st->st_blksize;
	return out;
}

EXPORTED int fuse_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	struct open_out out = open_answer(fi);

	replies_sent++;
	return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

EXPORTED int fuse_reply_create(fuse_req_t req, const struct fuse_entry_param *param, const struct fuse_file_info *fi)
{
	struct create_out out = {.entry = entry_answer(param), .open = open_answer(fi)};

	replies_sent++;
	return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

/* --- for Python --------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(stage_doc, "stage(fh, open_flags, backing_id)\n--\n\n"
			"Answer the next OPEN, CREATE or OPENDIR, if it is for *fh*, with these FOPEN_* flags.\n\n"
			"They replace what pyfuse3.FileInfo says. With *backing_id* > 0 FOPEN_PASSTHROUGH is added, and\n"
			"flags the kernel does not accept beside it are left out.");

static PyObject *stage(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
	struct open_out out;
	unsigned long flags;
	long backing;

	if (count != 3) {
		PyErr_Format(PyExc_TypeError, "stage() takes 3 arguments, not %zd", count);
		return NULL;
	}
	out.fh = PyLong_AsUnsignedLongLong(args[0]);
	if (out.fh == (uint64_t)-1 && PyErr_Occurred())
		return NULL;
	flags = PyLong_AsUnsignedLong(args[1]);
	if (flags == (unsigned long)-1 && PyErr_Occurred())
		return NULL;
	backing = PyLong_AsLong(args[2]);
	if (backing == -1 && PyErr_Occurred())
		return NULL;
	if (flags > UINT32_MAX || backing < 0 || backing > INT32_MAX) {
		PyErr_SetString(PyExc_OverflowError, "open flags or backing id out of range");
		return NULL;
	}
	if (backing > 0)
		flags = (flags | FOPEN_PASSTHROUGH) & BESIDE_PASSTHROUGH;
	out.open_flags = (uint32_t)flags;
	out.backing_id = (int32_t)backing;
	staged.out = out;
	staged.waiting = 1;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(replies_doc, "replies()\n--\n\nReturn how many OPEN, CREATE and OPENDIR answers went through this module.");

static PyObject *replies(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(replies_sent);
}

static PyMethodDef methods[] = {
	{"stage", FAST(stage), METH_FASTCALL, stage_doc},
	{"replies", replies, METH_NOARGS, replies_doc},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "recfs.fuse._fuse_reply",
	.m_doc = "Answers with open flags and backing files of our choice, and requests that pyfuse3 does not know.",
	.m_size = -1, /* static state: pyfuse3 has one session in a process, too */
	.m_methods = methods,
};

/* libfuse itself: looked up by name alone, its functions would be ours. NULL with an exception if it is not found. */
static void *open_libfuse(void)
{
	Dl_info where;
	void *libfuse;

	if (!dladdr((void *)(uintptr_t)fuse_reply_buf, &where)) {
		PyErr_SetString(PyExc_ImportError, "libfuse3 is not where its functions are");
		return NULL;
	}
	libfuse = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
	if (!libfuse)
		PyErr_Format(PyExc_ImportError, "%s is not loaded", where.dli_fname);
	return libfuse;
}

PyMODINIT_FUNC PyInit__fuse_reply(void)
{
	void *libfuse = open_libfuse();
	PyObject *made = libfuse ? PyModule_Create(&module) : NULL;

	if (made && (add_receive(made, libfuse) < 0 || add_extra(made, libfuse) < 0 || add_memory(made) < 0 ||
		     add_listing(made, libfuse) < 0))
		Py_CLEAR(made);
	return made;
}
