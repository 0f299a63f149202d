"""`recfs verify`: what it prints, its exit codes, and how it is interrupted; with a daemon and without."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.cli.upkeep import verify as command
from recfs.errors import NotFound
from tests.component.build import REC, filesystem, pattern
from tests.system.fake_daemon import FakeDaemon, run

COUNTS = {
    "right": 0, "elsewhere": 0, "skipped": 0, "repaired": 0, "corrupt": 0, "unreadable": 0, "files": 0, "flaky": 0,
    "read_bytes": 0, "remote_bytes": 0, "level": "hash", "ended": False, "interrupted": False, "failed": None, "at": "",
    "took_s": 2.0, "total_files": 10, "total_bytes": 1000, "found": [], "unnamed": 0,
}  # fmt: skip
SCRUB = {
    "level": "hash", "rate": 20 << 20, "window": "22:00-06:00", "period_s": 2_592_000.0, "doing": "reads",
    "at": "users/5/x", "files": 1902, "total_files": 10_441, "read_bytes": 211 << 30, "total_bytes": 1 << 40,
    "problems": 1, "began_s_ago": 183_600.0, "ended_s_ago": None,
}  # fmt: skip


def told(**changes: Any) -> dict[str, Any]:
    """What a daemon answers."""
    return COUNTS | changes


def corrupt(path: str, reason: str = "another sha256") -> dict[str, str]:
    """What was found of one file."""
    return {"path": path, "verdict": "corrupt", "reason": reason}


def answering(daemon: FakeDaemon, *answers: dict[str, Any]) -> None:
    """Have it tell that, one after another."""
    left = list(answers)
    daemon.answers |= {"verify_begin": {"run": 7}, "verify_wait": lambda params: left.pop(0), "verify_stop": told()}


@pytest.fixture
def verifying(root: Path) -> FakeDaemon:
    """A daemon that is not yet running."""
    made = FakeDaemon(root)
    answering(made, told(ended=True, files=2, right=2))
    return made


def test_all_is_right(verifying: FakeDaemon, root: Path) -> None:
    answering(verifying, told(files=1), told(ended=True, files=2, right=1, elsewhere=1, read_bytes=3 << 20))
    with verifying as daemon:
        result = run("verify", "--root", root)
    assert (result.exit_code, result.output) == (0, "2 files, 3 MiB read in 2s: 1 right, 1 elsewhere\n")
    asked = {"path": "", "level": "hash", "since_s": None, "rate": None}
    assert daemon.asked[0] == ("verify_begin", asked)
    assert {name for name, _ in daemon.asked[1:]} == {"verify_wait"}


def test_what_is_asked_for(verifying: FakeDaemon, root: Path) -> None:
    with verifying as daemon:
        args = ("--level", "remote", "--since", "2d", "--rate", "5 MiB", "--root", root)
        assert run("verify", "users/5", *args).exit_code == 0
    asked = {"path": "users/5", "level": "remote", "since_s": 172_800.0, "rate": 5 << 20}
    assert daemon.asked[0] == ("verify_begin", asked)


def test_what_is_found_is_said_with_exit_code_1(verifying: FakeDaemon, root: Path) -> None:
    answers = [
        told(files=3, found=[corrupt("users/5/a\nb")]),
        told(files=9, found=[corrupt("users/5/c"), corrupt("users/5/d") | {"verdict": "repaired"}]),
        told(ended=True, files=10, right=5, corrupt=1005, repaired=1, flaky=1, unnamed=1003, remote_bytes=7),
    ]
    answering(verifying, *answers)
    with verifying:
        result = run("verify", "--root", root)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "users/5/a\\nb: corrupt: another sha256",
        "users/5/c: corrupt: another sha256",
        "users/5/d: repaired: another sha256",
        "and 1,003 more: `recfs ls-files -r --state corrupt` names all that are corrupt",
        "10 files, 0 B read, 7 B from S3 in 2s: 5 right, 1 repaired, 1,005 corrupt; "
        "1 were read wrong once: look after memory and disk",
    ]
    again = FakeDaemon(root)
    answering(again, *answers)
    with again:
        result = run("verify", "--json", "--root", root)
    found = json.loads(result.output)
    assert (result.exit_code, [each["path"] for each in found["found"]]) == (
        1,
        ["users/5/a\nb", "users/5/c", "users/5/d"],
    )
    assert (found["corrupt"], found["ended"]) == (1005, True)


@pytest.mark.parametrize("verdict", ["repaired", "unreadable"])
def test_whatever_was_wrong_is_a_problem(verifying: FakeDaemon, root: Path, verdict: str) -> None:
    answering(verifying, told(ended=True, files=1, **{verdict: 1}))
    with verifying:
        assert run("verify", "--root", root).exit_code == 1


def test_a_run_that_fails(verifying: FakeDaemon, root: Path) -> None:
    answering(verifying, told(ended=True, files=1, right=1, failed="the catalogue cannot be read"))
    with verifying:
        result = run("verify", "--root", root)
    assert (result.exit_code, result.output.splitlines()[-1]) == (
        1, "it ended before its time: the catalogue cannot be read",
    )  # fmt: skip


def test_what_the_daemon_refuses(verifying: FakeDaemon, root: Path) -> None:
    verifying.answers["verify_begin"] = NotFound("users/77 does not exist")
    with verifying:
        result = run("verify", "users/77", "--root", root)
    assert (result.exit_code, "users/77 does not exist" in result.output) == (7, True)


def test_what_was_said_until_ctrl_c_is_told(verifying: FakeDaemon, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(verifying, told(files=3, found=[corrupt("users/5/a")]))
    verifying.answers["verify_stop"] = told(ended=True, files=4, right=3, corrupt=1, interrupted=True)
    heard = command._Teller.heard

    def interrupted(self: Any, answer: dict[str, Any]) -> None:
        heard(self, answer)
        if not answer["ended"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(command._Teller, "heard", interrupted)
    with verifying as daemon:
        result = run("verify", "--root", root)
    assert (result.exit_code, result.output.splitlines()) == (
        130,
        ["users/5/a: corrupt: another sha256", "interrupted: 4 files, 0 B read in 2s: 3 right, 1 corrupt"],
    )
    assert daemon.asked[-1] == ("verify_stop", {"run": 7})


def test_how_far_the_scrub_is(verifying: FakeDaemon, root: Path) -> None:
    verifying.answers["verify_status"] = {"scrub": SCRUB}
    with verifying:
        result = run("verify", "--status", "--root", root)
        assert json.loads(run("verify", "--status", "--json", "--root", root).output) == SCRUB
    assert result.output == (
        "scrub  reads users/5/x: 1,902 of 10,441 files, 211 GiB read, 1 problem; round begun 2d 3h ago\n"
    )
    without = FakeDaemon(root)
    without.answers["verify_status"] = {"scrub": None}
    with without:
        assert run("verify", "--status", "--root", root).output == "no scrub: [scrub] enabled is false\n"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A store with two files, and no daemon."""
    root = tmp_path / "real"

    async def fill() -> None:
        async with filesystem(root) as fs:
            for name in ("one", "two"):
                await fs.write(f"{REC}/{name}", pattern(200_000))
            await fs.drain()

    trio.run(fill)
    return root


@pytest.mark.slow
@pytest.mark.expect_log("is corrupt|right again")
def test_without_a_daemon(real: Path) -> None:
    assert run("verify", "--root", real).output.startswith("2 files, 390.6 KiB read")
    path = real / REC / "two"
    path.write_bytes(pattern(200_000, seed=1))
    result = run("verify", "users", "--root", real)
    assert (result.exit_code, f"{REC}/two: corrupt: " in result.output) == (1, True)
    assert (
        json.loads(run("ls-files", "-r", "--state", "corrupt", "--json", "--root", real).output)[0]["path"]
        == f"{REC}/two"
    )
    path.write_bytes(pattern(200_000))
    result = run("verify", "--level", "presence", "--root", real)
    assert (result.exit_code, "2 right" in result.output) == (0, True)
    assert run("verify", "--status", "--root", real).exit_code == 6


@pytest.mark.slow
def test_ctrl_c_without_a_daemon(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = command._Teller.heard

    def interrupted(self: Any, answer: dict[str, Any]) -> None:
        heard(self, answer)
        raise KeyboardInterrupt

    monkeypatch.setattr(command._Teller, "heard", interrupted)
    result = run("verify", "--rate", "64 KiB", "--root", real)
    assert (result.exit_code, "interrupted: " in result.output) == (130, True)
