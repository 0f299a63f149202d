/* What the sources of the extension recfs.fuse._fuse_reply have in common.
 *
 * It puts right, by symbol interposition, what libfuse and pyfuse3 cannot say to the kernel, or say wrongly: some
 * functions of libfuse are defined here once more. Python loads the extension with RTLD_GLOBAL before pyfuse3
 * (recfs/fuse/interpose.py), so pyfuse3's calls end up here; libfuse's own internal calls do not.
 *
 *   _fuse_reply.c      the answers to OPEN, CREATE and OPENDIR, with flags and backing files of our choice; the module
 *   _fuse_receive.c    receiving: the numbers and senders of requests, interrupts, what is answered without Python
 *   _fuse_extra.c      the requests that pyfuse3 has no handlers for
 *
 * Each has its functions for Python in a table of its own, and finds those of libfuse it stands for by itself. None
 * calls another's while a request is served. Everything runs with the GIL held, which protects the static variables.
 */

#ifndef RECFS_FUSE_EXTENSION_H
#define RECFS_FUSE_EXTENSION_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

/* All else is hidden (-fvisibility=hidden): other libraries are to find these functions alone. */
#define EXPORTED __attribute__((visibility("default")))

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

/* Add a source's functions to *module*; *libfuse* is libfuse's handle for dlsym. -1 with an exception if they lack
 * something there. */
int add_receive(PyObject *module, void *libfuse);
int add_extra(PyObject *module, void *libfuse);

#endif
