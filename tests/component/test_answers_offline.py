"""What the catalogue says of a store that no daemon serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.api import summaries
from tests.helpers.reports import answer_of

from .build import REC, Filesystem

if TYPE_CHECKING:
    from pathlib import Path

    import trio


async def test_what_waits_for_the_next_daemon_is_counted_once_and_everywhere(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """The pipeline of a store without a daemon holds what its states say."""
    fs = Filesystem(nursery, tmp_path / "root", trash={"retention": 3600.0})
    await fs.start()
    for name in ("kept", "removed"):
        await fs.write(f"{REC}/{name}", b"12345")
    await fs.drain()
    await fs.reopen(services=False)
    await fs.write(f"{REC}/first", b"123")
    await fs.write(f"{REC}/second", b"1234")
    await fs.unlink(f"{REC}/removed")
    await fs.parts.behind.durable()
    await fs.crash()
    status = answer_of(fs.root / ".recfs" / "catalogue.db", summaries.status, fs.config)
    assert status["states"]["sealing"] == 2
    assert status["pipeline"] == {"sealing": 2, "settling": 1, "hashing_bytes": 7, "dirty": 0}
    await fs.reopen()
    await fs.drain()
    await fs.stop()
    status = answer_of(fs.root / ".recfs" / "catalogue.db", summaries.status, fs.config)
    assert status["pipeline"] == {"sealing": 0, "settling": 0, "hashing_bytes": 0, "dirty": 0}
