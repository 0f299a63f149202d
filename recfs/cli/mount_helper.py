"""`mount.recfs`: what mount(8) runs for `mount -t recfs /srv/store /mnt` and for lines of /etc/fstab.

The contract is mount(8), "EXTERNAL HELPERS": `mount.recfs SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`, and
its exit codes. The daemon is started in the background, and this ends when the mount answers. Until it does, the daemon
stays in the process group of mount(8): under x-systemd.automount the kernel has everybody else wait for the mount.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from recfs.cli.common import stdout
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.store import INTERNAL_DIR
from recfs.cli.common.where import mount_on
from recfs.errors import ConfigError, RecfsError

USAGE: Final = 1
FAILURE: Final = 32
INTERRUPTED: Final = 8
SYSTEM: Final = 2
"""Exit codes of mount(8), EXIT STATUS."""

OF_MOUNT: Final = frozenset(
    {
        *("defaults", "rw", "auto", "noauto", "user", "users", "owner", "group", "nouser", "nofail", "_netdev"),
        *("default_permissions", "nosuid", "nodev", "exec", "async", "relatime", "norelatime", "loud", "silent"),
        *("atime", "diratime", "nostrictatime", "lazytime", "nolazytime", "noiversion", "nomand", "noquota"),
    }
)  # fmt: skip
"""Options that mount(8) or systemd act upon, or that hold for every recfs mount, or whose absence nobody can notice."""
_THROUGH: Final = (
    "recfs does not write through for a whole mount: what has to be on stable storage at once is opened with O_SYNC, or"
    " fsync(2) is called for it"
)
_LABELS: Final = "labels of SELinux cannot be given to a recfs mount"
_IMAGES: Final = "the source of a recfs mount is the root of its store, and no image or device"
_QUOTAS: Final = "recfs has quotas of its own: quota.max_bytes=SIZE, and `recfs quota set` for each user"
REASONS: Final = {
    "sync": _THROUGH, "dirsync": _THROUGH,
    "suid": "set-user-ID bits never count on a recfs mount", "dev": "there are no devices on a recfs mount",
    "iversion": "recfs counts no versions of inodes", "mand": "there are no mandatory locks any more (Linux 5.15)",
    **dict.fromkeys(("context", "fscontext", "defcontext", "rootcontext"), _LABELS),
    **dict.fromkeys(("loop", "offset", "sizelimit"), _IMAGES),
    **dict.fromkeys(("quota", "usrquota", "grpquota"), _QUOTAS),
    "root": "the source of the mount says which store it is",
    "mountpoint": "the directory of the mount says where it is",
    "existing": "a store is made with the option `create`, and not without",
}  # fmt: skip
"""Why an option is refused that would mean something else here, or nothing."""
_FLAGS: Final = frozenset({"ro", "noexec", "noatime", "nodiratime", "strictatime", "nosymfollow"})
"""What the kernel does by itself, for the one mount point (mount_setattr(2))."""
_OF_USERLAND: Final = ("x-", "X-", "comment=", "uhelper=", "helper=", "user=")
_USAGE: Final = "usage: mount.recfs SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]"


OPTIONS: Final = {
    "KEY=VALUE": "A setting of recfs.conf, such as `min_free=5GiB` or `quota.max_bytes=1TB`.",
    "config=FILE": "The settings to use, as `recfs mount --config`. The path is written in full.",
    "create": "A store is made where there is none. Without it that is an error: its disk may not be mounted.",
    "allow_other": "Users other than the daemon's may enter the mount, as by `allow_other = true` in recfs.conf.",
    "log_file=FILE": "Where the daemon writes its log, as `recfs mount --log-file`.",
    "start_timeout=SECONDS": "How long it may take until the mount answers, as `recfs mount --start-timeout`.",
    "ro, noexec, noatime, nodiratime, strictatime, nosymfollow": "Hold for this mount point, from when it is mounted.",
    "x-..., X-..., comment=...": "Are for systemd and others. So are _netdev, nofail, noauto, user and the like.",
}
"""What may be said, for the man page."""
EXITS: Final = {
    0: "It is mounted.",
    USAGE: "An option or the configuration is wrong.",
    SYSTEM: "A bug in recfs.",
    INTERRUPTED: "It was interrupted.",
    FAILURE: "It is not mounted: the store or the directory cannot be used.",
}


class Refused(Exception):
    """The command line asks for what there is not; says so."""


@dataclass(slots=True)
class Asked:
    """What mount(8) asks for."""

    source: str = ""
    target: str = ""
    options: list[str] = field(default_factory=list)
    fake: bool = False
    sloppy: bool = False
    verbose: bool = False


@dataclass(slots=True)
class Wanted:
    """What becomes of its options."""

    arguments: list[str] = field(default_factory=list)
    """For `recfs mount`."""
    flags: list[str] = field(default_factory=list)
    creates: bool = False


def parse(arguments: list[str]) -> Asked:
    """Read the command line. Raises Refused."""
    asked, places = Asked(), list[str]()
    rest = iter(arguments)
    for each in rest:
        if not each.startswith("-") or each == "-":
            places.append(each)
            continue
        for at, letter in enumerate(each[1:], start=2):
            match letter:
                case "s":
                    asked.sloppy = True
                case "f":
                    asked.fake = True
                case "v":
                    asked.verbose = True
                case "n" | "w":
                    pass  # there is no mtab to be left alone
                case "r":
                    asked.options.append("ro")
                case "o" | "t" | "N":
                    value = each[at:] or next(rest, "")
                    _with_value(asked, letter, value)
                    break
                case _:
                    raise Refused(f"unknown option -{letter}; {_USAGE}")
    if len(places) != 2:
        raise Refused(_USAGE)
    asked.source, asked.target = places
    return asked


def _with_value(asked: Asked, letter: str, value: str) -> None:
    if letter == "o":
        asked.options += split(value)
    elif letter == "N":
        raise Refused("recfs mounts in the namespace that it is started in; run mount in the other one: nsenter -m")
    elif value not in ("recfs", "fuse.recfs"):
        raise Refused(f"type {value} is not recfs")


def split(options: str) -> list[str]:
    """Split at commas outside of double quotes, as mount(8) does; the quotes go."""
    parts, is_quoted = [""], False
    for char in options:
        if char == '"':
            is_quoted = not is_quoted
        elif char == "," and not is_quoted:
            parts.append("")
        else:
            parts[-1] += char
    return [part for part in parts if part]


def wanted(asked: Asked) -> Wanted:
    """Make arguments for `recfs mount` of the options. Raises Refused, ConfigError."""
    from recfs.config import assignment

    found = Wanted()
    for option in asked.options:
        name, equals, value = option.partition("=")
        if option in OF_MOUNT or option.startswith(_OF_USERLAND):
            continue
        if option in _FLAGS:
            found.flags.append(option)
        elif option in ("remount", "bind", "rbind", "move"):
            raise Refused(
                "a recfs mount cannot be changed by remounting it: `recfs reload` takes up a changed configuration,"
                " and the rest takes umount and mount"
                if option == "remount"
                else f"{option} is nothing that recfs does; leave out -t recfs"
            )
        elif name in REASONS:
            raise Refused(f"{option}: {REASONS[name]}; leave it out")
        elif option == "allow_other":
            found.arguments += ["--set", "allow_other=true"]
        elif option == "create":
            found.creates = True
        elif equals and name in ("config", "log_file", "start_timeout"):
            if name != "start_timeout" and not value.startswith("/"):
                raise Refused(f"{name}={value}: write the path in full, from /")
            found.arguments += [f"--{name.replace('_', '-')}", value]
        elif equals:
            try:
                assignment(option)
            except ConfigError as error:
                if not asked.sloppy:
                    raise Refused(str(error).removeprefix("--set ")) from error
            else:
                found.arguments += ["--set", option]
        elif not asked.sloppy:
            raise Refused(f"unknown option {option}; see `Mount from /etc/fstab` in the runbook")
    return found


def run(arguments: list[str]) -> int:
    """Do what mount(8) asks for; the exit code. Raises Refused, RecfsError."""
    asked = parse(arguments)
    if not asked.source.startswith("/"):
        raise Refused(f"{asked.source}: the source is the root of the store, in full, such as /srv/recfs")
    options = wanted(asked)
    command = ["mount", "--detach", "--same-group", "--root", asked.source, *options.arguments]
    command += ["--existing"] * (not options.creates) + ["--", asked.target]
    if asked.verbose:
        print(f"mount.recfs: recfs {' '.join(command)}", file=sys.stderr)
    if asked.fake:
        return 0
    there = mount_on(Path(asked.target))
    if there is not None and there.fstype == "fuse.recfs" and _answers(asked.target):
        raise Refused(f"{asked.target}: recfs is mounted there already")
    code = _recfs(command)
    if code != ExitCode.OK:
        if code == ExitCode.STORE and not options.creates and not (Path(asked.source) / INTERNAL_DIR).exists():
            print("mount.recfs: the option `create` makes a new store there", file=sys.stderr)
        return exit_code(code)
    if options.flags:
        flags = ",".join(("remount,bind,nosuid,nodev", *options.flags))
        # -i: else mount(8) asks this helper again.
        done = subprocess.run(["mount", "-i", "-n", "-o", flags, "--", asked.target], check=False)
        if done.returncode != 0:
            _recfs(["umount", "--", asked.target])
            return FAILURE
    return 0


def _answers(target: str) -> bool:
    """Whether the mount there is alive: a dead one is cleared by the next."""
    try:
        os.statvfs(target)
    except OSError:
        return False
    return True


def _recfs(command: list[str]) -> int:
    from recfs.cli.main import cli

    # What a user is told by `recfs mount` is nothing that mount(8) says.
    with open(os.devnull, "w") as nowhere:
        told, sys.stdout = sys.stdout, nowhere
        try:
            return int(cli.main(command, prog_name="recfs", standalone_mode=False))
        finally:
            sys.stdout = told


def exit_code(code: int) -> int:
    """Give mount(8)'s exit code for one of recfs's."""
    if code in (ExitCode.USAGE, ExitCode.CONFIG):
        return USAGE
    if code == ExitCode.INTERRUPTED:
        return INTERRUPTED
    return SYSTEM if code == ExitCode.BUG else FAILURE


def main() -> NoReturn:
    """Run it; the console entry point."""
    stdout.take_over()
    try:
        code = run(sys.argv[1:])
    except (Refused, RecfsError) as error:
        print(f"mount.recfs: {error}", file=sys.stderr)
        code = FAILURE if "mounted there already" in str(error) else USAGE
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


__all__ = ["EXITS", "OF_MOUNT", "OPTIONS", "REASONS", "Refused", "exit_code", "main", "parse", "run", "split", "wanted"]
