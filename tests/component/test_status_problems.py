"""What `recfs status` has to tell although nobody asks for it: what needs somebody to do something."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recfs.api import summaries
from recfs.errors import IoFailure
from tests.helpers.reports import answer_of

from .build import REC, Filesystem, pattern
from .test_tier import FILE, evict, tiered

if TYPE_CHECKING:
    import trio


@pytest.mark.expect_log("new: somebody's file stood here; kept as lost\\+found/")
async def test_what_lies_in_lost_found_is_counted_and_named(fs: Filesystem) -> None:
    fs.checked_at_end = False
    assert (await fs.answers()["status"]({}))["lost_found"] is None
    await fs.mkdirs(REC)
    await fs.drain()
    (fs.root / REC / "new").write_bytes(b"put there out of band")
    await fs.write(f"{REC}/new", pattern(100))
    await fs.drain()
    told = (await fs.answers()["status"]({}))["lost_found"]
    assert (told["entries"], [name.partition("-")[2] for name in told["names"]]) == (1, ["new"])
    await fs.stop()
    status = answer_of(fs.root / ".recfs/catalogue.db", summaries.status, fs.config)
    assert status["lost_found"] == told, "as long as nobody takes it away"


@pytest.mark.expect_log("file is corrupt: ")
async def test_corrupt_files_are_a_problem(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", pattern(100))
    await fs.drain()
    (fs.root / REC / "file").write_bytes(b"another size")
    with pytest.raises(IoFailure):
        await fs.read(f"{REC}/file")
    [problem] = (await fs.answers()["status"]({}))["problems"]
    assert problem.startswith("1 file is corrupt")
    assert "recfs ls-files -r --state corrupt" in problem


@pytest.mark.expect_log("without \\[s3\\] in the configuration they cannot be read")
async def test_files_in_s3_of_a_store_mounted_without_it(nursery: trio.Nursery, tmp_path: Path) -> None:
    """As `recfs mount --root` alone does."""
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, pattern(100_000))
    await fs.write(f"{REC}/here", pattern(100_000))
    await fs.drain()
    await evict(fs)
    assert (await fs.answers()["status"]({}))["problems"] == []
    await fs.stop()
    bare = Filesystem(nursery, fs.root)
    await bare.start()
    [problem] = (await bare.answers()["status"]({}))["problems"]
    assert problem.startswith("2 files of this store in s3://bucket/, and there is no [s3]"), problem
    assert "1 of them cannot be read" in problem
    assert "--config FILE" in problem
    await bare.stop()
    assert answer_of(fs.root / ".recfs/catalogue.db", summaries.status, bare.config)["problems"] == [problem]
