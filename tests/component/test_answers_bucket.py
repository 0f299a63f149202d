"""What the daemon answers of the bucket: restores, presigned URLs, lifecycle rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.api.s3.bucket import configured
from recfs.config.lifecycle import LifecycleSection
from recfs.core.model import State
from recfs.errors import Exists, InvalidArgument, InvalidPath, NoAttribute
from recfs.ports.object_errors import AccessRefused, NotOffered, ObjectArchived
from recfs.ports.objects import LifecycleRule

from .build import Filesystem
from .far import OTHER, ask, bucket, down, failing, fs, no_route, until
from .test_tier import FILE, evict, node, tiered

if TYPE_CHECKING:
    import trio

__all__ = ["fs"]


async def test_restore_of_an_archived_file(fs: Filesystem) -> None:
    """Asked for once, told until it is there; then the file can be read."""
    await fs.write(FILE, b"data")
    await fs.drain()
    with pytest.raises(InvalidArgument, match="needs no restore"):
        await ask(fs, "restore", path=FILE)
    await evict(fs)
    bucket(fs).archive(FILE)
    first = await ask(fs, "restore", path=FILE, days=3, tier="Bulk")
    assert (first["state"], first["requested"], first["storage_class"]) == ("restoring", True, "GLACIER")
    assert (await ask(fs, "restore", path=FILE))["requested"] is False
    bucket(fs).finish_restore(FILE)
    assert (await ask(fs, "restore", path=FILE))["state"] == "restored"
    assert await fs.read(FILE) == b"data"
    await fs.drain()


async def test_restore_where_the_server_has_none_and_archive_classes_are_labels(fs: Filesystem) -> None:
    """As on SeaweedFS: nothing is wrong with the file, and it can be read."""
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    bucket(fs).archive(FILE)
    bucket(fs).serves_archived = True
    bucket(fs).fail("restore", NotOffered("cannot restore: MethodNotAllowed; not offered"))
    with pytest.raises(
        InvalidArgument, match="needs no restore: the server has none, and serves objects of class GLACIER"
    ):
        await ask(fs, "restore", path=FILE)
    assert await fs.read(FILE) == b"data"
    await fs.drain()


async def test_restore_where_the_server_has_none_and_keeps_the_object_back(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    bucket(fs).archive(FILE)
    bucket(fs).fail("restore", NotOffered("cannot restore: NotImplemented; not offered"))
    with pytest.raises(NotOffered, match="only the server's own tools"):
        await ask(fs, "restore", path=FILE)


async def test_transitions_that_a_server_refuses_are_named(fs: Filesystem) -> None:
    """And what does the same without them."""
    transition = {"prefix": "users/", "after": "90d", "storage_class": "GLACIER"}
    refusal = NotOffered("cannot write the lifecycle rules: NotImplemented; not offered")
    bucket(fs).fail("put_lifecycle", refusal)
    with pytest.raises(NotOffered) as told:
        await ask(fs, "lifecycle_apply")
    assert "transitions" not in str(told.value)
    section = LifecycleSection.model_validate({"transitions": [transition]})
    fs.config = fs.config.model_copy(update={"lifecycle": section})
    bucket(fs).fail("put_lifecycle", refusal)
    with pytest.raises(
        NotOffered, match=r"NotImplemented; .*leave transitions out of \[lifecycle\]: .*`recfs tier run`"
    ):
        await ask(fs, "lifecycle_apply")


@pytest.mark.parametrize("params", [{"days": 0}, {"days": "7"}, {"tier": "Fast"}])
async def test_restore_refuses_nonsense(fs: Filesystem, params: dict[str, Any]) -> None:
    """Before S3 is asked."""
    await fs.write(FILE, b"data")
    await fs.drain()
    with pytest.raises(InvalidArgument):
        await ask(fs, "restore", path=FILE, **params)


@no_route
async def test_presign_reads_what_is_stored(fs: Filesystem) -> None:
    """Under the key the object really has, also while a rename is under way; never an earlier version."""
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    down(fs, "copy")
    await fs.rename(FILE, OTHER)
    await failing(fs)  # a try that is under way would fail after the retry that is asked for below
    found = await ask(fs, "presign", path=OTHER, expires_s=60.0)
    assert (found["method"], found["key"], found["expires_s"]) == ("GET", FILE, 60)
    assert "X-Amz-Expires=60" in found["url"]
    bucket(fs).heal()
    await ask(fs, "queue_retry", all=True)
    await fs.drain()
    down(fs, "put_file")
    await fs.write(OTHER, b"changed")
    await failing(fs)
    with pytest.raises(InvalidArgument, match="earlier version"):
        await ask(fs, "presign", path=OTHER)
    bucket(fs).heal()


async def test_presign_writes_only_where_there_is_no_file(fs: Filesystem) -> None:
    """Else the file would be changed out of band."""
    await fs.write(FILE, b"data")
    found = await ask(fs, "presign", path=OTHER, put=True)
    assert (found["method"], found["key"]) == ("PUT", OTHER)
    with pytest.raises(Exists):
        await ask(fs, "presign", path=FILE, put=True)
    with pytest.raises(InvalidPath):
        await ask(fs, "presign", path="users/5/file", put=True)
    for expires_s in (0, 604_801, "1h"):
        with pytest.raises(InvalidArgument):
            await ask(fs, "presign", path=OTHER, put=True, expires_s=expires_s)
    await fs.drain()


async def test_lifecycle_rules_are_written_and_compared(fs: Filesystem) -> None:
    """The dry run writes nothing; the second time there is nothing to do."""
    shown = await ask(fs, "lifecycle_show")
    assert (shown["bucket"], shown["missing"], shown["differs"]) == ([], ["recfs-abort-multipart"], True)
    assert (await ask(fs, "lifecycle_apply", dry_run=True))["applied"] is False
    assert bucket(fs).get_lifecycle() == ()
    assert (await ask(fs, "lifecycle_apply"))["applied"] is True
    assert bucket(fs).get_lifecycle() == (LifecycleRule("recfs-abort-multipart", abort_multipart_days=7),)
    shown = await ask(fs, "lifecycle_show")
    assert (shown["differs"], shown["configured"]) == (False, shown["bucket"])
    assert (await ask(fs, "lifecycle_apply"))["applied"] is False


def test_lifecycle_rules_of_a_configuration() -> None:
    """One rule per prefix, its transitions by age."""
    section = LifecycleSection.model_validate(
        {
            "abort_multipart": "0s",
            "transitions": [
                {"prefix": "users/", "after": "90d", "storage_class": "GLACIER"},
                {"prefix": "users/", "after": "30d", "storage_class": "STANDARD_IA"},
                {"after": "365d", "storage_class": "DEEP_ARCHIVE"},
            ],
        }
    )
    assert configured(section) == (
        LifecycleRule("recfs-transition-all", transitions=((365, "DEEP_ARCHIVE"),)),
        LifecycleRule("recfs-transition-users", prefix="users/", transitions=((30, "STANDARD_IA"), (90, "GLACIER"))),
    )


@pytest.mark.parametrize(
    "written",
    [
        {"abort_multipart": "36h"},
        {"transitions": [{"after": "1h", "storage_class": "GLACIER"}]},
        {"transitions": [{"prefix": "/users", "after": "1d", "storage_class": "GLACIER"}]},
        {"transitions": [{"after": "1d", "storage_class": "glacier"}]},
        {"transitions": [{"after": "1d", "storage_class": "GLACIER"}, {"after": "2d", "storage_class": "GLACIER"}]},
    ],
)
def test_lifecycle_mistakes_are_refused(written: dict[str, Any]) -> None:
    """When the configuration is read."""
    with pytest.raises(ValueError):
        LifecycleSection.model_validate(written)


# --- user.recfs.restore --------------------------------------------------------------------------------------------


async def restore_state(fs: Filesystem) -> bytes:
    """The attribute."""
    return await fs.xattrs.get((await fs.node(FILE)).ino, b"user.recfs.restore")


@pytest.mark.expect_log("archived")
async def test_the_state_of_an_archived_file_is_an_attribute(fs: Filesystem) -> None:
    """As S3 has it at that moment; ENODATA once the file is here again."""
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    bucket(fs).archive(FILE)
    with pytest.raises(ObjectArchived):
        await fs.read(FILE)
    found = await node(fs)
    await until(lambda: found.state is State.ARCHIVED)
    assert await restore_state(fs) == b"archived"
    await ask(fs, "restore", path=FILE)
    assert await restore_state(fs) == b"restoring"
    bucket(fs).finish_restore(FILE)
    assert await restore_state(fs) == b"restored"
    assert await fs.read(FILE) == b"data"
    await fs.drain()
    with pytest.raises(NoAttribute):
        await restore_state(fs)


async def test_s3_is_not_asked_for_the_state_of_files_that_can_be_read(fs: Filesystem) -> None:
    """`getfattr` of every file of a tree is no request."""
    await fs.write(FILE, b"data")
    with pytest.raises(NoAttribute):
        await restore_state(fs)
    await fs.drain()
    bucket(fs).fail("head", AccessRefused("not asked"))
    with pytest.raises(NoAttribute):
        await restore_state(fs)
    await evict(fs)
    with pytest.raises(NoAttribute):
        await restore_state(fs)


async def test_a_file_uploaded_into_an_archive_class_is_known_to_be_archived(
    nursery: trio.Nursery, place: Path
) -> None:
    """Nobody has to fail to read it first."""
    fs = tiered(nursery, place, s3={"bucket": "bucket", "storage_class": "GLACIER"})
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    bucket(fs).archive(FILE)
    found = await node(fs)
    assert found.object is not None
    fs.tier.copies.remember(found, found.object._replace(storage_class="GLACIER"))
    assert await restore_state(fs) == b"archived"
    await fs.stop()
