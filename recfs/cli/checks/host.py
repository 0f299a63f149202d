"""Kernel, FUSE and capabilities of this machine or container."""

import os
import re
import resource
import shutil
import stat
from pathlib import Path

from recfs.cli.checks import Check, Level
from recfs.cli.common.where import DeadMount, failing_mounts

MIN_KERNEL = (5, 4)
FEW_FILES = 1024
"""As the daemon tells it at start (fs/diskio)."""
FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")
PROC_STATUS = Path("/proc/self/status")

# linux/capability.h
_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_SYS_ADMIN": 21}
_INSTALL = "install the package fuse3 (Debian: apt-get install fuse3)"


def host_checks() -> list[Check]:
    """Return the findings about this machine; blocks for a moment, changes nothing."""
    is_root = os.geteuid() == 0
    return [
        check_kernel(os.uname().release),
        check_device(FUSE_DEVICE),
        check_fusermount(shutil.which("fusermount3"), is_root=is_root),
        check_allow_other(FUSE_CONF, is_root=is_root),
        *check_capabilities(effective_capabilities(PROC_STATUS.read_text()), is_root=is_root),
        check_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
    ]


def check_kernel(release: str) -> Check:
    """Judge a kernel release as uname(2) gives it."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        return Check("kernel", Level.WARN, f"{release}: not a Linux version number", "run recfs on Linux 5.4 or later")
    if (int(found[1]), int(found[2])) < MIN_KERNEL:
        return Check("kernel", Level.FAIL, f"Linux {release} is too old", "run recfs on Linux 5.4 or later")
    return Check("kernel", Level.OK, f"Linux {release}")


def check_descriptors(hard: int) -> Check:
    """Judge how many descriptors a daemon started from here may have (RLIMIT_NOFILE): one or two per open file."""
    if hard < FEW_FILES:
        remedy = (
            f"`ulimit -Hn 65536` as root before `recfs mount`; for a service: LimitNOFILE=; below {FEW_FILES} is few"
        )
        return Check("open files", Level.WARN, f"{hard} at most: opens fail with EMFILE", remedy)
    return Check("open files", Level.OK, f"{hard:,} at most")


def check_device(device: Path) -> Check:
    """Judge /dev/fuse: there, a character device, and ours to open."""
    name = str(device)
    try:
        is_device = stat.S_ISCHR(device.stat().st_mode)
        if is_device:
            os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        remedy = "`modprobe fuse`; in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN"
        return Check(name, Level.FAIL, "missing", remedy)
    except PermissionError:
        remedy = "`chmod 666 /dev/fuse`, or run as root; in a container: --device /dev/fuse"
        return Check(name, Level.FAIL, "this user may not open it", remedy)
    except OSError as exc:
        return Check(name, Level.FAIL, f"cannot be opened: {exc.strerror}", "`modprobe fuse`")
    if not is_device:
        return Check(name, Level.FAIL, "is no device", f"remove it, then `mknod {device} c 10 229`")
    return Check(name, Level.OK, "can be opened")


def check_fusermount(tool: str | None, *, is_root: bool) -> Check:
    """Judge fusermount3: whoever is not root mounts through it; root clears dead mounts with it."""
    if tool is None:
        return Check("fusermount3", Level.WARN if is_root else Level.FAIL, "not on PATH", _INSTALL)
    if not is_root and not os.stat(tool).st_mode & stat.S_ISUID:
        return Check("fusermount3", Level.FAIL, f"{tool} is not setuid root", f"as root: chmod u+s {tool}")
    return Check("fusermount3", Level.OK, tool)


def check_allow_other(conf: Path, *, is_root: bool) -> Check:
    """Judge whether other users can be let into a mount made by this one."""
    name = "allow_other"
    if is_root:
        return Check(name, Level.OK, "root needs no permission for it")
    try:
        lines = [line.split("#", 1)[0].strip() for line in conf.read_text(errors="replace").splitlines()]
    except OSError:
        lines = []
    if "user_allow_other" in lines:
        return Check(name, Level.OK, f"user_allow_other is set in {conf}")
    remedy = f"put the line user_allow_other into {conf} (as root)"
    return Check(name, Level.WARN, "only this user will see into the mount", remedy)


def effective_capabilities(status: str) -> int:
    """Return the CapEff mask of proc_pid_status(5); 0 when it is missing."""
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", status, re.MULTILINE)
    return int(found[1], 16) if found else 0


def check_capabilities(mask: int, *, is_root: bool) -> list[Check]:
    """Judge capabilities(7): SYS_ADMIN to mount, the others to keep owners and modes in the home tree."""
    missing = [name for name, bit in _CAPABILITIES.items() if not mask >> bit & 1]
    if not missing:
        return [Check("capabilities", Level.OK, ", ".join(_CAPABILITIES))]
    detail = f"without {', '.join(missing)}"
    if not is_root:
        remedy = "run the daemon as root if files of several users must keep their owners"
        return [Check("capabilities", Level.WARN, f"{detail}: every file on disk belongs to this user", remedy)]
    options = " ".join(f"--cap-add {name.removeprefix('CAP_')}" for name in missing)
    remedy = f"in a container: start it with {options}; in a systemd unit: CapabilityBoundingSet="
    level = Level.FAIL if "CAP_SYS_ADMIN" in missing else Level.WARN
    consequence = "cannot mount" if level is Level.FAIL else "cannot keep every owner and mode"
    return [Check("capabilities", level, f"root {detail}: {consequence}", remedy)]


def check_dead_mounts(own: Path | None) -> list[Check]:
    """Find recfs mounts whose daemon is gone or silent; nothing when there are none. *own*: the one of the store meant.

    Others are no fault of that store's.
    """
    found = []
    for point, why in failing_mounts():
        if not isinstance(why, DeadMount):
            remedy = f"continue or end that process; `fusermount3 -uz {point}` takes the mount away"
            found.append(Check("mount", Level.WARN, str(why), remedy))
            continue
        level, whose = (Level.FAIL, "this store") if point == own else (Level.WARN, "another store, as far as is known")
        found.append(Check("mount", level, f"{point} is a dead mount, of {whose}", f"recfs umount {point}"))
    return found
