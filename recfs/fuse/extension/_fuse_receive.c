/* Receiving: the numbers and senders of requests, interrupts, and what is answered without Python.
 *
 *   fuse_session_receive_buf
 *       "Nothing to read after all" is reported as EINTR, on which pyfuse3 waits again. On EAGAIN it would end.
 *       So is the end of a stretch of requests that were answered here: questions for file capabilities, of which there
 *       are none, and what memory knows (_fuse_memory.c). ECONNABORTED is the end, as ENODEV is. The number of each request is kept for whoever handles it, and Python is told of each INTERRUPT
 *       (recfs/state/waits.py); libfuse gets it, too, and does nothing with it.
 */

#include "_fuse_extension.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/fuse.h>
#include <linux/xattr.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static unsigned long long requests_received;
static unsigned long long requests_vanished;
static unsigned long long requests_answered;
static unsigned long long requests_interrupted;
static unsigned long long unique_received;

/* Who sent the requests received lately, and what they are. The kernel's numbers grow by two (FUSE_REQ_ID_STEP), so each has a place. */
enum { SENDERS = 1 << 14 };
static struct {
	uint64_t unique;
	uint32_t uid;
	uint32_t opcode;
} senders[SENDERS];

static size_t sender_place(uint64_t unique)
{
	return (unique >> 1) & (SENDERS - 1);
}

uint32_t opcode_of(uint64_t unique)
{
	const size_t place = sender_place(unique);

	return senders[place].unique == unique ? senders[place].opcode : 0;
}

/* How long requests are answered here one after the other, and how long the next one is looked for meanwhile. */
static uint64_t stretch_ns, spin_ns;
static int has_looked; /* in vain, just now */

static PyObject *interrupt_handler;
static int (*libfuse_receive_buf)(struct fuse_session *se, struct fuse_buf *buf);

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
	senders[sender_place(in->unique)].opcode = in->opcode;
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

/* Answer the request here, if that can be done. */
static int is_answered_here(struct fuse_session *se, const struct fuse_buf *buf, int size)
{
	if (size < (int)sizeof(struct fuse_in_header) || buf->flags & FUSE_BUF_IS_FD)
		return 0;
	if (is_about_capabilities(buf, size))
		return answer_no_data(se, buf->mem);
	return answer_from_memory(fuse_session_fd(se), buf->mem, (size_t)size);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* On a busy machine clients do not get to send their next request while they are looked for: that only takes the CPU from
 * them. After each time in vain it is left out so often, twice as often after the next, up to MOST_LEFT_OUT. */
enum { MOST_LEFT_OUT = 15 };
static unsigned left_out, to_leave_out;

/* Whether there is a request to be read, now or within *spin_ns*. Others may run Python meanwhile. */
static int is_readable(int fd, uint64_t spin_ns)
{
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	const int spins = spin_ns && !to_leave_out;
	uint64_t end = 0;
	int found;

	if (spin_ns && to_leave_out)
		to_leave_out--;
	Py_BEGIN_ALLOW_THREADS
	for (;;) {
		found = poll(&polled, 1, 0);
		if (found > 0 || !spins)
			break;
		if (!end)
			end = now_ns() + spin_ns;
		else if (now_ns() >= end)
			break;
	}
	Py_END_ALLOW_THREADS
	if (spins) {
		left_out = found > 0 ? 0 : left_out * 2 + 1;
		if (left_out > MOST_LEFT_OUT)
			left_out = MOST_LEFT_OUT;
		to_leave_out = left_out;
	}
	return found > 0;
}

EXPORTED int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf)
{
	uint64_t end = 0;
	int res;

	for (;;) {
		res = libfuse_receive_buf(se, buf);
		requests_received++;
		unique_received = 0;
		if (res > 0)
			note(buf, res);
		if (!is_answered_here(se, buf, res))
			break;
		requests_answered++;
		if (!end)
			end = now_ns() + stretch_ns;
		if (now_ns() >= end) /* whether others get their turn first is Python's to say */
			return -EINTR;
		if (!is_readable(fuse_session_fd(se), spin_ns)) {
			has_looked = 1;
			return -EINTR;
		}
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

/* --- for Python --------------------------------------------------------------------------------------------------- */

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

PyDoc_STRVAR(answered_doc, "answered()\n--\n\nReturn how many requests were answered here.");

static PyObject *answered(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(requests_answered);
}

PyDoc_STRVAR(interrupts_doc, "interrupts()\n--\n\nReturn how many requests were taken back while they were worked on.");

static PyObject *interrupts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLongLong(requests_interrupted);
}

PyDoc_STRVAR(pace_doc, "pace(stretch_s, spin_s)\n--\n\n"
		       "Go on for up to *stretch_s* seconds with requests that are answered here, and look up to *spin_s* for\n"
		       "the next one after each. At first it is 0 of both: each goes back to the caller.");

static PyObject *pace(PyObject *Py_UNUSED(module), PyObject *args)
{
	double stretch_s, spin_s;

	if (!PyArg_ParseTuple(args, "dd", &stretch_s, &spin_s))
		return NULL;
	if (!(stretch_s >= 0 && stretch_s <= 1 && spin_s >= 0 && spin_s <= 1)) {
		PyErr_SetString(PyExc_ValueError, "pace() takes seconds from 0 to 1");
		return NULL;
	}
	stretch_ns = (uint64_t)(stretch_s * 1e9);
	spin_ns = (uint64_t)(spin_s * 1e9);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(look_doc, "look(fd, spin_s)\n--\n\n"
		       "Tell whether *fd* is readable, now or within *spin_s* seconds; threads may run Python meanwhile.\n\n"
		       "It is not looked for so long where that has just been done after a request that was answered here, nor\n"
		       "for a while after it was in vain.");

static PyObject *look(PyObject *Py_UNUSED(module), PyObject *args)
{
	double spin_s;
	int fd;

	if (!PyArg_ParseTuple(args, "id", &fd, &spin_s))
		return NULL;
	if (has_looked || !(spin_s > 0))
		spin_s = 0;
	has_looked = 0;
	return PyBool_FromLong(is_readable(fd, (uint64_t)(spin_s * 1e9)));
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

static PyMethodDef methods[] = {
	{"receives", receives, METH_NOARGS, receives_doc},
	{"vanished", vanished, METH_NOARGS, vanished_doc},
	{"answered", answered, METH_NOARGS, answered_doc},
	{"interrupts", interrupts, METH_NOARGS, interrupts_doc},
	{"pace", pace, METH_VARARGS, pace_doc},
	{"look", look, METH_VARARGS, look_doc},
	{"unique", unique, METH_NOARGS, unique_doc},
	{"sender", sender, METH_O, sender_doc},
	{"on_interrupt", on_interrupt, METH_O, on_interrupt_doc},
	{NULL, NULL, 0, NULL},
};

int add_receive(PyObject *module, void *libfuse)
{
	*(void **)&libfuse_receive_buf = dlsym(libfuse, "fuse_session_receive_buf");
	if (!libfuse_receive_buf || libfuse_receive_buf == fuse_session_receive_buf) {
		PyErr_SetString(PyExc_ImportError, "no fuse_session_receive_buf in libfuse3");
		return -1;
	}
	return PyModule_AddFunctions(module, methods);
}
