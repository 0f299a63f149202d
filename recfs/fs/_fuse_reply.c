/* What libfuse and pyfuse3 cannot say to the kernel, or say wrongly, put right by symbol interposition.
 *
 * Some functions of libfuse are defined here once more. Python loads this module with RTLD_GLOBAL before pyfuse3
 * (recfs/fs/interpose.py), so pyfuse3's calls end up here; libfuse's own internal calls do not.
 *
 *   fuse_reply_open, fuse_reply_create
 *       As in libfuse, unless Python has staged an answer for this file handle: then with its open flags and its
 *       backing file (passthrough, Linux 6.9). libfuse learned to say that in 3.17; pyfuse3 cannot pass it on.
 *       fuse_reply_open answers OPEN and OPENDIR.
 *   fuse_session_receive_buf
 *       "Nothing to read after all" is reported as EINTR, on which pyfuse3 waits again. On EAGAIN it would end.
 *       So is a question for file capabilities, which is answered here: there are none. ECONNABORTED is the end, as
 *       ENODEV is. The number of each request is kept for whoever handles it, and Python is told of each INTERRUPT
 *       (recfs/fs/waits.py); libfuse gets it, too, and does nothing with it.
 *   fuse_session_new
 *       The handlers pyfuse3 does not have are added: FALLOCATE, LSEEK and COPY_FILE_RANGE are handed to Python
 *       (recfs/fs/extra_requests.py), which answers them through this module.
 *
 * Everything runs with the GIL held, which is what protects the static variables.
 */

#define _GNU_SOURCE /* dladdr */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/fuse.h>
#include <linux/xattr.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

#define EXPORTED __attribute__((visibility("default")))

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
static unsigned long long requests_received;
static unsigned long long requests_vanished;
static unsigned long long requests_answered;
static unsigned long long requests_interrupted;
static unsigned long long unique_received;

/* Who sent the requests received lately. The kernel's numbers grow by two (FUSE_REQ_ID_STEP), so each has a place. */
enum { SENDERS = 1 << 14 };
static struct {
	uint64_t unique;
	uint32_t uid;
} senders[SENDERS];

static size_t sender_place(uint64_t unique)
{
	return (unique >> 1) & (SENDERS - 1);
}

static PyObject *interrupt_handler;
static int (*libfuse_receive_buf)(struct fuse_session *se, struct fuse_buf *buf);

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

/* Even with HANDLE_KILLPRIV_V2 the kernel asks before the first write to an inode, and again when it has got new
 * attributes of it: one of the five requests that a new file takes. So it is spared the way through Python. */
static int is_about_capabilities(const struct fuse_buf *buf, int size)
{
	const struct fuse_in_header *in = buf->mem;
	const size_t before_name = sizeof *in + sizeof(struct fuse_getxattr_in);

	if (buf->flags & FUSE_BUF_IS_FD || size < (int)(before_name + sizeof XATTR_NAME_CAPS))
		return 0;
	return in->opcode == FUSE_GETXATTR &&
	       !memcmp((const char *)buf->mem + before_name, XATTR_NAME_CAPS, sizeof XATTR_NAME_CAPS);
}

static int answer_no_data(struct fuse_session *se, const struct fuse_in_header *in)
{
	const struct fuse_out_header out = {.len = sizeof out, .error = -ENODATA, .unique = in->unique};
	ssize_t written;

	do
		written = write(fuse_session_fd(se), &out, sizeof out);
	while (written < 0 && errno == EINTR);
	/* ENOENT: whoever asked was killed meanwhile. */
	return written == (ssize_t)sizeof out || (written < 0 && errno == ENOENT);
}

/* Keep the number of a request; tell Python of one that is taken back. */
static void note(const struct fuse_buf *buf, int size)
{
	const struct fuse_in_header *in = buf->mem;
	const struct fuse_interrupt_in *interrupt = (const void *)(in + 1);
	PyObject *result;

	if (buf->flags & FUSE_BUF_IS_FD || size < (int)sizeof *in)
		return;
	unique_received = in->unique;
	senders[sender_place(in->unique)].unique = in->unique;
	senders[sender_place(in->unique)].uid = in->uid;
	if (in->opcode != FUSE_INTERRUPT || size < (int)(sizeof *in + sizeof *interrupt))
		return;
	requests_interrupted++;
	if (!interrupt_handler)
		return;
	result = PyObject_CallFunction(interrupt_handler, "K", (unsigned long long)interrupt->unique);
	if (!result)
		PyErr_WriteUnraisable(interrupt_handler);
	Py_XDECREF(result);
}

EXPORTED int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf)
{
	int res = libfuse_receive_buf(se, buf);

	requests_received++;
	unique_received = 0;
	if (res > 0)
		note(buf, res);
	if (is_about_capabilities(buf, res) && answer_no_data(se, buf->mem)) {
		requests_answered++;
		return -EINTR; /* not on to the next one: whether others get their turn first is Python's to say */
	}
	if (res == -ECONNABORTED) { /* unmounted, or aborted, while we read; libfuse knows only ENODEV, before that */
		fuse_session_exit(se);
		return 0;
	}
	/* EAGAIN: whoever sent the request was killed before we read it. ENOENT: the same, while we read it. */
	if (res != -EAGAIN && res != -ENOENT)
		return res;
	requests_vanished++;
	return -EINTR;
}

/* --- requests pyfuse3 does not know ------------------------------------------------------------------------------- */

/* One that Python has not answered yet. Python knows it by a number, so that nothing can be answered twice. */
struct asked {
	struct asked *next;
	unsigned long long number;
	fuse_req_t req;
};

static struct asked *unanswered;
static unsigned long long last_number;
static PyObject *handler;
static unsigned long long sessions_extended;

static fuse_req_t take(unsigned long long number)
{
	struct asked **link, *found;
	fuse_req_t req;

	for (link = &unanswered; *link; link = &(*link)->next) {
		if ((*link)->number != number)
			continue;
		found = *link;
		*link = found->next;
		req = found->req;
		free(found);
		return req;
	}
	return NULL;
}

/* Call handler(number, *arguments); *format* is Py_BuildValue's for the arguments. */
static void ask(fuse_req_t req, const char *format, ...)
{
	struct asked *asked = handler ? malloc(sizeof *asked) : NULL;
	PyObject *called = handler, *arguments, *result = NULL;
	unsigned long long number;
	va_list list;

	if (!asked) {
		fuse_reply_err(req, handler ? ENOMEM : ENOTCONN);
		return;
	}
	number = ++last_number;
	*asked = (struct asked){.next = unanswered, .number = number, .req = req};
	unanswered = asked;
	Py_INCREF(called);
	va_start(list, format);
	arguments = Py_VaBuildValue(format, list);
	va_end(list);
	if (arguments)
		result = PyObject_CallFunction(called, "KO", number, arguments);
	Py_XDECREF(arguments);
	if (!result) {
		PyErr_WriteUnraisable(called);
		req = take(number);
		if (req)
			fuse_reply_err(req, EIO);
	}
	Py_XDECREF(result);
	Py_DECREF(called);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	(void)ino;
	ask(req, "(sKiLL)", "fallocate", (unsigned long long)fi->fh, mode, (long long)offset, (long long)length);
}

static void on_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	(void)ino;
	ask(req, "(sKLi)", "lseek", (unsigned long long)fi->fh, (long long)offset, whence);
}

static void on_copy_file_range(fuse_req_t req, fuse_ino_t source, off_t source_offset, struct fuse_file_info *source_fi,
			       fuse_ino_t target, off_t target_offset, struct fuse_file_info *target_fi, size_t length,
			       int flags)
{
	(void)source;
	(void)target;
	ask(req, "(sKLKLKi)", "copy_file_range", (unsigned long long)source_fi->fh, (long long)source_offset,
	    (unsigned long long)target_fi->fh, (long long)target_offset, (unsigned long long)length, flags);
}

/* A copy of *op* with the handlers above, as far as it has none of its own; NULL if there is nothing to add. */
static struct fuse_lowlevel_ops *extended(const struct fuse_lowlevel_ops *op, size_t *size)
{
	const size_t needed = offsetof(struct fuse_lowlevel_ops, lseek) + sizeof op->lseek;
	struct fuse_lowlevel_ops *more;

	if (!handler)
		return NULL;
	more = calloc(1, *size > sizeof *more ? *size : sizeof *more); /* pyfuse3 may know more than we, or less */
	if (!more)
		return NULL;
	memcpy(more, op, *size);
	if (*size < needed)
		*size = needed;
	if (!more->fallocate)
		more->fallocate = on_fallocate;
	if (!more->lseek)
		more->lseek = on_lseek;
	if (!more->copy_file_range)
		more->copy_file_range = on_copy_file_range;
	sessions_extended++;
	return more;
}

typedef struct fuse_session *session_new(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *);
typedef struct fuse_session *session_new_versioned(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *,
						   void *);

static session_new *libfuse_session_new;
static session_new_versioned *libfuse_session_new_versioned;

/* Named in assembler: libfuse's headers declare the one as a function (to 3.16) or as a macro around the other. */
session_new our_session_new __asm__("fuse_session_new");
session_new_versioned our_session_new_versioned __asm__("fuse_session_new_versioned");

EXPORTED struct fuse_session *our_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *op, size_t size,
					      void *data)
{
	struct fuse_lowlevel_ops *more = extended(op, &size); /* libfuse makes a copy */
	struct fuse_session *se = libfuse_session_new ? libfuse_session_new(args, more ? more : op, size, data) : NULL;

	free(more);
	return se;
}

EXPORTED struct fuse_session *our_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
							size_t size, void *version, void *data)
{
	struct fuse_lowlevel_ops *more = extended(op, &size);
	struct fuse_session *se = NULL;

	if (libfuse_session_new_versioned)
		se = libfuse_session_new_versioned(args, more ? more : op, size, version, data);
	free(more);
	return se;
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

PyDoc_STRVAR(receives_doc, "receives()\n--\n\nReturn how often a request was asked for through this module.");

static PyObject *receives(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(requests_received);
}

PyDoc_STRVAR(vanished_doc, "vanished()\n--\n\nReturn how many of the requests asked for were taken back meanwhile.");

static PyObject *vanished(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(requests_vanished);
}

PyDoc_STRVAR(answered_doc, "answered()\n--\n\nReturn how many questions for file capabilities were answered here.");

static PyObject *answered(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(requests_answered);
}

PyDoc_STRVAR(interrupts_doc, "interrupts()\n--\n\nReturn how many requests were taken back while they were worked on.");

static PyObject *interrupts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(requests_interrupted);
}

PyDoc_STRVAR(unique_doc, "unique()\n--\n\n"
			 "Return the kernel's number of the request that was received last.\n\n"
			 "In a handler, before it first awaits anything: of its own. 0 where none came through here.");

static PyObject *unique(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(unique_received);
}

PyDoc_STRVAR(sender_doc, "sender(unique)\n--\n\n"
			 "Return the user id of whoever sent that request; -1 if it is not known, or not any more.");

static PyObject *sender(PyObject *Py_UNUSED(module), PyObject *arg)
{
	const unsigned long long number = PyLong_AsUnsignedLongLong(arg);

	if (PyErr_Occurred())
		return NULL;
	if (!number || senders[sender_place(number)].unique != number)
		return PyLong_FromLong(-1);
	return PyLong_FromUnsignedLong(senders[sender_place(number)].uid);
}

PyDoc_STRVAR(on_interrupt_doc, "on_interrupt(handler)\n--\n\n"
			       "Have *handler* called with the number of each request that the kernel interrupts; None: nobody.");

static PyObject *on_interrupt(PyObject *Py_UNUSED(module), PyObject *callable)
{
	PyObject *before = interrupt_handler;

	if (callable != Py_None && !PyCallable_Check(callable)) {
		PyErr_SetString(PyExc_TypeError, "on_interrupt() takes a callable or None");
		return NULL;
	}
	interrupt_handler = callable != Py_None ? Py_NewRef(callable) : NULL;
	Py_XDECREF(before);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(extend_doc, "extend(handler)\n--\n\n"
			 "Have FALLOCATE, LSEEK and COPY_FILE_RANGE handed to *handler*, in sessions made from now on.\n\n"
			 "It is called with a number for the request and a tuple: the request's name and its integers, and\n"
			 "has each answered with one of the reply functions, then or later. None ends that: what is\n"
			 "unanswered, and what still comes, is answered with ENOTCONN.");

static PyObject *extend(PyObject *Py_UNUSED(module), PyObject *callable)
{
	PyObject *before = handler;

	if (callable != Py_None && !PyCallable_Check(callable)) {
		PyErr_SetString(PyExc_TypeError, "extend() takes a callable or None");
		return NULL;
	}
	handler = callable != Py_None ? Py_NewRef(callable) : NULL;
	while (!handler && unanswered)
		fuse_reply_err(take(unanswered->number), ENOTCONN);
	Py_XDECREF(before);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(extensions_doc, "extensions()\n--\n\nReturn how many sessions were made with the added handlers.");

static PyObject *extensions(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(sessions_extended);
}

/* Take the request and the value out of the arguments of a reply function. */
static fuse_req_t to_answer(PyObject *const *args, Py_ssize_t count, long long *value)
{
	unsigned long long number;
	fuse_req_t req;

	if (count != 2) {
		PyErr_Format(PyExc_TypeError, "a reply takes 2 arguments, not %zd", count);
		return NULL;
	}
	number = PyLong_AsUnsignedLongLong(args[0]);
	if (number == (unsigned long long)-1 && PyErr_Occurred())
		return NULL;
	*value = PyLong_AsLongLong(args[1]);
	if (*value == -1 && PyErr_Occurred())
		return NULL;
	if (*value < 0) {
		PyErr_SetString(PyExc_OverflowError, "the value of a reply is negative");
		return NULL;
	}
	req = take(number);
	if (!req)
		PyErr_Format(PyExc_LookupError, "no request %llu, or it is answered already", number);
	return req;
}

/* libfuse's results are dropped: a reply fails where nobody waits for it any more. */

PyDoc_STRVAR(reply_err_doc, "reply_err(request, errno)\n--\n\nAnswer with an error, or with success: 0.");

static PyObject *reply_err(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
	long long value;
	fuse_req_t req = to_answer(args, count, &value);

	if (!req)
		return NULL;
	fuse_reply_err(req, value <= INT_MAX ? (int)value : EIO);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(reply_lseek_doc, "reply_lseek(request, offset)\n--\n\nAnswer LSEEK.");

static PyObject *reply_lseek(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
	long long value;
	fuse_req_t req = to_answer(args, count, &value);

	if (!req)
		return NULL;
	fuse_reply_lseek(req, (off_t)value);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(reply_write_doc, "reply_write(request, length)\n--\n\nAnswer COPY_FILE_RANGE.");

static PyObject *reply_write(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
	long long value;
	fuse_req_t req = to_answer(args, count, &value);

	if (!req)
		return NULL;
	fuse_reply_write(req, (size_t)value);
	Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
	{"stage", FAST(stage), METH_FASTCALL, stage_doc},
	{"replies", replies, METH_NOARGS, replies_doc},
	{"receives", receives, METH_NOARGS, receives_doc},
	{"vanished", vanished, METH_NOARGS, vanished_doc},
	{"answered", answered, METH_NOARGS, answered_doc},
	{"interrupts", interrupts, METH_NOARGS, interrupts_doc},
	{"unique", unique, METH_NOARGS, unique_doc},
	{"sender", sender, METH_O, sender_doc},
	{"on_interrupt", on_interrupt, METH_O, on_interrupt_doc},
	{"extend", extend, METH_O, extend_doc},
	{"extensions", extensions, METH_NOARGS, extensions_doc},
	{"reply_err", FAST(reply_err), METH_FASTCALL, reply_err_doc},
	{"reply_lseek", FAST(reply_lseek), METH_FASTCALL, reply_lseek_doc},
	{"reply_write", FAST(reply_write), METH_FASTCALL, reply_write_doc},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "recfs.fs._fuse_reply",
	.m_doc = "Answers with open flags and backing files of our choice, and requests that pyfuse3 does not know.",
	.m_size = -1, /* static state: pyfuse3 has one session in a process, too */
	.m_methods = methods,
};

/* Look libfuse's functions up in libfuse itself: by name alone, the loader would find ours. */
static int find_originals(void)
{
	Dl_info where;
	void *libfuse;

	if (!dladdr((void *)(uintptr_t)fuse_reply_buf, &where)) {
		PyErr_SetString(PyExc_ImportError, "libfuse3 is not where its functions are");
		return -1;
	}
	libfuse = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
	if (libfuse) {
		*(void **)&libfuse_receive_buf = dlsym(libfuse, "fuse_session_receive_buf");
		*(void **)&libfuse_session_new = dlsym(libfuse, "fuse_session_new");
		*(void **)&libfuse_session_new_versioned = dlsym(libfuse, "fuse_session_new_versioned");
	}
	if (!libfuse_receive_buf || libfuse_receive_buf == fuse_session_receive_buf) {
		PyErr_Format(PyExc_ImportError, "no fuse_session_receive_buf in %s", where.dli_fname);
		return -1;
	}
	return 0;
}

PyMODINIT_FUNC PyInit__fuse_reply(void)
{
	if (find_originals() < 0)
		return NULL;
	return PyModule_Create(&module);
}
