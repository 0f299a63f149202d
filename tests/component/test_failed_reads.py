"""Reads from S3 that failed: what `recfs status` and `recfs info` tell of them, and when they forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from recfs.ports.object_errors import ObjectChanged, ObjectMissing, RequestRefused, Unreachable, WrongCredentials
from recfs.tier import misses

from .build import REC, Filesystem, pattern, until
from .test_tier import FILE, evict, fs

if TYPE_CHECKING:
    from recfs.ports.object_errors import ObjectStoreError

__all__ = ["fs"]

OTHER = f"{REC}/other"
WRONG = WrongCredentials("bucket: the secret is wrong; check credentials_file")


async def evicted(fs: Filesystem, *paths: str) -> None:
    for path in paths:
        await fs.write(path, pattern(1000))
        await fs.drain()
        await evict(fs, path)


async def status(fs: Filesystem) -> dict[str, Any]:
    return dict(await fs.answers()["status"]({}))


async def failing(fs: Filesystem, error: ObjectStoreError, path: str = FILE) -> None:
    """Read a file, which fails."""
    assert fs.objects is not None
    fs.objects.fail("get_range", error)
    with pytest.raises(type(error)):
        await fs.read(path)


@pytest.mark.expect_log("the secret is wrong")
async def test_refused_credentials_are_a_problem_until_a_file_is_read(fs: Filesystem) -> None:
    await evicted(fs, FILE, OTHER)
    await failing(fs, WRONG)
    await failing(fs, WRONG)
    told = await status(fs)
    (problem,) = told["problems"]
    assert problem.startswith(f"reading 1 file from S3 failed (EIO): {FILE}: ")
    assert problem.endswith("the secret is wrong; check credentials_file")
    (read,) = told["s3"]["failed_reads"]
    assert (read["path"], read["tries"], "check credentials_file" in read["reason"]) == (FILE, 2, True)
    assert "the secret is wrong" in told["s3"]["trouble"]
    assert await fs.read(OTHER) == pattern(1000)  # it was put right, for all
    told = await status(fs)
    assert (told["problems"], told["s3"]["failed_reads"], told["s3"]["trouble"]) == ([], [], None)


@pytest.mark.parametrize(
    "error", [ObjectMissing("file: deleted; restore it"), ObjectChanged("file: replaced; restore it")]
)
@pytest.mark.expect_log("file: (deleted|replaced)")
async def test_an_object_that_is_gone_or_another_is_told_until_its_file_is_read(
    fs: Filesystem, error: ObjectStoreError
) -> None:
    await evicted(fs, FILE, OTHER)
    await failing(fs, error)
    assert await fs.read(OTHER) == pattern(1000)
    told = await status(fs)
    assert [read["path"] for read in told["s3"]["failed_reads"]] == [FILE]
    assert "restore it" in told["problems"][0]
    assert told["s3"]["trouble"] is None
    assert "restore it" in (await fs.answers()["info"]({"path": FILE}))["s3"]["read_error"]
    assert (await fs.answers()["info"]({"path": OTHER}))["s3"]["read_error"] is None
    assert await fs.read(FILE) == pattern(1000)
    assert (await status(fs))["problems"] == []
    assert (await fs.answers()["info"]({"path": FILE}))["s3"]["read_error"] is None


@pytest.mark.parametrize("end", ["remove", "overwrite", "rename"])
@pytest.mark.expect_log("deleted")
async def test_a_failed_read_goes_with_its_file_and_follows_its_name(fs: Filesystem, end: str) -> None:
    await evicted(fs, FILE)
    await failing(fs, ObjectMissing("deleted"))
    await until(lambda: not fs.tier.partials.by_ino)  # it is logged
    if end == "remove":
        await fs.unlink(FILE)
    elif end == "overwrite":
        await fs.write(FILE, b"anew")
    else:
        await fs.rename(FILE, OTHER)
    told = [read["path"] for read in (await status(fs))["s3"]["failed_reads"]]
    assert told == ([OTHER] if end == "rename" else [])


@pytest.mark.expect_log("no route|odd")
async def test_any_error_of_a_read_is_told(fs: Filesystem) -> None:
    await evicted(fs, FILE, OTHER)
    await failing(fs, Unreachable("no route"))
    await failing(fs, RequestRefused("odd"), OTHER)
    told = (await status(fs))["s3"]["failed_reads"]
    assert [(read["path"], read["reason"].rpartition(" ")[2]) for read in told] == [(OTHER, "odd"), (FILE, "route")]


@pytest.mark.expect_log("deleted|the secret")
async def test_they_are_bounded_and_credentials_come_first(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misses, "KEPT", 3)
    names = [f"{REC}/f{number}" for number in range(4)]
    await evicted(fs, *names)
    await failing(fs, ObjectMissing("deleted"), names[0])
    await failing(fs, WRONG, names[1])
    await failing(fs, ObjectMissing("deleted"), names[2])
    await failing(fs, ObjectMissing("deleted"), names[3])
    told = await status(fs)
    assert [read["path"] for read in told["s3"]["failed_reads"]] == [names[1], names[3], names[2]]
    assert "3 files or more" in told["problems"][0]
    assert "the secret is wrong" in told["problems"][0]
