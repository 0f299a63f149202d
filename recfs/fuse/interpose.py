"""Loads the C extension so that its functions stand in for libfuse's (see _fuse_extension.h). Imported before pyfuse3.

The dynamic linker searches the libraries loaded with RTLD_GLOBAL, in the order they came, before a library's own
dependencies. So it is enough to load the extension that way, earlier than pyfuse3. Where that has no effect (pyfuse3
was first, or has libfuse inside), the counters of the extension stand still, and `passthrough` notices.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

WITHOUT_VARIABLE = "RECFS_TEST_WITHOUT"
EXTENSION = "recfs.fuse._fuse_reply"
NEEDED = ("stage", "extend", "on_interrupt", "sender", "look", "remember")
"""Functions it has to have."""


def without() -> frozenset[str]:
    """What the tests pretend is missing: the names in the environment variable RECFS_TEST_WITHOUT."""
    return frozenset(filter(None, os.environ.get(WITHOUT_VARIABLE, "").split(",")))


def load(name: str = EXTENSION) -> tuple[ModuleType | None, str]:
    """Load the extension for all libraries that come later. Returns it, or None and the reason."""
    if "reply" in without():
        return None, f"{WITHOUT_VARIABLE} says so"
    before = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        found = importlib.import_module(name)
        if not all(hasattr(found, each) for each in NEEDED):
            return None, "it was built from older sources"
        return found, ""
    except ImportError as error:
        return None, str(error)
    finally:
        sys.setdlopenflags(before)


reply, why_not = load()
