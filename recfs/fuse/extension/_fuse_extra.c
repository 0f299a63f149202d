/* The requests that pyfuse3 has no handlers for.
 *
 *   fuse_session_new
 *       The handlers pyfuse3 does not have are added: FALLOCATE, LSEEK and COPY_FILE_RANGE are handed to Python
 *       (recfs/fuse/extra_requests.py), which answers them through this module; READDIR goes to pyfuse3's READDIRPLUS
 *       (_fuse_listing.c).
 */

#include "_fuse_extension.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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
	if (more->readdirplus && !more->readdir) {
		answer_listings_by(more->readdirplus);
		more->readdir = on_listing;
		more->readdirplus = on_listing;
	}
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

static PyMethodDef methods[] = {
	{"extend", extend, METH_O, extend_doc},
	{"extensions", extensions, METH_NOARGS, extensions_doc},
	{"reply_err", FAST(reply_err), METH_FASTCALL, reply_err_doc},
	{"reply_lseek", FAST(reply_lseek), METH_FASTCALL, reply_lseek_doc},
	{"reply_write", FAST(reply_write), METH_FASTCALL, reply_write_doc},
	{NULL, NULL, 0, NULL},
};

int add_extra(PyObject *module, void *libfuse)
{
	*(void **)&libfuse_session_new = dlsym(libfuse, "fuse_session_new");
	*(void **)&libfuse_session_new_versioned = dlsym(libfuse, "fuse_session_new_versioned");
	return PyModule_AddFunctions(module, methods);
}
