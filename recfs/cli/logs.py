"""Where a foreground daemon's log goes and how its lines look."""

import logging
import logging.handlers
import sys
import time
from pathlib import Path

from recfs.errors import ConfigError


def set_up_logging(level: str, file: Path | None) -> None:
    """Send the log to `file`, or to stderr: colours on a terminal, plain lines elsewhere. Times are UTC.

    The file may be rotated away at any time; a new one is begun. Raises ConfigError when it cannot be opened.
    """
    handler: logging.Handler
    if file is not None:
        try:
            handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
        except OSError as exc:
            raise ConfigError(
                f"cannot write the log {file}: {exc.strerror}; set [log].file to a path this user may write"
            ) from exc
        handler.setFormatter(_plain())
    elif sys.stderr.isatty():
        from rich.logging import RichHandler

        from recfs.cli.output import console

        handler = RichHandler(console=console(stderr=True), show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_plain())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in ("boto3", "botocore", "urllib3", "s3transfer"):  # they tell of every request
        logging.getLogger(library).setLevel(logging.WARNING)


def _plain() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s")
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    formatter.converter = time.gmtime
    return formatter
