"""What the daemon answers of what is made from recordings: the control protocol's methods behind `recfs derive` and
`recfs chunks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.media.derived import Product
from recfs.errors import InvalidArgument

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.api.work import MediaWork

LONGEST_WAIT_S = 30.0
_DIGITS = 18
_WISHES = ("length_s", "overlap_s", "silences", "format")


class DerivingAnswers:
    """derive, derive_wait; chunks, chunks_extract, chunks_wait."""

    def __init__(self, work: MediaWork) -> None:
        self._asking, self._chunking = work.asking, work.chunking

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "derive": self.derive,
            "derive_wait": self.derive_wait,
            "chunks": self.chunks,
            "chunks_extract": self.extract,
            "chunks_wait": self.chunks_wait,
        }

    async def derive(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Have what rules make at and below a `path` be made: of one recording, or of `all`. `dry_run`, `only`."""
        return await self._asking.ask(
            str(params.get("path") or ""), everything=bool(params.get("all")), dry_run=bool(params.get("dry_run")),
            only=[str(each) for each in params.get("only") or ()],
        )  # fmt: skip

    async def derive_wait(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Wait, for `timeout_s` at most, until something becomes of one of `products`: "<folder>/<product>" each."""
        return await self._asking.wait([*map(_product, params.get("products") or ())], _timeout(params))

    async def chunks(self, params: dict[str, Any]) -> dict[str, Any]:
        """How the audio of the file at a `path` is cut; planned now where it was not, or is wished otherwise."""
        return await self._chunking.plan(str(params.get("path") or ""), **_wishes(params))

    async def extract(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have its chunks be written."""
        return await self._chunking.extract(str(params.get("path") or ""), **_wishes(params))

    async def chunks_wait(self, params: dict[str, Any]) -> dict[str, Any]:
        """Wait, for `timeout_s` at most, until something becomes of the chunks of the file with this `ino`.

        While they are written it tells `counts`, and of those that have `changed` last; then of all `chunks`.
        """
        return await self._chunking.wait(int(params.get("ino", 0)), _timeout(params))


def _timeout(params: dict[str, Any]) -> float:
    return min(max(0.0, float(params.get("timeout_s", 0.0))), LONGEST_WAIT_S)


def _product(text: str) -> tuple[int, Product]:
    folder, _, product = text.partition("/")
    if not folder.isdecimal() or len(folder) > _DIGITS or product not in list(Product):
        raise InvalidArgument(f"{text[:80]!r} is no product; one is written as `derive` tells: <folder>/<product>")
    return int(folder), Product(product)


def _wishes(params: dict[str, Any]) -> dict[str, Any]:
    return {name: params.get(name) for name in _WISHES}


__all__ = ["DerivingAnswers"]
