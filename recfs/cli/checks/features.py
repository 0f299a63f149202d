"""What the S3 server does not do as recfs wants it, found by trying (`recfs.stores.s3.features`)."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from recfs.cli.checks import Check, Level
from recfs.core.naming import show_name
from recfs.errors import RecfsError

if TYPE_CHECKING:
    from recfs.config import Config, S3Section
    from recfs.stores.s3.features.model import Finding
    from recfs.stores.s3.features.run import Result

NAME = "s3 server"
WITHIN_S, CLEAN_S = 45.0, 25.0
"""For trying, and for removing what was made."""
_QUIET_S = 5
"""So long nothing is said of it."""


@dataclass(frozen=True, slots=True)
class Server:
    """What is found of the server of a configuration."""

    checks: list[Check]
    findings: tuple["Finding", ...] = ()

    def as_list(self) -> list[dict[str, str]]:
        """Every feature, for --json."""
        return [
            {
                "name": each.feature.name,
                "outcome": each.outcome.value,
                "detail": each.detail,
                "meaning": each.meaning,
                "remedy": each.remedy,
            }
            for each in self.findings
        ]


def impatient(section: "S3Section") -> "S3Section":
    """The section with times that fit somebody who waits in front of a terminal."""
    return section.model_copy(
        update={
            "connect_timeout": min(section.connect_timeout, 5.0),
            "read_timeout": min(section.read_timeout, 10.0),
        }
    )


def server_checks(config: "Config") -> Server:
    """Try what recfs asks of an S3 server, on the bucket of the configuration.

    Makes small objects there and removes them, also when it is interrupted. Takes a second or two, and never more than
    two minutes.
    """
    from recfs.stores.s3.features.run import find_out
    from recfs.stores.s3.features.wants import Wants

    section = config.s3
    if section is None:
        return Server([])
    seconds = count(1)

    def meanwhile() -> None:
        if next(seconds) == _QUIET_S:
            click.echo(f"recfs: trying what the server of {show_name(section.url)} does", err=True)

    try:
        with _signals_end_it():
            result = find_out(
                impatient(section), Wants.of(config), within_s=WITHIN_S, clean_s=CLEAN_S, meanwhile=meanwhile
            )
    except RecfsError as error:
        return Server([Check(NAME, Level.WARN, str(error).partition("; ")[0], "look at [s3] in recfs.conf")])
    return Server(worst_first(result), result.findings)


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Have SIGINT, SIGTERM and SIGHUP end the block by an exception, so that what was made is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return

    # What is ignored (nohup(1)) stays so.
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [each for each in ending if signal.getsignal(each) is not signal.SIG_IGN]

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)  # whoever asks twice does not want to wait
        click.echo("recfs: interrupted; removing what was made in the bucket", err=True)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def worst_first(result: "Result") -> list[Check]:
    """The findings that matter, worst first, and one that says how many there are in all."""
    from recfs.stores.s3.features.model import Outcome, Weight

    levels = {Weight.FAILURE: Level.FAIL, Weight.WARNING: Level.WARN, Weight.NOTE: Level.NOTE}
    told = [
        Check(NAME, levels[each.weight], _sentence(each), each.remedy)
        for weight in levels
        for each in result.findings
        if each.weight is weight and each.outcome is not Outcome.UNTRIED
    ]
    untried = [each for each in result.findings if each.outcome is Outcome.UNTRIED]
    if untried:
        names = ", ".join(each.feature.name for each in untried)
        told.append(Check(NAME, Level.NOTE, f"not tried: {names} ({untried[0].detail})", untried[0].remedy))
    if result.left:
        remedy = "remove it with a client of S3, or run this again in an hour, which does"
        told.append(Check(NAME, Level.WARN, f"could not remove what was made: {'; '.join(result.left)}", remedy))
    offered = sum(each.outcome is Outcome.OFFERED for each in result.findings)
    if offered:
        summary = f"offers {offered} of {len(result.findings)} features; --s3-features names them"
        told.insert(0, Check(NAME, Level.OK, summary))
    return told


def _sentence(finding: "Finding") -> str:
    from recfs.stores.s3.features.model import Outcome

    name = finding.feature.name
    if finding.outcome is Outcome.OFFERED:
        return f"{name}: {finding.detail}"
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"{name}: {finding.outcome}{detail}: {finding.meaning}"
