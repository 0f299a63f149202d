"""Users who are told apart by uid: whose a user's directories are, and who else they may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from recfs.core.layout import Role
from recfs.errors import InvalidArgument

DEFAULT_MODE = 0o700
ID_MAX = 2**32 - 2
"""The highest uid and gid: the one above is (uid_t) -1, which chown(2) reads as "leave unchanged"."""
_ALL_OF_OWNER, _OTHERS, _SETUID = 0o700, 0o007, 0o4000
_BESIDE_FILES = frozenset({Role.USER, Role.TEMP_USER, Role.USER_THUMBNAILS, Role.USER_RECORDINGS})


class Owner(NamedTuple):
    """What belongs to a user: uid and gid of their processes, and the mode of users/<id> and temp/<id>."""

    uid: int
    gid: int
    mode: int = DEFAULT_MODE

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid} {self.mode:04o}"

    @property
    def lets_group_in(self) -> bool:
        """Whether others of the group get at the user's files."""
        return bool(self.mode & 0o070)


def check_owner(owner: Owner, operators: frozenset[int]) -> None:
    """Raise InvalidArgument for what would not keep a user apart from the others. *operators*: uids of those."""
    for what, number in (("uid", owner.uid), ("gid", owner.gid)):
        if not 0 <= number <= ID_MAX:
            raise InvalidArgument(f"{what} {number}: it lies between 0 and {ID_MAX}")
    if owner.uid in operators:
        raise InvalidArgument(f"uid {owner.uid} is an operator's: nothing is kept from that; give the user another")
    mode = owner.mode
    if mode & ~0o7777 or mode & _SETUID:
        raise InvalidArgument(f"mode {mode:04o}: permission bits of a directory, such as 0700, 0750 or 2770")
    if mode & _ALL_OF_OWNER != _ALL_OF_OWNER:
        raise InvalidArgument(f"mode {mode:04o}: the user needs all of their own directory; 0700 at least")
    if mode & _OTHERS:
        raise InvalidArgument(f"mode {mode:04o} lets every user in; the last digit is 0, as in 0700, 0750 or 2770")


class Mistaken(NamedTuple):
    """A user's uid that is an operator's."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def mistaken_operator(operator: int | None, owners: Iterable[tuple[str, Owner | None]]) -> Mistaken | None:
    """What is wrong with the uid of an operator, by users and what each was given; None: nothing."""
    if operator is None:
        return None
    users = [user for user, owner in owners if owner is not None and owner.uid == operator]
    if not users:
        return None
    return Mistaken(
        f"operator = {operator}: that is the uid of user {users[0]}, who would be kept from nothing",
        f"set another operator, or give that user another uid: `recfs user add {users[0]} --uid N`",
    )


def owner_by(uid: int, gid: int, mode: int, operators: frozenset[int]) -> Owner | None:
    """The owner that a directory users/<id> or temp/<id> tells of; None where its mode and uid keep nobody apart."""
    owner = Owner(uid, gid, mode & 0o7777)
    try:
        check_owner(owner, operators)
    except InvalidArgument:
        return None
    return owner


def one_uid_each(found: Mapping[str, Owner]) -> dict[str, Owner]:
    """Those of *found*, by user, whose uid is nobody else's."""
    count = Counter(owner.uid for owner in found.values())
    return {user: owner for user, owner in found.items() if count[owner.uid] == 1}


def takes_mode(role: Role) -> bool:
    """Whether a directory of this role has the mode that was given to its user: no file is in it by the layout, or it
    is the first that has any.
    """
    return role in _BESIDE_FILES


__all__ = [
    "DEFAULT_MODE", "ID_MAX", "Mistaken", "Owner", "check_owner", "mistaken_operator", "one_uid_each", "owner_by",
    "takes_mode",
]  # fmt: skip
