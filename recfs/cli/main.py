"""The `recfs` command: the group, and the one place where an exception becomes a message and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from recfs import __version__
from recfs.cli.common import stdout
from recfs.cli.common.commands import Commands
from recfs.cli.common.exits import ExitCode, exit_code_of, help_epilog, kind_of
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.output import emit_json
from recfs.cli.common.stdout import CannotWrite
from recfs.core.naming import show_name
from recfs.errors import ConfigError, MountError, RecfsError

_COMMANDS = {
    "mount": "recfs.cli.mounts.mount:mount",
    "umount": "recfs.cli.mounts.umount:umount",
    "reload": "recfs.cli.mounts.reload:reload",
    "upgrade": "recfs.cli.mounts.upgrade:upgrade",
    "status": "recfs.cli.reports.status:status",
    "stats": "recfs.cli.reports.stats:stats",
    "ls-files": "recfs.cli.reports.files:ls_files",
    "info": "recfs.cli.reports.files:info",
    "quota": "recfs.cli.reports.quota:quota",
    "user": "recfs.cli.upkeep.user:user",
    "recording": "recfs.cli.upkeep.recording:recording",
    "sweep": "recfs.cli.upkeep.leftovers:sweep",
    "trash": "recfs.cli.upkeep.trash:trash",
    "watch": "recfs.cli.upkeep.watch:watch",
    "verify": "recfs.cli.upkeep.verify:verify",
    "backup": "recfs.cli.upkeep.backup:backup",
    "derive": "recfs.cli.media.derive:derive",
    "chunks": "recfs.cli.media.chunks:chunks",
    "probe": "recfs.cli.media.probe:probe",
    "restore-catalogue": "recfs.cli.upkeep.restore_catalogue:restore_catalogue",
    "rebuild": "recfs.cli.upkeep.rebuild:rebuild",
    "migrate": "recfs.cli.migration.migrate:migrate",
    "export": "recfs.cli.migration.export:export",
    "import": "recfs.cli.migration.import_:import_",
    "drain": "recfs.cli.work.drain:drain",
    "queue": "recfs.cli.work.queue:queue",
    "serve": "recfs.cli.web.serve:serve",
    "token": "recfs.cli.web.token:token",
    "events": "recfs.cli.observe.events:events",
    "audit": "recfs.cli.observe.audit:audit",
    "top": "recfs.cli.observe.top:top",
    "next-version": "recfs.cli.reuse.versions:next_version",
    "versions": "recfs.cli.reuse.versions:versions",
    "cache": "recfs.cli.reuse.cache:cache",
    "duplicates": "recfs.cli.reuse.duplicates:duplicates",
    "evict": "recfs.cli.s3.copies:evict",
    "fetch": "recfs.cli.s3.copies:fetch",
    "pin": "recfs.cli.s3.copies:pin",
    "unpin": "recfs.cli.s3.copies:unpin",
    "route": "recfs.cli.s3.routes:route",
    "tier": "recfs.cli.s3.routes:tier",
    "restore": "recfs.cli.s3.bucket:restore",
    "presign": "recfs.cli.s3.bucket:presign",
    "lifecycle": "recfs.cli.s3.bucket:lifecycle",
    "bucket": "recfs.cli.s3.claim:bucket",
    "config": "recfs.cli.reports.config:config_group",
    "doctor": "recfs.cli.checks.doctor:doctor",
}
"""Where each is; a command line loads its own."""

_SECTIONS = {
    "With a daemon, and without": """
    With a daemon running, the daemon answers; only its own user and root may ask it. Without one, `status`, `stats`,
    `ls-files`, `info`, `quota show`, `quota check`, `user list`, `recording list`, `recording show`, `queue` and
    `route explain` read the catalogue as the last daemon left it, and `quota set`, `quota check --repair`, `sweep
    temp`, `sweep expired`, `verify`, `chunks` and the others of `user` and `recording` open the store for a time
    themselves. Name the configuration then: a store found by `--root` alone has the default limits, no S3, and a trash
    of which nothing is given up. `bucket owner` and `bucket claim` ask S3 without a daemon, too; `drain` and everything
    else that asks S3 need one.

    A command that waits for the daemon or for S3 says so on standard error after 3 s, and what S3 said last; a question
    (`bucket`, `lifecycle`, `presign`, `restore`) ends after 30 s with exit code 8.
    """,
    "Options of every command": """
    They may stand before or after the command's name. `recfs --version` shows the version, `--help` (or `-h`)
    explains any command. `recfs --json --version` prints `{"version": ...}`.
    """,
    "JSON": """
    With `--json` a command prints one document; an error is one too, besides the message on standard error:

    \b
    $ recfs --json umount /mnt/recordings
    recfs: 1 file is open: users/5/recordings/142/video.mp4
    close them, or use --force
    {
      "error": {
        "kind": "MountError",
        "message": "1 file is open: users/5/recordings/142/video.mp4\\nclose them, or use --force",
        "exit_code": 5
      }
    }

    `events` and `audit` print one line for each event or act instead, so that a program can read them as they come.

    Sizes are bytes (`*_bytes`), times nanoseconds since 1970 (`*_ns`) or seconds (`*_s`), no limit is `null`. Output is
    ASCII; bytes of names that are not UTF-8 appear as `\\udc80` to `\\udcff`, which Python's `os.fsencode` turns back.
    """,
}


class RecfsGroup(Group):
    """A group whose `main` answers every exception itself: click knows one exit code, recfs has more."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line and leave with its exit code (returned instead when not `standalone_mode`)."""
        invocation = Invocation()
        extra.setdefault("obj", invocation)
        try:
            left_with = super().main(args, prog_name or "recfs", complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
            code = left_with if isinstance(left_with, int) else ExitCode.OK
        except BrokenPipeError as exc:
            code = exit_code_of(exc)
            _silence_stdout()
        except Exception as exc:
            code = exit_code_of(exc)
            try:
                _report(exc, code, invocation)
            except (OSError, CannotWrite):
                _silence_stdout()  # the exit code is all that is left to say it with
            if isinstance(exc, CannotWrite):
                _silence_stdout()
        if standalone_mode:
            sys.exit(int(code))
        return int(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a broken pipe goes on to `main`, where click would turn it into exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _silence_stdout()
            ctx.exit(ExitCode.BROKEN_PIPE)


def _silence_stdout() -> None:
    # The interpreter flushes stdout once more at exit and would complain about the same pipe, or full disk.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives until the process ends


def _report(exc: Exception, code: int, invocation: Invocation) -> None:
    if invocation.debug and not isinstance(exc, click.Abort):
        traceback.print_exception(exc)
    if isinstance(exc, NoArgsIsHelpError):
        click.echo(exc.format_message(), err=True)
        if invocation.json:
            emit_json({"error": {"kind": kind_of(exc), "message": "no command is given", "exit_code": int(code)}})
        return
    if isinstance(exc, click.Abort):
        message = "interrupted"
    elif isinstance(exc, click.ClickException):
        message = exc.format_message()
    elif isinstance(exc, RecfsError):
        message = str(exc) or type(exc).__name__
    else:
        hint = "" if invocation.debug else "; run it again with --debug for the traceback"
        message = f"internal error: {type(exc).__name__}: {exc}{hint}"
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        click.echo(exc.ctx.get_usage(), err=True)
        click.echo(f"Try '{exc.ctx.command_path} --help'.", err=True)
    click.echo(f"recfs: {_printable(exc, message)}", err=True)
    if invocation.json and not isinstance(exc, CannotWrite):
        emit_json({"error": {"kind": kind_of(exc), "message": message, "exit_code": int(code)}})


def _printable(exc: Exception, message: str) -> str:
    """A message for a terminal. It may quote names of files, and a file may be called anything.

    What has lines of its own quotes none that is not fit to be shown: these are kept.
    """
    lines = message.split("\n") if isinstance(exc, (click.ClickException, ConfigError, MountError)) else [message]
    return "\n".join(map(show_name, lines))


def _version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    if ctx.ensure_object(Invocation).json:
        emit_json({"version": __version__})
    else:
        click.echo(f"recfs {__version__}")
    ctx.exit()


@click.group(
    "recfs",
    cls=RecfsGroup,
    commands=Commands(_COMMANDS),
    epilog=help_epilog(),
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, expose_value=False, callback=_version, help="Show the version and exit.")
@store_options
def cli() -> None:
    """A file system for media recordings.

    A command finds its store by a PATH inside the mount (or on the store's disk), else by `--root` or `--config`,
    else by the working directory if that is in a mount, else by `$RECFS_ROOT` or
    `$RECFS_CONFIG`, else by `/etc/recfs/recfs.conf`.
    """


def main() -> None:
    """Run the command line; the console entry point."""
    _have_standard_streams()
    stdout.take_over()
    cli.main()


def _have_standard_streams() -> None:
    """Give a program that was started with closed descriptors 0 to 2 the null device there.

    Else the next file that is opened, the log or a socket, is taken for standard output (stdin(3)).
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(fd, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - lives until the process ends
