"""`recfs mount`: run the daemon here, or start it in the background and return when it is ready."""

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recfs.cli.common import cwd, output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import Duration
from recfs.cli.common.store import INTERNAL_DIR
from recfs.cli.common.where import LINKS_MAX, mount_around, resolve
from recfs.cli.mounts.detach import failure_notified, import_path, start_detached
from recfs.cli.mounts.logs import set_up_logging
from recfs.errors import ConfigError, RecfsError, StoreError

if TYPE_CHECKING:
    from recfs.config import Config, Options

_ANSWER_S = 5.0
"""How long a daemon may take to say what it serves."""


_EXITS = {
    ExitCode.STORE: "the store is in use or cannot be used, or with `--existing` there is none",
    ExitCode.MOUNT: "the mount point cannot be used",
}
_EXAMPLE = """
$ recfs mount --root /srv/recfs -d /mnt/other
recfs: store /srv/recfs is in use by another recfs daemon (process 19554). Stop it with \
`recfs umount --root /srv/recfs`, or use its mount.
$ echo $?
4
"""


class _Mount(Command):
    """Knows how mount(8) is written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the words apart. Raises click.UsageError; where ROOT MOUNTPOINT was given, with what to write."""
        ctx.allow_extra_args = True  # they are refused here
        more = super().parse_args(ctx, args)
        if more and not ctx.resilient_parsing:
            words = shlex.join(("recfs", "mount", "--root", str(ctx.params["mountpoint"]), *more))
            is_source = len(more) == 1 and ctx.ensure_object(Invocation).root is None
            hint = f"; the store goes with --root: {words}" if is_source else ""
            ctx.fail(f"one mount point, and not {' '.join(more)} as well{hint}")
        return more


@click.command(cls=_Mount, exits=_EXITS, example=_EXAMPLE)
@click.argument("mountpoint", required=False, type=click.Path(path_type=Path))
@click.option(
    "-d", "--detach", is_flag=True, help="Return when the mount answers; the daemon goes on in the background."
)
@click.option(
    "--existing", is_flag=True, help="Only a store that is there: never make a new one, as with `existing = true`."
)
@click.option("-v", "--verbose", is_flag=True, help="Log everything (level debug).")
@click.option(
    "--start-timeout",
    type=Duration(),
    default="5m",
    show_default=True,
    help="With -d: longest wait; then the daemon is stopped again.",
)
@click.option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="In place of [log].file.")
@click.option(
    "--same-group",
    is_flag=True,
    help="With -d: the daemon leaves the process group only once it is mounted, as x-systemd.automount needs.",
)
@click.option(
    "--set",
    "assigned",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting in place of recfs.conf's, such as quota.max_bytes=500GiB; may be given several times.",
)
@store_options
@click.pass_obj
def mount(
    invocation: Invocation,
    mountpoint: Path | None,
    detach: bool,
    existing: bool,
    verbose: bool,
    start_timeout: float,
    log_file: Path | None,
    same_group: bool,
    assigned: tuple[str, ...],
) -> None:
    """Mount a store and serve it until stopped.

    MOUNTPOINT defaults to `mountpoint` of recfs.conf. Where there is no store, a new one is made, unless `--existing`.
    A root with a catalogue, and with neither `users` nor `shared` nor `temp`, is refused: a disk of it is missing.
    `recfs mount --root DIR MOUNTPOINT` needs no config file. A setting can also come from the environment
    ($RECFS_QUOTA__MAX_BYTES), which goes before the file, and from `--set`, which goes before both.
    Ctrl-C and SIGTERM stop it cleanly.

    With `-d`, a store that is mounted there already stays so: exit code 0, and its settings are those of its start. A
    daemon that cannot start has its message, its exit code and, with `--json`, the kind of its error repeated.
    """
    from recfs.config import ENV_CONFIG, find_settings

    options = _options(existing=existing, verbose=verbose, log_file=log_file, assigned=assigned)
    if invocation.config is None and invocation.root is None:
        cwd.named_in(ENV_CONFIG)
    settings = find_settings(invocation.config, invocation.root, os.environ, options=options)
    config = settings.config
    chosen = mountpoint or config.mountpoint
    if chosen is None:
        raise click.UsageError("no mount point: give MOUNTPOINT, or set `mountpoint` in recfs.conf")
    target = resolve(chosen)
    from recfs.stores import presence

    presence.require(config.root, existing=config.existing)  # before a log is begun there
    _require_disk(config.root)
    if detach:
        log = config.log.file or config.root / INTERNAL_DIR / "log"
        if (pid := _served_by(config.root, target)) is not None:
            _tell(invocation, config, target, pid, log, "is mounted already")
            return
        _require_steady(invocation)
        command = _command(invocation, target, log, existing=existing, verbose=verbose, assigned=assigned)
        command[5:5] = ["--same-group"] * same_group
        pid = start_detached(command, log, timeout_s=start_timeout, new_session=not same_group)
        _tell(invocation, config, target, pid, log, "is mounted")
        return
    with failure_notified():
        set_up_logging(config.log.level, config.log.file)
        from recfs import daemon

        command = _command(invocation, target, log_file, existing=existing, verbose=verbose, assigned=assigned)
        os.environ.update(import_path())  # for that command
        # The daemon holds nobody's directory busy; every path it was given is absolute.
        os.chdir("/")
        daemon.run(settings, target, command, on_mounted=_leave_group if same_group else None)
    if invocation.json:
        output.emit_json({"root": str(config.root), "mountpoint": str(target), "stopped": True})


def _leave_group() -> None:
    """Be in a session of one's own from here on. Raises nothing: whoever leads a group stays in it."""
    with contextlib.suppress(PermissionError):
        os.setsid()


def _require_disk(root: Path) -> None:
    """Refuse a root in a recfs mount, whose fixed levels refuse what a store is made of. Raises StoreError."""
    around = mount_around(root)
    if around is not None:
        raise StoreError(
            f"the root {output.show_name(str(root))} lies in the recfs mount"
            f" {output.show_name(str(around.mount_point))}: a store has to be on a disk; choose another --root"
        )


def _require_steady(invocation: Invocation) -> None:
    """Refuse a config that only this process can read: the daemon reads it once more. Raises ConfigError."""
    from recfs.config import ENV_CONFIG

    named = invocation.config
    if named is None and invocation.root is None and ENV_CONFIG in os.environ:
        named = Path(os.environ[ENV_CONFIG])
    if named is None:
        return
    path = str(cwd.absolute(named))
    passing = _names_a_descriptor(path) or os.path.realpath(path).startswith("/proc/")
    if path == os.devnull or (os.path.isfile(path) and not passing):
        return
    raise ConfigError(
        f"{output.show_name(path)}: with -d the daemon reads the configuration once more, and this is no regular file; "
        f"write it into one, or leave out -d"
    )


def _names_a_descriptor(path: str) -> bool:
    """Whether a path leads to what this process has open, which is something else in another (/dev/stdin, proc(5))."""
    for _ in range(LINKS_MAX):
        if path.startswith(("/dev/fd/", "/proc/")):
            return True
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break
    return False


def _options(*, existing: bool, verbose: bool, log_file: Path | None, assigned: tuple[str, ...]) -> "Options":
    """What the command line says of settings. Raises UsageError, ConfigError."""
    from recfs.config import Options, assignment

    said: dict[tuple[str | int, ...], tuple[str, Any]] = {}
    for each in assigned:
        location, value = assignment(each)
        said[location] = "--set", value
    if existing:
        said["existing",] = "--existing", True
    if verbose:
        said["log", "level"] = "--verbose", "debug"
    if log_file is not None:
        said["log", "file"] = "--log-file", str(cwd.absolute(log_file))
    return Options(said)


def _command(
    invocation: Invocation, target: Path, log: Path | None, *, existing: bool, verbose: bool, assigned: tuple[str, ...]
) -> list[str]:
    """What starts the same daemon from any working directory."""
    # -P: the daemon, often root, must not import what lies in somebody's working directory.
    command = [sys.executable, "-P", "-m", "recfs", "mount"]
    if log is not None:
        command += ["--log-file", str(cwd.absolute(log))]
    for option, value in (("--config", invocation.config), ("--root", invocation.root)):
        if value is not None:
            command += [option, str(cwd.absolute(value))]
    for each in assigned:
        command += ["--set", each]
    command += (
        ["--existing"] * existing + ["--verbose"] * verbose + ["--debug"] * invocation.debug + ["--", str(target)]
    )
    return command


def _served_by(root: Path, target: Path) -> int | None:
    """The process that serves this store on that mount point, where one does; None in every other case."""
    from recfs.api.client import ControlClient
    from recfs.fuse.mounting import KIND, mounted_type

    try:
        status = ControlClient(root / INTERNAL_DIR / "control.sock", _ANSWER_S).call("status")
    except (RecfsError, OSError):
        return None
    there = status.get("mountpoint") == str(target) and mounted_type(target) == KIND
    return int(status["pid"]) if there else None


def _tell(invocation: Invocation, config: "Config", target: Path, pid: int, log: Path, what: str) -> None:
    if invocation.json:
        output.emit_json({"root": str(config.root), "mountpoint": str(target), "pid": pid, "log": str(log)})
    else:
        output.say(
            f"{output.show_name(str(config.root))} {what} on {output.show_name(str(target))} "
            f"(pid {pid}, log {output.show_name(str(log))})"
        )
