"""What the daemon answers of imports: the control protocol's methods behind `recfs import s3://…`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.migration.places import place_of_url
from recfs.errors import NO_S3, InvalidArgument, NotSupported
from recfs.services.importing.runs import Options
from recfs.state.work.runs import followed

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.services.importing.runs import Import, Importing


class ImportAnswers:
    """import_objects, import_begin, import_wait, import_stop, import_list, import_copies.

    Without [s3] they answer NotSupported.
    """

    def __init__(self, importing: Importing | None) -> None:
        self._found = importing

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "import_objects": self.all,
            "import_begin": self.begin,
            "import_wait": self.wait,
            "import_stop": self.stop,
            "import_list": self.list,
            "import_copies": self.copies,
        }

    @property
    def _importing(self) -> Importing:
        if self._found is None:
            raise NotSupported(NO_S3)
        return self._found

    def _new(self, params: dict[str, Any]) -> Import:
        options = Options(
            str(params.get("url") or ""), bool(params.get("download")), bool(params.get("dry_run"))
        )  # fmt: skip
        return self._importing.new(options)

    async def begin(self, params: dict[str, Any]) -> dict[str, Any]:
        """Begin to make files of the objects at `url`; `download`, `dry_run`. It ends if nobody asks about it."""
        return {"run": self._importing.begin(self._new(params))}

    async def wait(self, params: dict[str, Any]) -> dict[str, Any]:
        """How far `run` is, once it has ended, or after `timeout_s`."""
        return await self._importing.wait(int(params["run"]), float(params.get("timeout_s", 1.0)))

    async def stop(self, params: dict[str, Any]) -> dict[str, Any]:
        """End `run`, and tell how far it came."""
        return await self._importing.stop(int(params["run"]))

    async def all(self, params: dict[str, Any]) -> dict[str, Any]:
        """Do all of it, and answer at the end. *tell*, for who asks in this very process, hears how far it is."""
        return await followed(self._new(params), params.get("tell"))

    async def list(self, params: dict[str, Any]) -> dict[str, Any]:
        """A page of the objects at `url`, any place on the server, with keys after `after`: key, size, mtime each."""
        place = place_of_url(str(params["url"]))
        return await self._importing.copying.listed(place, str(params.get("after") or ""))

    async def copies(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have the server copy the objects `keys` at `url` to `targets`, and make files of them; `download`."""
        keys, targets = params["keys"], params["targets"]
        if len(keys) != len(targets):
            raise InvalidArgument(f"{len(keys)} keys have {len(targets)} targets")
        place = place_of_url(str(params["url"]))
        pairs = list(zip(keys, targets, strict=True))
        return await self._importing.copying.copy(place, pairs, download=bool(params.get("download")))


__all__ = ["ImportAnswers"]
