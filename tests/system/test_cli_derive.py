"""`recfs derive` and `recfs chunks`: what they print, their exit codes, and how they follow what a daemon does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.system.fake_daemon import FakeDaemon, run

REC = "users/5/recordings/142"
ASKED = {"folder": 3, "source": f"{REC}/source.mp4", "reason": ""}
THUMBNAIL = ASKED | {"product": "thumbnail", "path": f"{REC}/assets/thumbnail.png", "step": "make"}
AUDIO = ASKED | {"product": "audio", "path": f"{REC}/audio.mp3", "step": "keep", "reason": "a file is there"}


def state(status: str, reason: str = "") -> dict[str, Any]:
    """Of the thumbnail."""
    return {"folder": 3, "product": "thumbnail", "status": status, "reason": reason, "share": 0.25}


def deriving(root: Path, asked: list[dict[str, Any]], *states: dict[str, Any]) -> FakeDaemon:
    """A daemon that tells these, one after another."""
    made, left = FakeDaemon(root), list(states)
    made.answers |= {"derive": asked, "derive_wait": lambda params: [left.pop(0)]}
    return made


def test_products_are_followed_to_their_end(root: Path) -> None:
    with deriving(root, [THUMBNAIL, AUDIO], state("pending"), state("processing"), state("completed")) as daemon:
        result = run("derive", REC, "--root", root)
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [
            f"{REC}/assets/thumbnail.png: completed",
            f"{REC}/audio.mp3: kept: a file is there",
            "2 products: 1 completed, 1 kept",
        ],
    )
    assert daemon.asked[0] == ("derive", {"path": REC, "all": False, "only": [], "dry_run": False})
    assert daemon.asked[1] == ("derive_wait", {"products": ["3/thumbnail"], "timeout_s": 2.0})


@pytest.mark.parametrize(
    ("told", "code", "line"),
    [
        (state("failed", "ffmpeg: moov atom not found"), 1, "failed: ffmpeg: moov atom not found"),
        (state("pending", "install ffmpeg"), 0, "pending: install ffmpeg"),
    ],
)
def test_what_fails_and_what_waits_is_said_with_its_reason(
    root: Path, told: dict[str, Any], code: int, line: str
) -> None:
    with deriving(root, [THUMBNAIL], told):
        result = run("derive", REC, "--root", root)
    assert (result.exit_code, result.output.splitlines()[0]) == (code, f"{REC}/assets/thumbnail.png: {line}")


def test_a_dry_run_waits_for_nothing(root: Path) -> None:
    with deriving(root, [THUMBNAIL, AUDIO]) as daemon:
        result = run("derive", "users", "--all", "--only", "thumbnail", "--only", "audio", "--dry-run", "--root", root)
        assert json.loads(run("--json", "derive", REC, "--dry-run", "--root", root).stdout)[0]["status"] == "to be made"
    assert result.output.splitlines()[0] == f"{REC}/assets/thumbnail.png: would be made"
    assert daemon.asked[0] == (
        "derive",
        {"path": "users", "all": True, "only": ["thumbnail", "audio"], "dry_run": True},
    )


def test_without_a_rule_that_is_said(root: Path) -> None:
    with deriving(root, []):
        assert run("derive", REC, "--root", root).output == "no [[derive]] rule makes anything of what is there\n"


def test_names_cannot_do_anything_to_a_terminal(root: Path) -> None:
    with deriving(root, [AUDIO | {"path": "users/5/\x1b[2J", "reason": "\x1b]0;x\x07"}]):
        assert "\x1b" not in run("derive", REC, "--root", root).output


# --- chunks ----------------------------------------------------------------------------------------------------------


def plan(*statuses: str, writing: bool = False, job: str | None = None, reason: str = "") -> dict[str, Any]:
    """What a daemon tells."""
    total = len(statuses)
    return {
        "path": f"{REC}/audio.mp3", "ino": 9, "sha256": "00", "is_current": True, "duration_s": 300.0 * total,
        "length_s": 300.0, "overlap_s": 0.0, "silences": False, "format": "mp3", "job": job, "writing": writing,
        "total": total,
        "chunks": [
            {
                "index": number, "total": total, "start_s": 300.0 * number, "end_s": 300.0 * (number + 1),
                "duration_s": 300.0, "name": f"audio_chunk_{number:03d}.mp3", "status": status, "reason": reason,
                "size_bytes": 0, "sha256": None,
            }
            for number, status in enumerate(statuses)
        ],
    }  # fmt: skip


def test_a_plan_is_shown(root: Path) -> None:
    made = FakeDaemon(root)
    made.answers["chunks"] = plan("pending", "pending")
    with made as daemon:
        result = run("chunks", f"{REC}/audio.mp3", "--length", "5m", "--silences", "--root", root)
        assert json.loads(run("--json", "chunks", f"{REC}/audio.mp3", "--root", root).stdout)["total"] == 2
    lines = result.output.splitlines()
    assert lines[2].split() == ["1", "300.0", "600.0", "300.0", "audio_chunk_001.mp3", "pending"]
    assert lines[3] == "2 chunks of 600.0 s: 2 pending"
    wishes = {"length_s": 300.0, "overlap_s": None, "silences": True, "format": None}
    assert daemon.asked[0] == ("chunks", {"path": f"{REC}/audio.mp3"} | wishes)


def test_chunks_are_followed_to_their_end(root: Path) -> None:
    made, left = (
        FakeDaemon(root),
        [plan("completed", "processing", writing=True), plan(*["completed"] * 2, job="temp/5/7")],
    )
    made.answers |= {"chunks_extract": plan(*["pending"] * 2, writing=True), "chunks_wait": lambda params: left.pop(0)}
    with made as daemon:
        result = run("chunks", f"{REC}/audio.mp3", "--extract", "wav", "--root", root)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "2 chunks of 600.0 s: 2 completed, in temp/5/7")
    assert daemon.asked[0][1]["format"] == "wav"
    assert daemon.asked[1] == ("chunks_wait", {"ino": 9, "timeout_s": 2.0})


def test_chunks_that_fail_are_exit_code_1(root: Path) -> None:
    made = FakeDaemon(root)
    made.answers["chunks_extract"] = plan("failed", reason="no room")
    with made:
        result = run("chunks", f"{REC}/audio.mp3", "--extract", "mp3", "--root", root)
        assert run("chunks", f"{REC}/audio.mp3", "--extract", "mp3", "--no-wait", "--root", root).exit_code == 1
    assert result.exit_code == 1
    assert "failed: no room" in result.output
