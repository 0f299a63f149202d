"""`recfs import` of objects and by rules: what it prints and asks for, its exit codes, and how it is interrupted."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.migration.places import Place
from recfs.errors import InvalidArgument
from recfs.ports.object_errors import ObjectMissing
from recfs.ports.objects import MIB, ObjectMeta
from tests.component.build import filesystem
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server
from tests.system.fake_daemon import FakeDaemon, run

__all__ = ["moto_bucket", "moto_server"]

TOLD = {
    "files": 0, "bytes": 0, "already": 0, "kept": [], "kept_files": 0, "objects": 0, "read_bytes": 0, "dry_run": False,
    "at": "", "took_s": 2.0, "ended": False, "interrupted": False, "failed": None,
}  # fmt: skip
URL = "s3://media/studio/"


def told(**changes: Any) -> dict[str, Any]:
    """What a daemon answers."""
    return TOLD | changes


@pytest.fixture
def importing(root: Path) -> FakeDaemon:
    """A daemon that is not yet running."""
    made = FakeDaemon(root)
    answering(made, told(ended=True, files=2, bytes=2048))
    return made


def answering(daemon: FakeDaemon, *answers: dict[str, Any]) -> None:
    """Have it tell that, one after another."""
    left = list(answers)
    daemon.answers |= {"import_begin": {"run": 7}, "import_wait": lambda params: left.pop(0)}


def test_all_became_files(importing: FakeDaemon, root: Path) -> None:
    answering(importing, told(files=1), told(ended=True, files=2, bytes=3 << 20, already=5))
    with importing as daemon:
        result = run("import", URL, "--root", root)
    assert (result.exit_code, result.output) == (
        0,
        "2 objects imported, 3 MiB, 5 were files already in 2s\n",
    )
    assert daemon.asked[0] == ("import_begin", {"url": URL, "download": False, "dry_run": False})
    assert {name for name, _ in daemon.asked[1:]} == {"import_wait"}


def test_what_was_left_is_named_with_exit_code_1(importing: FakeDaemon, root: Path) -> None:
    kept = [{"path": f"users/5/a\n{number}", "reason": "no checksum"} for number in range(30)]
    answering(importing, told(ended=True, files=2, kept=kept, kept_files=1030, read_bytes=1024))
    with importing:
        result = run("import", URL, "--download", "--root", root)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "users/5/a\\n0: left: no checksum"
    assert lines[20:] == [
        "and 1,010 more",
        "2 objects imported, 0 B, 1 KiB downloaded for their checksums, 1,030 left in 2s",
    ]


def test_a_run_that_failed_says_so(importing: FakeDaemon, root: Path) -> None:
    answering(importing, told(ended=True, failed="S3 is away"))
    with importing:
        result = run("import", URL, "--dry-run", "--root", root)
    assert result.exit_code == 1
    assert "0 objects would" not in result.output
    assert "ended early: S3 is away; run it again" in result.output


def test_json_has_what_the_daemon_says(importing: FakeDaemon, root: Path) -> None:
    with importing:
        result = run("import", URL, "--json", "--root", root)
    assert json.loads(result.output) == told(ended=True, files=2, bytes=2048)


def test_an_interrupt_ends_the_run(importing: FakeDaemon, root: Path) -> None:
    def interrupted(params: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    importing.answers |= {"import_stop": told(ended=True, interrupted=True, files=9)}
    with importing as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfs.cli.migration.bucket._Teller.heard", _raising_once())
        result = run("import", URL, "--root", root)
    assert result.exit_code == 130
    assert ("import_stop", {"run": 7}) in daemon.asked
    assert "interrupted; the next run goes on from there" in result.output


def _raising_once() -> Any:
    calls = 0

    def heard(self: Any, answer: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        self.last = answer
        if calls == 1:
            raise KeyboardInterrupt

    return heard


def test_a_refusal_is_said(importing: FakeDaemon, root: Path) -> None:
    importing.answers["import_begin"] = InvalidArgument("s3://other is not below s3://media/")
    with importing:
        result = run("import", "s3://other", "--root", root)
    assert result.exit_code != 0
    assert "is not below" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        (URL, "--replace"),
        (URL, "--user-map", "1=2"),
        (URL, "--files-only"),
        ("/tmp", "--download"),
        ("/tmp", "--dry-run"),
        ("/tmp", "--rules", "x", "--replace"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(args: tuple[str, ...], root: Path) -> None:
    assert run("import", *args, "--root", root).exit_code == 2


def test_rules_write_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "in").mkdir(parents=True)
    (tree / "in/a.mp4").write_bytes(b"12345")
    (tree / "other").write_bytes(b"1")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nfrom = "in/{name}"\nto = "users/1/recordings/1/{name}"\n')
    monkeypatch.chdir(tmp_path)
    result = run("import", "tree", "--rules", rules)
    assert result.exit_code == 1, "one file is unmatched"
    assert "need a person: 1 file" in result.output
    assert "recfs migrate run" in result.output
    text = (tmp_path / "import.plan").read_text()
    assert "copy\t5\tusers/1/recordings/1/a.mp4\tin/a.mp4\trule 1\n" in text
    assert "unmatched\t1\t-\tother\tno rule takes it\n" in text
    result = run("import", "tree", "--rules", rules, "--output", "tree/in/plan")
    assert result.exit_code == 2
    (tmp_path / "tree/other").unlink()
    result = run("import", "tree", "--rules", rules, "--json", "--output", "second.plan")
    assert (result.exit_code, json.loads(result.output)["clean"]) == (0, True)


# --- with a server, and no daemon ------------------------------------------------------------------------------------


@pytest.fixture
def config(root: Path, tmp_path: Path, moto_bucket: Bucket) -> Path:
    """The configuration of a store whose bucket has objects of another store already, with recfs's metadata."""

    async def make() -> None:
        async with filesystem(root):
            pass

    trio.run(make)
    section = moto_bucket.section(prefix="studio/")
    lines = [
        f'root = "{root}"',
        "min_free = 0",
        "[s3]",
        *(f'{name} = "{getattr(section, name)}"' for name in ("bucket", "prefix", "endpoint", "credentials_file")),
    ]
    (tmp_path / "recfs.conf").write_text("\n".join(lines) + "\n")
    return tmp_path / "recfs.conf"


def put(bucket: Bucket, prefix: str, key: str, data: bytes) -> None:
    store = bucket.store(prefix=prefix)
    fd = os.memfd_create("object")
    try:
        os.write(fd, data)
        meta = ObjectMeta(sha256=hashlib.sha256(data).digest(), md5=hashlib.md5(data).digest(), mode=0o644)
        store.put_file(fd, len(data), key, meta)
    finally:
        os.close(fd)
        store.close()


@pytest.mark.expect_log("holds objects that this store knows nothing of")
def test_objects_become_files_without_a_daemon(config: Path, moto_bucket: Bucket) -> None:
    put(moto_bucket, "studio/", "users/5/recordings/142/a.mp4", b"12345")
    put(moto_bucket, "studio/", "users/5/recordings/142/Имя.mp4", b"12")
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key="studio/users/5/recordings/142/foreign", Body=b"x")
    url = f"s3://{moto_bucket.name}/studio"
    result = run("import", url, "--config", config)
    assert result.exit_code == 1
    assert "recfs bucket claim --force" in result.output, "nobody said that the prefix is this store's"
    assert run("bucket", "claim", "--force", "--config", config).exit_code == 0
    result = run("import", url, "--config", config)
    assert result.exit_code == 1
    assert "2 objects imported, 7 B" in result.output
    assert "users/5/recordings/142/foreign: left: neither its metadata nor the server" in result.output
    listed = run("ls-files", "-r", "--config", config, "users/5")
    assert "a.mp4" in listed.output
    assert "Имя.mp4" in listed.output
    result = run("import", url, "--download", "--config", config)
    assert (result.exit_code, "1 object imported, 1 B, 2 were files already" in result.output) == (0, True)


def test_objects_of_another_bucket_are_copied_by_rules(config: Path, moto_bucket: Bucket, tmp_path: Path) -> None:
    other = f"{moto_bucket.name}-sibling"
    moto_bucket.client.create_bucket(Bucket=other)
    sibling = Bucket(moto_bucket.endpoint, other, moto_bucket.client, tmp_path)
    put(sibling, "old/", "project_3/clip.MP4", b"12345")
    put(sibling, "old/", "project_3/Имя %+&=.mov", b"123")
    put(sibling, "old/", "notes.txt", b"1")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nfrom = "project_{project:id}/{name}.{ext:ext}"\n'
        'to = "users/5/recordings/{project}/{name}.{ext|lower}"\n'
    )
    url = f"s3://{other}/old"
    result = run("import", url, "--rules", rules, "--dry-run", "--config", config)
    assert (result.exit_code, "2 objects would be imported, 8 B, 1 left" in result.output) == (1, True)
    result = run("import", url, "--rules", rules, "--config", config)
    assert result.exit_code == 1
    assert "2 objects imported, 8 B, 1 left" in result.output
    assert "notes.txt: left: no rule takes it" in result.output
    for key, data in (("project_3/clip.MP4", b"12345"), ("project_3/Имя %+&=.mov", b"123")):
        name = key.removeprefix("project_").replace("MP4", "mp4")
        copied = moto_bucket.client.get_object(Bucket=moto_bucket.name, Key=f"studio/users/5/recordings/{name}")
        assert copied["Body"].read() == data
        assert copied["Metadata"]["checksum-sha256"] == hashlib.sha256(data).hexdigest()
        assert sibling.client.get_object(Bucket=other, Key=f"old/{key}")["Body"].read() == data
    result = run("import", url, "--rules", rules, "--json", "--config", config)
    assert json.loads(result.output)["already"] == 2


def test_a_large_object_of_another_bucket_is_copied_in_parts(moto_bucket: Bucket, tmp_path: Path) -> None:
    other = f"{moto_bucket.name}-large"
    moto_bucket.client.create_bucket(Bucket=other)
    data = bytes(range(256)) * (11 * MIB // 256)
    put(Bucket(moto_bucket.endpoint, other, moto_bucket.client, tmp_path), "", "large", data)
    store = moto_bucket.store(prefix="studio/")
    store._copy_limit, store._copy_part = 6 * MIB, 6 * MIB
    meta = ObjectMeta(sha256=hashlib.sha256(data).digest(), md5=hashlib.md5(data).digest())
    store.copy("large", "users/5/x", len(data), meta=meta, fresh=True, origin=Place(other, ""))
    info = store.head("users/5/x")
    assert info is not None
    assert (info.size_bytes, info.sha256) == (len(data), meta.sha256)
    with pytest.raises(ObjectMissing):
        store.copy("missing", "users/5/x", 1, meta=meta, fresh=True, origin=Place(other, ""))
    store.close()
