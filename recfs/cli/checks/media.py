"""With what programs that read media are confined on this machine: whoever recorded what they read may be hostile."""

import os
import pwd
import shutil
from typing import TYPE_CHECKING

import trio

from recfs.cli.checks import Check, Level
from recfs.errors import MediaUnavailable
from recfs.media.runner import ORDINARY_ID, Runner

if TYPE_CHECKING:
    from collections.abc import Collection

    from recfs.media.programs import Program

_NAME = "confinement"
_WORDS = {
    "landlock": "Landlock", "seccomp": "seccomp", "mntns": "a mount namespace", "netns": "a network namespace",
    "user": "an ordinary user",
}  # fmt: skip
_OF_ITS_OWN = (
    'useradd --system --no-create-home --shell /usr/sbin/nologin recfs-media, and `user = "recfs-media"` in [media]'
)
"""The user that Debian's package and recfs.sysusers.conf make."""


def media_checks(user: str) -> list[Check]:
    """Judge the cage of ffprobe and ffmpeg (`[media] user` is *user*); nothing where there is neither.

    Runs one of them once.
    """
    name = next((each for each in ("ffprobe", "ffmpeg") if shutil.which(each) is not None), None)
    if name is None:
        return []
    try:
        program = trio.run(_caged, name, user)
    except MediaUnavailable as error:
        return [Check(_NAME, Level.WARN, str(error), "what it says; until then recordings are not looked into")]
    is_root = os.geteuid() == 0
    found = check_cage(program.caged_by, is_root=is_root)
    if not is_root:
        return found
    return [*found, check_alone() if "alone" in program.caged_by else check_user(user, _uid_of(user))]


async def _caged(name: str, user: str) -> "Program":
    return await Runner(1, user).program(name)


def _uid_of(user: str) -> int | None:
    """Their uid; None: they cannot be used, for they are unknown, or root."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return None
    return found.pw_uid if found.pw_uid and found.pw_gid else None


def check_cage(caged_by: "Collection[str]", *, is_root: bool) -> list[Check]:
    """Judge what the kernel gave (`Program.caged_by`); *is_root*: to root, who can have more."""
    found = []
    if "landlock" not in caged_by:
        whose = "everybody" if is_root else "this user"
        detail = f"without Landlock ffprobe and ffmpeg can open what {whose} may read"
        remedy = "Linux 5.13 or later; where it is turned off, landlock belongs into lsm= of the kernel's command line"
        found.append(Check(_NAME, Level.WARN, detail, remedy))
    if "seccomp" not in caged_by:
        reach = "other processes" if "netns" in caged_by else "the network and other processes"
        detail = f"without seccomp ffprobe and ffmpeg can reach {reach} of their user"
        remedy = "a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or ARM64; in a container: a runtime that allows it"
        found.append(Check(_NAME, Level.WARN, detail, remedy))
    elif is_root and "netns" not in caged_by:
        detail = "no network namespace is to be had; seccomp refuses ffprobe and ffmpeg every socket"
        remedy = "in a container that may mount (CAP_SYS_ADMIN) there is one"
        found.append(Check(_NAME, Level.NOTE, detail, remedy))
    if is_root and "mntns" not in caged_by and "landlock" in caged_by:
        detail = (
            "no mount namespace is to be had; ffprobe and ffmpeg can look whether a name is there, and of what size"
        )
        remedy = "in a container that may mount (CAP_SYS_ADMIN) there is one; in a unit, with RestrictNamespaces=mnt"
        found.append(Check(_NAME, Level.NOTE, detail, remedy))
    if not found:
        had = ", ".join(word for each, word in _WORDS.items() if each in caged_by)
        found.append(Check(_NAME, Level.OK, f"ffprobe and ffmpeg are held by {had}"))
    return found


def check_alone() -> Check:
    """Judge programs that no other user is to be had for (a user namespace with root alone)."""
    detail = (
        "there is no other user in this user namespace: ffprobe and ffmpeg run as the daemon's, without capabilities"
    )
    remedy = "map more users into it (/etc/subuid, newuidmap), as rootless Podman and Docker do"
    return Check("media user", Level.NOTE, detail, remedy)


def check_user(name: str, uid: int | None) -> Check:
    """Judge whom they run as where the daemon is root: *uid* is that user's, None: there is none of that name."""
    if uid is None:
        detail = f"[media] user = {name}: no ordinary user is called so, ffprobe and ffmpeg run as nobody"
        return Check("media user", Level.WARN, detail, _OF_ITS_OWN)
    if uid == ORDINARY_ID:
        detail = f"{name} runs programs of others, too, which count against the same limit of processes"
        return Check("media user", Level.NOTE, detail, _OF_ITS_OWN)
    return Check("media user", Level.OK, f"{name} (uid {uid})")


__all__ = ["check_alone", "check_cage", "check_user", "media_checks"]
