"""Users' counters in memory. They change with the nodes and are written in the same batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from recfs.core import quota
from recfs.core.bounds import MAX_INT, total
from recfs.core.quota import Limits, Reason
from recfs.core.upkeep.in_trash import InTrash
from recfs.errors import FileTooLarge, QuotaExceeded
from recfs.ports.rows import ROOT_INO, AccountRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.access.owners import Owner
    from recfs.ports.catalogue import Catalogue


def _untold(user: str, limit: str) -> None:
    """Nobody wants to know."""


LIMIT_NAMES = ("max_bytes", "max_files", "max_file_size", "max_monthly_uploads")


class Account:
    """What one user has used, and what they may."""

    __slots__ = (
        "limits", "month", "month_uploads", "own", "owner", "reached", "trashed_bytes", "unchecked_writers",
        "used_bytes", "used_files", "user",
    )  # fmt: skip

    def __init__(self, user: str, own: Limits, limits: Limits) -> None:
        self.user = user
        self.own = own
        self.limits = limits
        self.used_bytes = 0
        self.used_files = 0
        self.trashed_bytes = 0
        """In the trash, where that is charged. Not kept: it is what the rows of the trash add up to."""
        self.month = ""
        self.month_uploads = 0
        self.reached = _untold
        """Called with the user and a limit's name before something is refused because of it."""
        self.owner: Owner | None = None
        """Whose users/<id> and temp/<id> are; None: the user is not told apart by uid."""
        self.unchecked_writers = 0
        """Writers of this user's whose writes the kernel does by itself."""

    def row(self) -> AccountRow:
        """The row the catalogue should hold."""
        own = self.own
        return AccountRow(
            self.user, total(self.used_bytes), self.used_files, self.month, self.month_uploads,
            own.max_bytes, own.max_files, own.max_file_size, own.max_monthly_uploads,
            *(self.owner or (None, None, None)),
        )  # fmt: skip

    @property
    def charged_bytes(self) -> int:
        """What counts towards `max_bytes`."""
        return self.used_bytes + self.trashed_bytes

    def uploads_in(self, month: str) -> int:
        """Uploads counted in *month*. A counter of an earlier month counts nothing, one of a later month does."""
        return self.month_uploads if self.month >= month else 0

    def _uploads_at(self, now_ns: int) -> int:
        """Uploads that count at a time of the calendar (`clock`).

        What was counted in a later month counts in this one, if the calendar was ahead by mistake: it begins anew with
        the next month, and not only when the calendar comes to where it once was.
        """
        month = quota.month_of(now_ns)
        self.month = min(self.month, month)
        return self.uploads_in(month)

    def count_uploads(self, now_ns: int, more: int = 1) -> None:
        """Count so many *more* uploads, at a time of the calendar."""
        self.month_uploads = self._uploads_at(now_ns) + more
        self.month = quota.month_of(now_ns)

    def check_add_file(self, now_ns: int, *, upload: bool) -> None:
        """Raise QuotaExceeded when one more file is too many."""
        limits = self.limits
        if limits.max_files is None and not (upload and limits.max_monthly_uploads is not None):
            return
        uploads = self._uploads_at(now_ns)
        reason = quota.add_file(limits, self.used_files, uploads, upload=upload)
        if reason is not None:
            self.reached(self.user, reason)
            raise QuotaExceeded(f"user {self.user}: {reason} = {getattr(limits, reason)} is reached")

    def check_uploads(self, now_ns: int, more: int = 1) -> None:
        """Raise QuotaExceeded when so many *more* uploads this month are too many."""
        limit = self.limits.max_monthly_uploads
        if limit is not None and more and self._uploads_at(now_ns) + more > limit:
            self.reached(self.user, Reason.MONTHLY_UPLOADS)
            raise QuotaExceeded(f"user {self.user}: max_monthly_uploads = {limit} is reached")

    def check_room(self, added_bytes: int, added_files: int) -> None:
        """Raise QuotaExceeded when a subtree of this size cannot be moved in."""
        limits = self.limits
        if limits.max_bytes is not None and added_bytes > 0 and self.charged_bytes + added_bytes > limits.max_bytes:
            self.reached(self.user, Reason.QUOTA_BYTES)
            raise QuotaExceeded(
                f"user {self.user}: {added_bytes} bytes more than max_bytes = {limits.max_bytes} allows"
            )
        if limits.max_files is not None and added_files > 0 and self.used_files + added_files > limits.max_files:
            self.reached(self.user, Reason.QUOTA_FILES)
            raise QuotaExceeded(
                f"user {self.user}: {added_files} files more than max_files = {limits.max_files} allows"
            )

    def admit(self, file_size: int, wanted_size: int, offset: int) -> int:
        """How far a file of *file_size* may grow towards *wanted_size*; raises when no byte at *offset* is within."""
        allowed = quota.grow(self.limits, self.charged_bytes, file_size, wanted_size)
        if allowed <= offset < wanted_size:
            self._refuse(file_size, wanted_size)
        return allowed

    def demand(self, file_size: int, wanted_size: int) -> None:
        """Raise unless a file of *file_size* may grow to *wanted_size* whole."""
        if quota.grow(self.limits, self.charged_bytes, file_size, wanted_size) < wanted_size:
            self._refuse(file_size, wanted_size)

    def may_write_unchecked(self, file_size: int, headroom: int | None) -> bool:
        """Whether one more writer may write without being checked at each write."""
        return quota.may_write_unchecked(self.limits, self.charged_bytes, file_size, self.unchecked_writers, headroom)

    @property
    def is_bounded(self) -> bool:
        """Whether a writer can meet a limit at all."""
        return self.limits.max_bytes is not None or self.limits.max_file_size is not None

    def check_exceeded(self, file_size: int) -> None:
        """Raise QuotaExceeded or FileTooLarge when a limit is passed already."""
        reason = quota.exceeded(self.limits, self.charged_bytes, file_size)
        if reason is not None:
            self.reached(self.user, reason)
        if reason is Reason.FILE_SIZE:
            raise FileTooLarge(f"user {self.user}: max_file_size = {self.limits.max_file_size} is passed")
        if reason is not None:
            raise QuotaExceeded(f"user {self.user}: max_bytes = {self.limits.max_bytes} is passed")

    def _refuse(self, file_size: int, wanted_size: int) -> NoReturn:
        reason = quota.grow_reason(self.limits, self.charged_bytes, file_size, wanted_size)
        self.reached(self.user, reason or Reason.QUOTA_BYTES)
        if reason is Reason.FILE_SIZE:
            raise FileTooLarge(f"user {self.user}: max_file_size = {self.limits.max_file_size} is reached")
        raise QuotaExceeded(f"user {self.user}: max_bytes = {self.limits.max_bytes} is reached")


class Accounts:
    """All users met since the start. Loaded when a directory of theirs is first loaded."""

    def __init__(self, catalogue: Catalogue, defaults: Limits, in_trash: InTrash | None = None) -> None:
        self.in_trash = in_trash or InTrash(charges=False, max_metadata=None)
        self._catalogue = catalogue
        self._defaults = defaults
        self._known: dict[str, Account] = {}
        self.on_reached: Callable[[str, str], None] = _untold
        """Called with a user and a limit's name before something is refused because of it."""

    async def load(self, user: str) -> Account:
        """The account of *user*; made when nobody has seen this user yet."""
        if user not in self._known:
            row = await self._catalogue.account(user)
            if row is not None and row.used_bytes >= MAX_INT:
                row = row._replace(used_bytes=await self._added_up(user))
            if user not in self._known:
                self._known[user] = self._from_row(user, row)
                self._known[user].trashed_bytes = self.in_trash.bytes_of[user]
        return self._known[user]

    async def _added_up(self, user: str) -> int:
        """Usage beyond what a row can say: right, as nothing of a user nobody has loaded yet is under way."""
        used = 0
        for level in (b"users", b"temp"):
            top = await self._catalogue.child(ROOT_INO, level)
            own = await self._catalogue.child(top.ino, user.encode("ascii")) if top is not None else None
            used += await self._catalogue.bytes_below(own.ino) if own is not None else 0
        return used

    def _from_row(self, user: str, row: AccountRow | None) -> Account:
        own = Limits(*row[5:9]) if row is not None else Limits()
        account = Account(user, own, quota.merge(own, self._defaults))
        account.reached = self._reached
        if row is None:
            return account
        account.used_bytes, account.used_files = row.used_bytes, row.used_files
        account.month, account.month_uploads = row.month, row.month_uploads
        account.owner = row.owner
        return account

    def _reached(self, user: str, limit: str) -> None:
        self.on_reached(user, limit)

    def trashed(self, gid: int, path: bytes, size_bytes: int, beside_bytes: int | None = None) -> None:
        """What had a name goes to the trash under a number, with so much of attributes and target beside its bytes.

        *beside_bytes* None: as much as was told of it before.
        """
        self._charge_trash(self.in_trash.add(gid, path, size_bytes, beside_bytes))

    def left_trash(self, gid: int) -> None:
        """It is gone, or has a name again."""
        self._charge_trash(self.in_trash.remove(gid))

    def _charge_trash(self, user: str | None) -> None:
        if user in self._known and user is not None:
            self._known[user].trashed_bytes = self.in_trash.bytes_of[user]

    def reconfigure_trash(self, *, charges: bool, max_metadata: int | None) -> None:
        """Have what is in the trash count otherwise from the next byte on. Atomic."""
        self.in_trash.reconfigure(charges=charges, max_metadata=max_metadata)
        for user, account in self._known.items():
            account.trashed_bytes = self.in_trash.bytes_of[user]

    def set_defaults(self, defaults: Limits) -> None:
        """Have other limits hold, from the next byte on, where users have none of their own. Atomic."""
        self._defaults = defaults
        for account in self._known.values():
            account.limits = quota.merge(account.own, defaults)

    def set_limits(self, account: Account, own: Limits) -> None:
        """Give *account* its own limits; they hold for the next byte."""
        account.own = own
        account.limits = quota.merge(own, self._defaults)
