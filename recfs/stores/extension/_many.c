/* Many small files in one call: what recfs does to each file that was closed (it is opened, looked at, brought to stable
 * storage, read, and later moved home with its attributes) is ten system calls. From Python each of them gives the
 * interpreter's lock away and has to win it back from the thread that answers requests, which costs more than the call.
 *
 * Here the lock is let go of once for all files of a batch. Only what goes as it nearly always does is done here; whatever
 * is unusual is left as it is found, for stores/many.py to have it done with all care by the code in Python, which also
 * knows how to say what is wrong. So nothing here retries, works around, or explains anything.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

/* struct open_how and RESOLVE_NO_SYMLINKS of openat2(2): older headers lack them. */
struct how {
	uint64_t flags, mode, resolve;
};
static const struct how reading = {
	.flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
	.resolve = 0x04,
};

enum { LEASE = 1, DATA = 2, WHOLE = 4, MD5 = 8 };

struct source {
	const char *path;
	int how;
	int error;
	size_t at, length;
	struct stat info;
	unsigned char sha256[32], md5[16];
	int hashed;
};

/* EVP_Digest(3), EVP_sha256(3) and EVP_md5(3) of the libcrypto that Python's hashlib has loaded; NULL where it has none of
 * its own, and Python hashes what was read. */
static int (*digest)(const void *, size_t, unsigned char *, unsigned int *, const void *, void *);
static const void *(*of_sha256)(void);
static const void *(*of_md5)(void);

static int64_t ns(const struct timespec *time)
{
	return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

/* Read one file into *buffer*, of which *room* bytes are left; 0, or an error number. EFBIG: it does not fit. */
static int read_one(struct source *file, int root, char *buffer, size_t room)
{
	int error = 0;
	ssize_t got;
	int fd = (int)syscall(SYS_openat2, root, file->path, &reading, sizeof(reading));

	if (fd < 0)
		return errno;
	if (file->how & LEASE) { /* disk/leases.py */
		if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
			fcntl(fd, F_SETLEASE, F_UNLCK);
		else if (errno == EAGAIN)
			error = ETXTBSY; /* which nothing else here says */
	}
	if (!error && fstat(fd, &file->info))
		error = errno;
	if (!error && !S_ISREG(file->info.st_mode))
		error = EINVAL;
	if (!error && (uint64_t)file->info.st_size >= room)
		error = EFBIG;
	if (!error && file->how & (DATA | WHOLE)) /* an error of these is told once, and never again */
		if ((file->how & WHOLE ? fsync(fd) : fdatasync(fd)) || fstat(fd, &file->info))
			error = errno;
	if (!error) {
		got = pread(fd, buffer, room, 0);
		if (got < 0)
			error = errno;
		else if ((size_t)got == room) /* short at the end alone: it has grown */
			error = EFBIG;
		else
			file->length = (size_t)got;
	}
	close(fd);
	return error;
}

/* Hash what was read of a file; whether that worked. */
static int hash_one(struct source *file, const char *content)
{
	if (!digest || digest(content, file->length, file->sha256, NULL, of_sha256(), NULL) != 1)
		return 0;
	return !(file->how & MD5) || digest(content, file->length, file->md5, NULL, of_md5(), NULL) == 1;
}

PyDoc_STRVAR(read_doc,
	"read(root, paths, how, buffer, /)\n--\n\n"
	"Read and hash small files, one after another in *buffer*, until one does not fit any more.");

static PyObject *read_files(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
	struct source *files = NULL;
	PyObject *done = NULL;
	Py_buffer buffer;
	Py_ssize_t n, i, end;
	size_t at = 0;
	int root;

	if (count != 4 || !PyTuple_Check(args[1]) || !PyBytes_Check(args[2])) {
		PyErr_SetString(PyExc_TypeError, "read(root: int, paths: tuple[bytes, ...], how: bytes, buffer)");
		return NULL;
	}
	root = (int)PyLong_AsLong(args[0]);
	if (root == -1 && PyErr_Occurred())
		return NULL;
	n = PyTuple_GET_SIZE(args[1]);
	if (PyBytes_GET_SIZE(args[2]) != n) {
		PyErr_SetString(PyExc_ValueError, "one byte of how for each path");
		return NULL;
	}
	if (PyObject_GetBuffer(args[3], &buffer, PyBUF_WRITABLE))
		return NULL;
	files = PyMem_Calloc((size_t)n + 1, sizeof(*files));
	if (!files) {
		PyErr_NoMemory();
		goto out;
	}
	for (i = 0; i < n; i++) {
		if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(args[1], i), (char **)&files[i].path, NULL))
			goto out; /* not bytes, or a NUL in them */
		files[i].how = PyBytes_AS_STRING(args[2])[i];
	}
	Py_BEGIN_ALLOW_THREADS
	for (end = 0; end < n; end++) {
		struct source *file = &files[end];
		size_t room = (size_t)buffer.len - at;

		file->error = read_one(file, root, (char *)buffer.buf + at, room);
		if (file->error == EFBIG && at > 0)
			break; /* there will be room in the next call */
		if (file->error) {
			memset(&file->info, 0, sizeof(file->info));
			continue;
		}
		file->at = at;
		file->hashed = hash_one(file, (char *)buffer.buf + at);
		at += file->length;
	}
	Py_END_ALLOW_THREADS
	done = PyList_New(end);
	for (i = 0; done && i < end; i++) {
		struct source *file = &files[i];
		struct stat *info = &file->info;
		PyObject *each = Py_BuildValue("innKIIILy#y#", file->error, (Py_ssize_t)file->at, (Py_ssize_t)file->length,
			(unsigned long long)info->st_ino, (unsigned int)info->st_mode, (unsigned int)info->st_uid,
			(unsigned int)info->st_gid, (long long)ns(&info->st_mtim),
			file->hashed ? (char *)file->sha256 : NULL, (Py_ssize_t)sizeof(file->sha256),
			file->hashed && file->how & MD5 ? (char *)file->md5 : NULL, (Py_ssize_t)sizeof(file->md5));

		if (!each)
			Py_CLEAR(done);
		else
			PyList_SET_ITEM(done, i, each);
	}
out:
	PyMem_Free(files);
	PyBuffer_Release(&buffer);
	return done;
}

struct move {
	const char *name, *new_name;
	int folder, target;
	long long st_ino, size; /* -1: any */
	int described;          /* whether the attributes below are to be its */
	long long mode, uid, gid, atime, mtime;
	unsigned long long found;
	int error;
};

static struct timespec time_of(long long value)
{
	struct timespec time = {.tv_sec = value / 1000000000, .tv_nsec = value % 1000000000};

	if (time.tv_nsec < 0) {
		time.tv_nsec += 1000000000;
		time.tv_sec -= 1;
	}
	return time;
}

/* Give what was moved its attributes; 0, or an error number. */
static int describe(const struct move *step, const struct stat *info, int may_chown)
{
	struct timespec times[2] = {time_of(step->atime), time_of(step->mtime)};
	uid_t uid = (uid_t)step->uid;
	gid_t gid = (gid_t)step->gid;
	mode_t mode = (mode_t)step->mode;
	int other = may_chown && (info->st_uid != uid || info->st_gid != gid);

	if (other && fchownat(step->target, step->new_name, uid, gid, AT_SYMLINK_NOFOLLOW))
		return errno;
	/* A new owner takes bits away (chown(2)), so the mode comes after it. */
	if ((other || (info->st_mode & 07777) != mode) && fchmodat(step->target, step->new_name, mode, 0))
		return errno;
	if ((ns(&info->st_atim) != step->atime || ns(&info->st_mtim) != step->mtime) &&
	    utimensat(step->target, step->new_name, times, AT_SYMLINK_NOFOLLOW))
		return errno;
	return 0;
}

static int is_id(long long number)
{
	return number >= 0 && number < UINT32_MAX; /* the last one means "as it was" (chown(2)) */
}

/* Move one file; 0 if nothing was done, because that is not as plain as it is to be here. */
static int move_one(struct move *step, int may_chown)
{
	struct stat info;

	if (step->described && !(is_id(step->uid) && is_id(step->gid)))
		return 0;
	if (fstatat(step->folder, step->name, &info, AT_SYMLINK_NOFOLLOW) || !S_ISREG(info.st_mode))
		return 0;
	if (step->st_ino >= 0 && (unsigned long long)step->st_ino != info.st_ino)
		return 0;
	if (step->size >= 0 && step->size != info.st_size)
		return 0;
	step->found = info.st_ino;
	if (!syscall(SYS_renameat2, step->folder, step->name, step->target, step->new_name, RENAME_NOREPLACE))
		step->error = step->described ? describe(step, &info, may_chown) : 0;
	else if (errno == EEXIST || errno == EINVAL || errno == ENOSYS)
		return 0; /* something stands there, or the file system cannot tell */
	else
		step->error = errno;
	return 1;
}

PyDoc_STRVAR(move_doc,
	"move(steps, may_chown, /)\n--\n\n"
	"Move files, one after another, up to the first that is unusual or fails.");

static PyObject *move_files(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
	struct move *steps;
	PyObject *done = NULL;
	Py_ssize_t n, i, end;
	int may_chown;

	if (count != 2 || !PyTuple_Check(args[0])) {
		PyErr_SetString(PyExc_TypeError, "move(steps: tuple[tuple, ...], may_chown: bool)");
		return NULL;
	}
	may_chown = PyObject_IsTrue(args[1]);
	if (may_chown < 0)
		return NULL;
	n = PyTuple_GET_SIZE(args[0]);
	steps = PyMem_Calloc((size_t)n + 1, sizeof(*steps));
	if (!steps)
		return PyErr_NoMemory();
	for (i = 0; i < n; i++) {
		struct move *step = &steps[i];

		if (!PyArg_ParseTuple(PyTuple_GET_ITEM(args[0], i), "iyiyLLpLLLLL", &step->folder, &step->name,
			    &step->target, &step->new_name, &step->st_ino, &step->size, &step->described, &step->mode,
			    &step->uid, &step->gid, &step->atime, &step->mtime))
			goto out;
	}
	Py_BEGIN_ALLOW_THREADS
	for (end = 0; end < n && !(end && steps[end - 1].error); end++)
		if (!move_one(&steps[end], may_chown))
			break;
	Py_END_ALLOW_THREADS
	done = PyList_New(end);
	for (i = 0; done && i < end; i++) {
		PyObject *each = Py_BuildValue("Ki", steps[i].found, steps[i].error);

		if (!each)
			Py_CLEAR(done);
		else
			PyList_SET_ITEM(done, i, each);
	}
out:
	PyMem_Free(steps);
	return done;
}

static PyMethodDef methods[] = {
	{"read", FAST(read_files), METH_FASTCALL, read_doc},
	{"move", FAST(move_files), METH_FASTCALL, move_doc},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "recfs.stores._many",
	.m_doc = "System calls on many small files at once, with the interpreter's lock let go of once.",
	.m_size = 0,
	.m_methods = methods,
};

static void find_digests(void)
{
	PyObject *hashlib = PyImport_ImportModule("_hashlib");
	void *crypto = hashlib ? dlopen("libcrypto.so.3", RTLD_LAZY | RTLD_NOLOAD) : NULL;

	PyErr_Clear(); /* a Python without it */
	Py_XDECREF(hashlib);
	if (!crypto)
		return;
	*(void **)&of_sha256 = dlsym(crypto, "EVP_sha256");
	*(void **)&of_md5 = dlsym(crypto, "EVP_md5");
	if (of_sha256 && of_md5)
		*(void **)&digest = dlsym(crypto, "EVP_Digest");
}

PyMODINIT_FUNC PyInit__many(void)
{
	find_digests();
	return PyModuleDef_Init(&module);
}
