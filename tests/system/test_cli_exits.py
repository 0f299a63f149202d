"""Exit codes: each of them, and what leads to it. Distinct, so that a script can tell what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from recfs.cli import main
from recfs.cli.common.exits import MEANING, ExitCode
from recfs.cli.reports import quota
from recfs.errors import Busy, NotFound
from recfs.ports.object_errors import Unreachable
from tests.system.fake_daemon import FakeDaemon, run

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


def _ok(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    return "quota", "show"


def _problems(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    daemon.answers["drain"] = {"pending": 1, "left": {}}
    return "drain", "--timeout", "0"


def _usage(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    return "quota", "show", "--nonsense"


def _config(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    return "status", "--config", daemon.root / "absent.conf"


def _store(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    return "status", "--root", daemon.root / "elsewhere"


def _mount(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    daemon.answers["stop"] = Busy("1 file is open: users/5/x")
    return "umount", daemon.root / "nowhere"


def _control(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    (daemon.root / ".recfs" / "control.sock").unlink()
    (daemon.root / ".recfs" / "catalogue.db").touch()
    return "sweep", "list"


def _refused(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    daemon.answers["quota_show"] = NotFound("no such user")
    return "quota", "show", "5"


def _object_store(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    daemon.answers["lifecycle_show"] = Unreachable("no route")
    return "lifecycle", "show"


def _not_allowed(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """As the kernel answers whoever may not write to the socket; root may."""

    class Closed(socket.socket):
        def connect(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    patch.setattr("recfs.api.client.socket.socket", Closed)
    return "quota", "show"


def _raising(error: type[BaseException]) -> Callable[[FakeDaemon, pytest.MonkeyPatch], tuple[object, ...]]:
    def prepare(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
        def fail(*args: object) -> None:
            raise error

        patch.setattr(quota, "open_store", fail)
        return "quota", "show"

    return prepare


def _broken_pipe(daemon: FakeDaemon, patch: pytest.MonkeyPatch) -> tuple[object, ...]:
    patch.setattr(main, "_silence_stdout", lambda: None)  # it lives as long as a process, and this one goes on
    return _raising(BrokenPipeError)(daemon, patch)


LEADS_TO = {
    ExitCode.OK: _ok,
    ExitCode.PROBLEMS: _problems,
    ExitCode.USAGE: _usage,
    ExitCode.CONFIG: _config,
    ExitCode.STORE: _store,
    ExitCode.MOUNT: _mount,
    ExitCode.CONTROL: _control,
    ExitCode.REFUSED: _refused,
    ExitCode.OBJECT_STORE: _object_store,
    ExitCode.NOT_ALLOWED: _not_allowed,
    ExitCode.BUG: _raising(ZeroDivisionError),
    ExitCode.INTERRUPTED: _raising(KeyboardInterrupt),
    ExitCode.BROKEN_PIPE: _broken_pipe,
}


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
def test_each_exit_code_and_what_leads_to_it(
    code: ExitCode, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = LEADS_TO[code](daemon, monkeypatch)
    chosen = () if {"--root", "--config", "umount"} & set(args) else ("--root", daemon.root)
    result = run(*args, *chosen)
    assert result.exit_code == code, result.output


def test_exit_codes_are_distinct_and_documented_once() -> None:
    assert len({code.value for code in ExitCode}) == len(MEANING) == len(set(MEANING.values())) == len(ExitCode)
    told = dict(re.findall(r"^\| (\d+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE))
    assert {code: told.get(str(code.value)) for code in ExitCode} == MEANING


def test_who_may_not_ask_is_told_so_and_not_that_nobody_is_there(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("--json", *_not_allowed(daemon, monkeypatch), "--root", daemon.root)
    assert '"kind": "NotAllowed"' in result.stdout
    assert "run this as its user or root" in result.stderr
