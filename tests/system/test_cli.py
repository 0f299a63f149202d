"""The command line as its users meet it: answers, exit codes, JSON, messages. No mount, no real daemon."""

import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from recfs import __version__, errors
from recfs.cli.common.exits import MEANING, exit_code_of
from recfs.cli.common.store import Store
from recfs.cli.main import cli
from recfs.errors import NotFound, RecfsError
from tests.system.fake_daemon import (
    ANSWERS,
    DIFFERENCE,
    EXPIRED,
    FILE,
    INFO,
    JOBS,
    MAPPED,
    RECORDING,
    STATS,
    STATUS,
    TREND,
    USER,
    FakeDaemon,
    run,
)

COMMANDS = {
    "status": (
        ["status"],
        STATUS,
        [
            *("4711", "12,345 committed", "1.5 GiB", "10 GiB*", "2 files are corrupt", "143"),
            *("s3://bucket/prefix/", "2 uploads, 1 deletion (1 running, 1 failed, 1 waiting)", "3 GiB of 20 GiB"),
        ],
    ),
    "stats": (
        ["stats", "--duplicates"],
        STATS,
        [
            *("3, 4 GiB, 1.3 GiB on average", "1 recording, 1 MiB", "as of", "6 files in 1 set", "5 MiB too many"),
            *("source", "local and s3", "USD a month", "1.25", "90 d and more", "long ago", "unlimited", "7 MiB"),
            *("365 d and more", "Recordings for the archive, by last use", "30 d and more", "shared/a", "…"),
        ],
    ),
    "stats trend": (
        ["stats", "--trend", "30d"],
        TREND,
        [
            *("2026-11-27 and 1 day more", "+7 MiB", "-8 MiB", "-1 MiB", "nothing is known of 2026-11-28\n", "nobody"),
            *("what came since 2026-11-27", "2 MiB", "local and s3", "GLACIER_IR", "what came since 2026-11-29"),
            "by storage class",
        ],
    ),
    "stats user": (["stats", "--user", "5", "--recording", "7", "--category", "video"], STATS, ["GLACIER"]),
    "quota show": (["quota", "show"], [USER], ["1.5 GiB", "10 GiB*", "1,234", "unlimited", "31", "2026-11"]),
    "quota show user": (["quota", "show", "5"], [USER], ["1.5 GiB"]),
    "quota set": (["quota", "set", "5", "--max-bytes", "10GiB"], USER, ["10 GiB*"]),
    "user list": (["user", "list"], ANSWERS["user_list"], ["10005", "2770", "1.5 GiB", "ok", "differs: 0:0 0755"]),
    "user add": (
        ["user", "add", "5", "--uid", "10005", "--gid", "100", "--mode", "2770"],
        ANSWERS["user_add"],
        ["user 5: uid 10005, gid 100, mode 2770", "group 100 is also that of user 6"],
    ),
    "user remove": (
        ["user", "remove", "5", "--delete"],
        ANSWERS["user_remove"],
        ["uid 10005 is free; 12 files of 1.5 GiB removed, users/5 and temp/5 with them"],
    ),
    "quota check": (
        ["quota", "check"],
        ANSWERS["quota_check"],
        ["1,234 files checked", "all counters are right"],
    ),
    "sweep temp": (
        ["sweep", "temp"],
        {"jobs": JOBS},
        ["temp/5/9", "1d 1h", "2 KiB", "1 open file", "1 of 2 jobs"],
    ),
    "sweep list": (
        ["sweep", "list"],
        ANSWERS["sweep_list"]["sweeps"],
        [
            "temp",
            "5m",
            "3 removed",
            "2m 47s",
            "trash",
            "running: 3 of 9 done, 12m",
            "usage",
            "when due",
            "failed: no disk",
        ],
    ),
    "sweep run": (["sweep", "run", "temp"], ANSWERS["sweep_wait"], ["temp: 3 removed, in 12ms"]),
    "sweep run --no-wait": (["sweep", "run", "temp", "--no-wait"], {"name": "temp", "run": 4}, []),
    "sweep multiparts": (["sweep", "multiparts"], ANSWERS["sweep_wait"], ["temp: 3 removed, in 12ms"]),
    "sweep multiparts --dry-run": (
        ["sweep", "multiparts", "--dry-run"],
        ANSWERS["sweep_multiparts"]["uploads"],
        ["users/5/source.mp4", "9d 6h ago", "2~Yk", "1 upload would be aborted"],
    ),
    "sweep archive": (["sweep", "archive"], ANSWERS["sweep_wait"], ["temp: 3 removed, in 12ms"]),
    "sweep archive --dry-run": (
        ["sweep", "archive", "--dry-run"],
        ANSWERS["sweep_archive"],
        [r"142/a\nb", "5 MiB", "and 7 more", "8 files would be stored anew, 40 MiB", "users/5/x: it is archived"],
    ),
    "sweep versions": (["sweep", "versions"], ANSWERS["sweep_wait"], ["temp: 3 removed, in 12ms"]),
    "sweep versions --dry-run": (
        ["sweep", "versions", "--dry-run"],
        ANSWERS["sweep_versions"],
        [
            "142/topics_v2",
            "2 KiB",
            "removed",
            "2 newer, 2 are kept",
            "and 8 more",
            "9 versions would be removed, 4 KiB",
        ],
    ),
    "sweep orphans": (
        ["sweep", "orphans"],
        ANSWERS["sweep_orphans"],
        ["users/5/cut.mp4: no row has this name", "4.1 MiB", "3d 2h ago", "adopt", "lost+found", "and 2 more", "1,204"],
    ),
    "sweep stop": (["sweep", "stop", "temp"], {"name": "temp", "running": True}, ["temp: ends soon"]),
    "sweep status": (["sweep", "status", "temp"], ANSWERS["sweep_list"]["sweeps"][:1], ["temp", "3 removed"]),
    "sweep history": (
        ["sweep", "history"],
        ANSWERS["sweep_history"]["runs"],
        ["2026-09-21 14:13:20", "done", "2.1s", "yes", "nothing to do (1,234 times)"],
    ),
    "watch status": (
        ["watch", "status"],
        ANSWERS["watch_status"],
        [
            *("1,204 directories", "max_user_watches is reached", "3 times since the start, and again now"),
            *(
                "12 adopted, 3 changed, 2 described, 1 moved, 4 removed, 5 evicted",
                "7 entries",
                "59 of 60 files are gone",
            ),
        ],
    ),
    "watch scan": (["watch", "scan"], ANSWERS["watch_scan"], ["1,204 directories"]),
    "watch accept": (["watch", "accept"], ANSWERS["watch_accept"], ["1,204 files lose their names"]),
    "sweep expired": (
        ["sweep", "expired", "--dry-run"],
        {"recordings": EXPIRED},
        ["users/5/recordings/143", "1 file is open", "1 expired, 0 removed, 0 active again; dry run"],
    ),
    "recording list": (
        ["recording", "list"],
        [RECORDING],
        ["users/5/recordings/142", "expired", "5 MiB", "2026-11-23 09:01:02", "removed in 2d", "1 recording, 5 MiB"],
    ),
    "recording show": (
        ["recording", "show", "users/5/recordings/142"],
        RECORDING,
        [r"a\nnote", "uid 0 by setfattr", "5 MiB in 1 file", "open files", "2026-11-21 09:01:02"],
    ),
    "recording set-expiry": (
        ["recording", "set-expiry", "users/5/recordings/142", "2027-01-31"],
        RECORDING,
        ["status", "expired"],
    ),
    "recording keep": (
        ["recording", "keep", "users/5/recordings/142"],
        [RECORDING],
        ["users/5/recordings/142: expired, last change 91d ago"],
    ),
    "ls-files": (
        ["ls-files"],
        [FILE],
        ["committed", "5 MiB", "abababababab", "users/5/recordings/142/source.mp4"],
    ),
    "info": (
        ["info", "users/5"],
        INFO,
        ["5242880 (5 MiB)", "cdcdcd", "0644", r"hello\nworld", "xattrs.user.note"],
    ),
    "drain": (["drain"], {"pending": 0}, ["everything is committed"]),
}


@pytest.mark.parametrize(("args", "document", "shown"), COMMANDS.values(), ids=COMMANDS)
def test_commands_show_the_daemons_answer(daemon: FakeDaemon, args: list[str], document: Any, shown: list[str]) -> None:
    plain = run(*args, "--root", daemon.root)
    assert plain.exit_code == 0, plain.output
    assert [text for text in shown if text not in plain.stdout] == []
    for machine in (run(*args, "--root", daemon.root, "--json"), run("--json", "--root", daemon.root, *args)):
        assert machine.exit_code == 0
        assert json.loads(machine.stdout) == document
        assert machine.stderr == ""


def test_users_who_have_no_uid_are_told_with_all(root: Path) -> None:
    place = {"state": "shared", "uid": 1000, "gid": 1000, "mode": "0755"}
    nobodys = MAPPED | {"uid": None, "gid": None, "mode": None, "directories": {"users": place, "temp": place}}
    with FakeDaemon(root, {"user_list": [nobodys]}) as daemon:
        shown = run("user", "list", "--all", "--root", root).stdout
    assert "shared: 1000:1000 0755" in shown
    assert daemon.asked == [("user_list", {"everyone": True})]
    with FakeDaemon(root, {"user_list": []}):
        assert run("user", "list", "--root", root).stdout == "no users have a uid\n"


def test_what_a_removed_user_leaves_is_told(root: Path) -> None:
    kept = ANSWERS["user_remove"] | {"kept_files": 12, "removed_files": 0, "left": ["users/5", "temp/5"]}
    with FakeDaemon(root, {"user_remove": kept}) as daemon:
        shown = run("user", "remove", "5", "--keep-files", "--root", root).stdout
    assert shown == "user 5: uid 10005 is free; 12 files left to root in users/5 and temp/5\n"
    assert daemon.asked == [("user_remove", {"user": "5", "files": "keep"})]


def test_the_group_of_a_new_user_is_that_of_the_uid(daemon: FakeDaemon) -> None:
    """As passwd(5) has it; of a uid that this machine does not know, the same number."""
    for uid, gid in (("root", pwd.getpwnam("root").pw_gid), ("3999999999", 3999999999)):
        assert run("user", "add", "5", "--uid", uid, "--mode", "0750", "--root", daemon.root).exit_code == 0
        method, params = daemon.asked[-1]
        assert (method, params["gid"], params["mode"]) == ("user_add", gid, 0o750)


def test_what_no_survey_has_found_yet_is_told_as_that(daemon: FakeDaemon) -> None:
    unknown = dict.fromkeys(
        ("recordings", "ages", "unread", "archive", "duplicates", "surveyed_ns", "oldest_ns", "newest_ns")
    )
    daemon.answers["stats"] = STATS | unknown
    plain = run("stats", "--root", daemon.root)
    assert plain.exit_code == 0, plain.output
    assert "add --exact" in plain.stdout
    assert "recordings " not in plain.stdout
    assert "written " not in plain.stdout.replace("were written", "")


def test_commands_pass_their_options_on(daemon: FakeDaemon) -> None:
    for args in (
        (
            "quota",
            "set",
            "5",
            "--max-bytes",
            "10 GiB",
            "--max-files",
            "unlimited",
            "--max-file-size",
            "default",
        ),
        ("quota", "set", "5", "--max-monthly-uploads", "0"),
        ("quota", "show"),
        ("quota", "check", "--repair"),
        ("sweep", "temp", "--dry-run"),
        ("sweep", "history", "temp", "--limit", "7"),
        ("sweep", "expired"),
        ("recording", "list", "--user", "5", "--status", "expired", "--due", "7d"),
        ("recording", "expire", "users/5/recordings/1", "users/5/recordings/2", "--note", "why"),
        ("recording", "unkeep", "users/5/recordings/1"),
        ("recording", "set-expiry", "users/5/recordings/1", "never"),
        ("ls-files", "users/5/", "-r", "--state", "incomplete"),
        ("drain", "--timeout", "2m", "--json"),
    ):
        run(*args, "--root", daemon.root)
    assert daemon.asked == [
        (
            "quota_set",
            {"user": "5", "max_bytes": 10 << 30, "max_files": "unlimited", "max_file_size": "default"},
        ),
        ("quota_set", {"user": "5", "max_monthly_uploads": 0}),
        ("quota_show", {"user": None}),
        ("quota_check", {"repair": True}),
        ("sweep_temp", {"dry_run": True}),
        ("sweep_history", {"name": "temp", "limit": 7}),
        ("sweep_expired", {"dry_run": False}),
        ("recording_list", {"user": "5", "status": "expired", "due_s": 604_800.0}),
        ("recording_expire", {"path": "users/5/recordings/1", "note": "why"}),
        ("recording_expire", {"path": "users/5/recordings/2", "note": "why"}),
        ("recording_keep", {"path": "users/5/recordings/1", "on": False, "note": None}),
        ("recording_set_expiry", {"path": "users/5/recordings/1", "date": "never", "note": None}),
        ("ls_files", {"path": "users/5", "recursive": True, "state": "incomplete"}),
        ("drain", {"timeout_s": 120.0}),
    ]


def test_a_look_for_orphans_asks_for_the_sweep_of_its_mode_and_tells_rows_without_bytes_by_the_exit_code(
    daemon: FakeDaemon,
) -> None:
    for option, name, mode in ((), "orphans", "report"), (("--adopt",), "orphans-adopt", "adopt"):
        daemon.asked.clear()
        assert run("sweep", "orphans", *option, "--root", daemon.root).exit_code == 0
        assert [daemon.asked[0], daemon.asked[-1]] == [
            ("sweep_run", {"name": name}), ("sweep_orphans", {"mode": mode}),
        ]  # fmt: skip
    assert run("sweep", "orphans", "--adopt", "--delete", "--root", daemon.root).exit_code == 2
    daemon.answers["sweep_orphans"] = ANSWERS["sweep_orphans"] | {"missing": 1}
    assert run("sweep", "orphans", "--root", daemon.root).exit_code == 1


def test_a_sweep_that_failed_or_was_stopped_is_told_by_the_exit_code(daemon: FakeDaemon) -> None:
    failed = run("sweep", "status", "--root", daemon.root)
    assert (failed.exit_code, "failed: no disk" in failed.stdout, "usage" in failed.stdout) == (1, True, False)
    assert run("sweep", "status", "temp", "--root", daemon.root).exit_code == 0
    unknown = run("sweep", "status", "nope", "--root", daemon.root)
    assert (unknown.exit_code, "there are temp, trash, usage" in unknown.stderr) == (2, True)
    for outcome, code in (("done", 0), ("nothing", 0), ("stopped", 1), ("failed", 1)):
        daemon.answers["sweep_wait"] = ANSWERS["sweep_wait"] | {"outcome": outcome}
        assert run("sweep", "run", "temp", "--root", daemon.root).exit_code == code


# --- exit codes ---------------------------------------------------------------------------------------------


def test_help_lists_every_exit_code() -> None:
    listed = run("--help").stdout
    for code, meaning in MEANING.items():
        assert re.search(rf"^ +{code.value}  {re.escape(meaning)}$", listed, re.MULTILINE)


def test_version() -> None:
    assert run("--version").stdout == f"recfs {__version__}\n"
    for args in (["--json", "--version"], ["--version", "--json"]):
        result = run(*args)
        assert (result.exit_code, json.loads(result.stdout)) == (0, {"version": __version__})


@pytest.mark.parametrize(
    "cls",
    [
        each for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, RecfsError) and each is not RecfsError
    ],
)  # fmt: skip
def test_every_error_has_an_exit_code_of_its_family(cls: type[RecfsError]) -> None:
    family = next(base.__name__ for base in cls.__mro__ if RecfsError in base.__bases__)
    expected = {"ConfigError": 3, "StoreError": 4, "MountError": 5, "ControlError": 6, "FsError": 7, "CursorLost": 7}
    expected["MediaUnavailable"] = 7
    assert exit_code_of(cls("x")) == (9 if cls is errors.NotAllowed else expected[family])


def _differs(repaired: bool) -> dict[str, Any]:
    return {"checked_users": 1, "checked_files": 2, "differences": [DIFFERENCE], "repaired": repaired}


@pytest.mark.parametrize(
    ("args", "method", "answer", "code", "shown"),
    [
        (
            ["quota", "check"],
            "quota_check",
            _differs(False),
            1,
            "1 differences; `recfs quota check --repair`",
        ),
        (["quota", "check", "--repair"], "quota_check", _differs(True), 0, "1 differences repaired"),
        (["drain", "--timeout", "1s"], "drain", {"pending": 3}, 1, "3 still pending after 1s"),
    ],
)
def test_checks_that_find_something(
    root: Path, args: list[str], method: str, answer: Any, code: int, shown: str
) -> None:
    with FakeDaemon(root, {method: answer}):
        plain, machine = run(*args, "--root", root), run(*args, "--root", root, "--json")
    assert (plain.exit_code, machine.exit_code) == (code, code)
    assert shown in plain.stdout
    assert json.loads(machine.stdout) == answer


def test_a_refusal_is_one_line_and_with_json_a_document(root: Path) -> None:
    with FakeDaemon(root, {"info": NotFound("no such path: users/6")}):
        plain = run("info", "users/6", "--root", root)
        machine = run("info", "users/6", "--root", root, "--json")
    assert (plain.exit_code, plain.stdout, plain.stderr) == (7, "", "recfs: no such path: users/6\n")
    error = {"kind": "NotFound", "message": "no such path: users/6", "exit_code": 7}
    assert (machine.exit_code, json.loads(machine.stdout)) == (7, {"error": error})


def test_a_name_in_a_refusal_is_shown_in_one_line_and_moves_no_cursor(root: Path) -> None:
    with FakeDaemon(root, {"info": NotFound("no such path: users/6/a\nb\x1b[2J\u202e\udcff")}):
        plain = run("info", "users/6", "--root", root)
    assert plain.stderr == r"recfs: no such path: users/6/a\nb\x1b[2J\u202e\xff" + "\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["quota", "set", "5", "--max-bytes", "-1"], "cannot be negative"),
        (["quota", "set", "5", "--max-files", "-1"], "cannot be negative"),
        (["quota", "set", "5", "--max-files", "many"], "`unlimited` or `default`"),
        (["quota", "set", "5", "--max-files", "9223372036854775808"], "not a whole number"),
        (["quota", "set", "5", "--max-files", "1" * 5000], "not a whole number"),
        (["quota", "set", "5", "--max-files", "٣"], "not a whole number"),
        (["quota", "set", "5", "--max-bytes", "10 GiG"], "unknown unit"),
        (["quota", "set", "5", "--max-bytes", "9 EB"], "`unlimited` or `default`"),
        (["quota", "set", "5", "--max-bytes", ""], "`unlimited` or `default`"),
        (["quota", "set", "5"], "nothing to set"),
        (["quota", "set", "bob", "--max-files", "1"], "'bob' is no user id"),
        (["quota", "show", "../5"], "is no user id"),
        (["user", "add", "bob"], "'bob' is no user id"),
        (["user", "add", "5", "--uid", "nobody-of-that-name"], "neither a number nor a name"),
        (["user", "add", "5", "--uid", "4294967295"], "it lies between 0 and 4294967294"),
        (["user", "add", "5", "--uid=-1"], "neither a number nor a name"),
        (["user", "add", "5", "--mode", "rwx"], "permission bits in octal"),
        (["user", "add", "5", "--mode", "0888"], "permission bits in octal"),
        (["ls-files", "--state", "stolen"], "stolen"),
        (["drain", "--timeout", "soon"], "not a duration"),
        (["drain", "--timeout=-1"], "duration"),
        (["frobnicate"], "frobnicate"),
        (["info"], "PATH"),
    ],
)
def test_usage_errors(root: Path, args: list[str], message: str) -> None:
    result = run("--root", root, *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("Usage: recfs")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("args", [[], ["quota"], ["bucket"]], ids=" ".join)
def test_without_a_command_the_help_is_shown_once(args: list[str]) -> None:
    result = run(*args)
    assert (result.exit_code, result.stderr.count("Usage: recfs")) == (2, 1)
    assert result.stderr.startswith("Usage: recfs")
    document = json.loads(run("--json", *args).stdout)
    assert document["error"]["exit_code"] == 2
    assert "Usage:" not in document["error"]["message"]


def test_what_is_set_aside_is_told_with_one_next_try_and_what_lies_in_lost_found(root: Path) -> None:
    aside = {
        "part": "commit",
        "path": "users/5/a",
        "reason": "EIO",
        "since": "2026-11-21",
        "tries": 2,
        "next_try_s": 1.0,
    }
    lost = {"entries": 7, "names": ["17-a\nb", "18-c"]}
    status = STATUS | {"set_aside": [aside, aside | {"next_try_s": None, "tries": 1}], "lost_found": lost}
    with FakeDaemon(root, {"status": status}):
        shown = run("status", "--root", root).stdout
    assert "set aside: commit: users/5/a: EIO; next try in 1s (2 so far) (since 2026-11-21)\n" in shown
    assert "set aside: commit: users/5/a: EIO (since 2026-11-21, tried once)\n" in shown
    assert r"7 entries: 17-a\nb, 18-c, …" in shown


def test_the_status_of_a_mount_that_was_taken_away_says_so(root: Path) -> None:
    with FakeDaemon(root, {"status": STATUS | {"mounted": False}}):
        shown = run("status", "--root", root).stdout
    assert "no longer on /mnt/recordings: it was unmounted by other means" in shown


def test_a_bug_is_one_line_and_debug_shows_where(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **params: object) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Store, "call", broken)
    result = run("status", "--root", daemon.root)
    assert result.exit_code == 70
    assert result.stderr == (
        "recfs: internal error: ZeroDivisionError: oops; run it again with --debug for the traceback\n"
    )
    debug = run("status", "--root", daemon.root, "--debug")
    assert debug.exit_code == 70
    assert "Traceback" in debug.stderr
    assert "in broken" in debug.stderr


def test_interrupted(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **params: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "call", interrupt)
    result = run("status", "--root", daemon.root)
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_reader_that_goes_away_ends_the_command_quietly(root: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with FakeDaemon(root, {"ls_files": [FILE] * 5000}):
        done = subprocess.run(
            [sys.executable, "-m", "recfs", "ls-files", "--root", root],
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_names_cannot_play_with_the_terminal(root: Path) -> None:
    name = os.fsdecode(b"users/5/\x1b[2J\xff\n[red]\xc3\xa4.mp4")
    with FakeDaemon(root, {"ls_files": [FILE | {"path": name}]}):
        plain = run("ls-files", "--root", root)
        machine = run("ls-files", "--root", root, "--json")
    assert r"users/5/\x1b[2J\xff\n[red]ä.mp4" in plain.stdout
    assert json.loads(machine.stdout)[0]["path"] == name


def test_an_error_about_a_name_that_is_not_utf8_can_be_printed(root: Path) -> None:
    with FakeDaemon(root, {"info": NotFound("no such path: users/\udcff")}):
        result = run("info", "users/\udcff", "--root", root)
    assert (result.exit_code, result.stderr) == (7, "recfs: no such path: users/\\xff\n")


def test_tables_keep_long_paths_whole_in_a_pipe_and_follow_the_terminal(root: Path) -> None:
    path = "users/5/recordings/142/" + "x" * 255
    with FakeDaemon(root, {"ls_files": [FILE | {"path": path}]}):
        assert path in run("ls-files", "--root", root).stdout
        terminal = run("ls-files", "--root", root, env={"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"})
        plain = run(
            "ls-files",
            "--root",
            root,
            env={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"},
        )
    green = "\x1b[32m"
    assert green in terminal.stdout
    assert green not in plain.stdout
    uncoloured = re.sub(r"\x1b\[[0-9;]*m", "", terminal.stdout)
    assert max(map(len, uncoloured.splitlines())) <= 100
    assert uncoloured.count("x") == 255


# --- config -------------------------------------------------------------------------------------------------


def test_config_check(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
    good.write_text('root = "/srv/recfs"\n')
    bad.write_text('root = "/srv/recfs"\n[temp]\nmax_agee = "24h"\n')
    assert run("config", "check", good).exit_code == 0
    assert json.loads(run("config", "check", "--config", good, "--json").stdout) == {
        "ok": True,
        "source": str(good),
        "root": "/srv/recfs",
        "s3": None,
    }
    for args in (["config", "check", bad], ["config", "check", "--config", bad], ["status", "--config", bad]):
        result = run(*args)
        assert result.exit_code == 3
        assert str(bad) in result.stderr
        assert "temp.max_age" in result.stderr


def test_config_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "recfs.conf"
    conf.write_text('root = "/srv/recfs"\nmin_free = "2 GiB"\n[quota]\nmax_bytes = "10 GB"\n')
    monkeypatch.setenv("RECFS_CONFIG", str(conf))
    shown = json.loads(run("config", "show", "--json").stdout)
    assert (shown["root"], shown["min_free"], shown["quota"]["max_bytes"]) == (
        "/srv/recfs",
        2 << 30,
        10 * 10**9,
    )
    assert shown["fallback"] == [{"pattern": "users/*/thumbnails/*", "target": "shared/thumbnails/*"}]
    plain = run("config", "show").stdout
    assert str(conf) in plain
    assert re.search(rf"^min_free +2 GiB +{conf}, line 2$", plain, re.MULTILINE)
    assert re.search(r"^retention +\[\] +default$", plain, re.MULTILINE)
    with conf.open("a") as file:
        file.write('[[retention]]\nretention = "90d"\ngrace = "1h"\n')
    monkeypatch.setenv("RECFS_QUOTA__MAX_FILES", "7")
    plain = run("config", "show").stdout
    assert re.search(rf"^retention\[1\]\.retention +90d +{conf}, line 6$", plain, re.MULTILINE)
    assert re.search(rf"^retention\[1\]\.grace +1h +{conf}, line 7$", plain, re.MULTILINE)
    assert re.search(r"^quota\.max_files +7 +\$RECFS_QUOTA__MAX_FILES$", plain, re.MULTILINE)
    origins = json.loads(run("config", "show", "--json").stdout)["origins"]
    assert (origins["quota.max_files"], origins["root"]) == ("$RECFS_QUOTA__MAX_FILES", f"{conf}, line 1")
    monkeypatch.setenv("RECFS_QUOTA__MAX_FILE", "7")
    refused = run("config", "show")
    assert (refused.exit_code, "did you mean $RECFS_QUOTA__MAX_FILES?" in refused.stderr) == (3, True)


def test_every_command_has_help_and_takes_json() -> None:
    def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for key, child in command.commands.items():
                yield from walk(child, f"{name} {key}")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name, command

    found = dict(walk(cli, "recfs"))
    assert len(found) == 91
    for name, command in found.items():
        assert command.help, name
        assert "json" in {param.name for param in command.params}, name
