"""The commands about work that is done once, against a daemon that answers what the tests say."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.fake_daemon import FakeDaemon, run

FILE = "users/5/recordings/142/audio.mp3"
RESULT = {"text": "Guten Tag"}
PACKED = base64.b64encode(zlib.compress(json.dumps(RESULT).encode())).decode()
VERSION = {"path": f"{FILE}_v2", "number": 2, "size_bytes": 2048, "changed_ns": 10**18, "whole": True, "open_files": 0}
PRUNED = {"path": "a_v1\n", "number": 1, "size_bytes": 1024, "removes": True, "reason": "1 newer, 1 are kept"}
CACHE_STATS = {
    "entries": 1204, "json_bytes": 40 << 20, "stored_bytes": 8 << 20, "ratio": 5.0, "max_bytes": 1 << 30, "claims": 1,
    "kinds": [{"kind": "transcription", "entries": 1204, "json_bytes": 40 << 20, "stored_bytes": 8 << 20, "ratio": 5.0,
               "uses": 4102, "expires_s": 7776000.0}],
    "hits": 4102, "misses": 1208, "stored": 1300, "evicted": 7, "expired": 4, "corrupt": 1, "begun_anew": 1,
}  # fmt: skip
SHOWN: dict[str, tuple[list[str], str, Any, list[str]]] = {
    "next-version": (
        ["next-version", "users/5", "topics", "json"], "next_version",
        {"path": "users/5/topics_v3.json", "name": "topics_v3.json", "number": 3}, ["users/5/topics_v3.json"],
    ),
    "versions list": (
        ["versions", "list", "users/5"], "versions_list",
        {"versions": [VERSION, VERSION | {"open_files": 1}, VERSION | {"whole": False}], "more": 9},
        [f"{FILE}_v2", "2 KiB", "2001-09-09", ", open", ", not committed", "and 9 more", "12 versions"],
    ),
    "versions prune": (
        ["versions", "prune", "users/5", "--keep", "1"], "versions_prune",
        {"versions": [PRUNED, PRUNED | {"removes": False}], "removed": 3, "bytes": 4096, "more": 2},
        [r"a_v1\n", "goes", "stays", "1 newer, 1 are kept", "and 2 more", "3 versions removed, 4 KiB"],
    ),
    "cache put": (
        ["cache", "put", FILE, "{file}", "--kind", "k"], "cache_put",
        {"sha256": "00", "for_everybody": True, "evicted": 2}, ["kept for everybody", "2 results made room for it"],
    ),
    "cache stats": (
        ["cache", "stats"], "cache_stats", CACHE_STATS,
        ["1,204", "40 MiB of JSON in 8 MiB (ratio 5.0) of 1 GiB", "5,310 times: 4,102 were there, 1,208 were not",
         "7 for room, 4 by age, 1 damaged", "1 time its file", "90d"],
    ),
    "cache purge": (
        ["cache", "purge", "--kind", "k"], "cache_purge", {"removed": 1, "bytes": 1024, "claims": 0},
        ["1 result given up, 1 KiB\n"],
    ),
    "cache purge claims": (
        ["cache", "purge", "--all"], "cache_purge", {"removed": 0, "bytes": 0, "claims": 7}, ["; 7 claims ended"],
    ),
    "duplicates": (
        ["duplicates", "--user", "5", "--min-size", "1KiB"], "duplicates",
        {"sets": 3, "files": 9, "wasted_bytes": 9 << 20, "next": "7:ab",
         "worst": [{"sha256": "ab" * 32, "files": 4, "size_bytes": 1 << 20, "wasted_bytes": 3 << 20,
                    "where": [{"path": "users/5/a\n", "state": "stored"},
                              {"path": "users/5/b", "state": "committed"}]}]},
        ["1 MiB", "3 MiB", "abababababab", r"users/5/a\n (stored)", "users/5/b (committed)", "and 2 more",
         "3 sets, 9 files, 9 MiB wasted", "more: --after 7:ab"],
    ),
    "duplicates of one": (
        ["duplicates", "--sha256", "ab"], "duplicates",
        {"sha256": "ab", "where": [{"path": "users/5/a", "state": "stored"}], "next": None}, ["users/5/a (stored)"],
    ),
    "cache release": (
        ["cache", "release", FILE, "7", "--kind", "k"], "cache_release", {"released": True}, ["released"],
    ),
}  # fmt: skip


@pytest.fixture
def daemon(root: Path) -> Iterator[FakeDaemon]:
    """One that answers what a test has put in its `answers`."""
    with FakeDaemon(
        root, {method: None for _, method, _, _ in SHOWN.values()} | {"cache_get": None, "dedupe": None}
    ) as running:
        yield running


@pytest.mark.parametrize("case", SHOWN)
def test_commands_show_what_the_daemon_says(daemon: FakeDaemon, tmp_path: Path, case: str) -> None:
    args, method, answer, shown = SHOWN[case]
    file = tmp_path / "result.json"
    file.write_text(json.dumps(RESULT))
    args = [str(file) if each == "{file}" else each for each in args]
    daemon.answers[method] = answer
    root = ["--root", str(daemon.root)]
    result = run(*root, *args)
    assert (result.exit_code, [text for text in shown if text not in result.output]) == (0, []), result.output
    result = run("--json", *root, *args)
    assert (result.exit_code, json.loads(result.output)) == (0, answer)


def test_a_result_that_is_there_is_printed_as_it_is(daemon: FakeDaemon) -> None:
    daemon.answers["cache_get"] = {"found": True, "sha256": "00" * 32, "age_s": 1.0, "uses": 3, "packed": PACKED}
    args = ["--root", str(daemon.root), "cache", "get", FILE, "--kind", "k", "--options", '{"b": 1, "a": [2]}']
    result = run(*args)
    assert (result.exit_code, json.loads(result.output)) == (0, RESULT)
    _, asked = daemon.asked[-1]
    assert (asked["path"], asked["kind"], asked["options"]) == (FILE, "k", {"b": 1, "a": [2]})
    result = run("--json", *args)
    assert json.loads(result.output)["result"] == RESULT


def test_a_result_that_is_not_there_is_told_by_the_exit_code(daemon: FakeDaemon) -> None:
    args = ["--root", str(daemon.root), "cache", "get", FILE, "--kind", "k"]
    daemon.answers["cache_get"] = {"found": False, "sha256": "00" * 32, "claim": None}
    assert (run(*args).exit_code, run(*args).output) == (1, "no result\n")
    result = run(*args, "--claim", "10m")
    assert (result.exit_code, result.output) == (1, "no result; claimed by somebody else\n")
    daemon.answers["cache_get"] = {"found": False, "sha256": "00" * 32, "claim": 7}
    result = run(*args, "--claim", "10m", "--wait")
    assert (result.exit_code, result.output) == (1, "no result; claimed by you for 10m, as 7\n")


def test_files_share_their_blocks_until_nothing_is_left(daemon: FakeDaemon) -> None:
    steps = [
        {"files": 2, "bytes": 1 << 20, "already": 1, "passed_over": 1, "kept": [], "kept_files": 0, "next": "ab:7"},
        {"files": 1, "bytes": 1 << 20, "already": 0, "passed_over": 0, "next": None,
         "kept": [{"path": "users/5/x", "reason": "no"}], "kept_files": 1},
    ]  # fmt: skip
    todo = list(steps)
    daemon.answers["dedupe"] = lambda params: todo.pop(0)
    result = run("--root", str(daemon.root), "duplicates", "--dedupe", "--user", "5")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "3 files share their blocks with others now, 2 MiB", "1 file did so before",
        "1 file passed over: changed meanwhile, or open", "users/5/x: no",
    ]  # fmt: skip
    assert result.stderr == "recfs: 2 files, 1 MiB; --after ab:7\n"
    assert [(params["user"], params["after"]) for _, params in daemon.asked] == [("5", None), ("5", "ab:7")]
    todo = list(steps)
    result = run("--json", "--root", str(daemon.root), "duplicates", "--dedupe")
    assert json.loads(result.stdout)["files"] == 3
    assert run("--root", str(daemon.root), "duplicates", "--dedupe", "--sha256", "ab").exit_code == 2


def test_what_is_no_json_is_a_mistake_in_usage(daemon: FakeDaemon) -> None:
    root = ["--root", str(daemon.root)]
    result = run(*root, "cache", "get", FILE, "--kind", "k", "--options", "{")
    assert (result.exit_code, "--options is no JSON" in result.output) == (2, True)
    assert run(*root, "cache", "purge").exit_code == 2
