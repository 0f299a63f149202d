"""Where a foreground daemon's log goes and how its lines look."""

import logging
import logging.handlers
import re
import sys
import time
from pathlib import Path
from typing import Any

from recfs.cli.mounts.flood import FloodHandler
from recfs.errors import ConfigError

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What ends a line, moves the cursor, or turns the order of what is read."""


def set_up_logging(level: str, file: Path | None) -> None:
    """Send the log to `file`, or to stderr: colours on a terminal, plain lines elsewhere. Times are UTC.

    The file may be rotated away at any time; a new one is begun. Of the same line over and over a few are written, and
    a count. Raises ConfigError when the file cannot be opened.
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

        from recfs.cli.common.output import console

        handler = RichHandler(console=console(stderr=True), show_path=False, markup=False)
        handler.setFormatter(LineFormatter("%(name)s %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_plain())
    logging.basicConfig(level=level.upper(), handlers=[FloodHandler(handler)], force=True)
    for library in ("boto3", "botocore", "urllib3", "s3transfer"):  # they tell of every request
        logging.getLogger(library).setLevel(logging.WARNING)


LINE_CHARACTERS = 4000
"""Longest message: the path of a file has no limit, and what is logged for its sake needs one."""


class LineFormatter(logging.Formatter):
    """One record, one line: names may hold newlines, and must not forge lines of the log. Tracebacks are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, control characters as escapes; of a long one the beginning and the end."""
        if len(record.message) > LINE_CHARACTERS:
            half = LINE_CHARACTERS // 2
            record.message = f"{record.message[:half]} [...] {record.message[-half:]}"
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback, each line of it recognisable as one."""
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).splitlines())


def escaped(text: str) -> str:
    """Text with its control characters as escapes (\\n, \\x1b …)."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _plain() -> logging.Formatter:
    formatter = LineFormatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s")
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    formatter.converter = time.gmtime
    return formatter
