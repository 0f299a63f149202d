"""The gateway's own directory, for commands: which one is meant, and that it is there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recfs.cli.common.options import Invocation
from recfs.cli.common.store import configured
from recfs.errors import ConfigError, IoFailure, OutOfSpace


def directory_meant(invocation: Invocation) -> Path:
    """Give [serve].directory of the configuration; where none is named and there is none, the default. ConfigError."""
    from recfs.config import ENV_CONFIG, SYSTEM_CONFIG, config_for_root

    is_named = invocation.config is not None or invocation.root is not None or ENV_CONFIG in os.environ
    if is_named or os.path.lexists(SYSTEM_CONFIG):
        return configured(invocation).serve.directory
    return config_for_root(Path("/srv/recfs"), os.environ).serve.directory  # it says nothing of a store


def make_directory(directory: Path) -> None:
    """Make it, its user's alone, where it is missing. Raises ConfigError."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigError(
            f"[serve].directory {directory} cannot be made ({error.strerror}): make it, mode 0700, for the user of"
            " the gateway, or name another one"
        ) from error


@contextmanager
def told_of_disk(directory: Path) -> Iterator[None]:
    """What the disk says of the directory is told as what it is. Raises OutOfSpace, IoFailure."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (OutOfSpace if is_full else IoFailure)(
            f"[serve].directory {directory}: {error.strerror}; nothing was changed"
        ) from error


__all__ = ["directory_meant", "make_directory", "told_of_disk"]
