"""`recfs doctor`: what this machine lacks to run recfs, and how to give it that."""

from dataclasses import replace
from pathlib import Path

import click
from rich.text import Text

from recfs.api.client import ControlClient
from recfs.cli.checks import Check, Level
from recfs.cli.checks.bucket import bucket_checks
from recfs.cli.checks.disk import check_audit, check_backups, disk_checks
from recfs.cli.checks.features import Server, server_checks
from recfs.cli.checks.host import (
    PROC_STATUS,
    check_dead_mounts,
    check_descriptors,
    effective_capabilities,
    host_checks,
)
from recfs.cli.checks.media import media_checks
from recfs.cli.checks.owner import fact_at, own_store_at
from recfs.cli.checks.passthrough import here
from recfs.cli.checks.users import user_checks
from recfs.cli.checks.versions import version_checks
from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.last_daemon import left_behind
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import INTERNAL_DIR, in_effect, open_store
from recfs.config.media import MediaSection
from recfs.errors import ConfigError, ControlError

_ANSWER_S = 15.0
_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARN: "yellow", Level.FAIL: "bold red"}
_OUTCOME_STYLES = {"offered": "green", "not offered": "yellow", "wrong": "bold red", "not tried": ""}


_S3 = """
With `[s3]` it reaches for the bucket, compares the clocks, writes, reads and deletes one small object, and looks for
unfinished uploads older than a day. It uses the credentials of whoever runs it, so run it as the daemon's user. That
S3 is away is a warning, everything else about it a failure; that something else answers at `endpoint` (another port
of the server, its console, a web server) is said so. Then it tries what recfs asks of a server, and tells what it
does not do or does wrongly (docs/s3.md, "What a server has to offer"), and what that means for this configuration: a
failure where files would not be stored or not be found again, a warning where something that is configured does not
work, else a note, of which nothing has to be done:

\b
ok    s3            s3://media/studio/ at https://s3.example.org, region us-east-1, clocks differ by 0 s
ok    s3 access     s3://media/studio/: may write, read and delete
ok    s3 uploads    0 under way, none left over
ok    s3 prefix     s3://media/studio/: no store has taken it into use yet
ok    s3 server     offers 29 of 43 features; --s3-features names them
note  s3 server     archive classes: not offered (an object of class GLACIER is served at once, like any other): \
GLACIER and DEEP_ARCHIVE are labels there: such objects are read at once, like all others, and cost as much
                    -> name no archive class in [s3], [[route]] or [lifecycle] with this server

All of it is done below the prefix, in `.recfs/doctor-…/`, where no file's object can be: three hundred requests, one
upload of 5 MiB, some dozen small objects, all removed again, also from a bucket that keeps versions, and after Ctrl-C
or SIGTERM. What a killed doctor leaves the next one removes that comes an hour later. It also puts an empty object
into a bucket `recfs-doctor-…` that does not exist, and removes what comes of it; and a lifecycle rule for keys that
nobody has, where the bucket has no rules of others. It never takes more than two minutes, and what was not tried
until then is said. In a bucket that locks new objects for a time nothing is tried, for it would stay there. What it
costs at AWS is a fraction of a cent: some objects are of the classes STANDARD_IA and GLACIER, and of those of the
configuration, which have a shortest time of storage.
"""
_EXAMPLE = """
$ recfs doctor --root /srv/recfs
ok    kernel        Linux 6.18.44
ok    /dev/fuse     can be opened
ok    fusermount3   /usr/bin/fusermount3
ok    allow_other   root needs no permission for it
ok    capabilities  CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SYS_ADMIN
ok    open files    20,000 at most
fail  mount         /mnt/recordings is a dead mount, of this store
                    -> recfs umount /mnt/recordings
ok    root          /srv/recfs is writable
ok    user xattrs   supported
ok    file system   ext4
ok    free space    79.4 GiB free, reserve (min_free) 1 GiB
ok    passthrough   the kernel can read and write files by itself
ok    confinement   ffprobe and ffmpeg are held by Landlock, seccomp, a network namespace, an ordinary user
ok    media user    recfs-media (uid 998)
ok    python        3.11.7
ok    pyfuse3       3.5.0
ok    libfuse       3.14.0
ok    sqlite        3.40.1
ok    ffmpeg        5.1.9-0+deb12u1 (/usr/bin/ffmpeg)
ok    ffprobe       5.1.9-0+deb12u1 (/usr/bin/ffprobe)
19 ok, 0 warnings, 1 failure
"""


@click.command(
    cls=Command,
    exits={ExitCode.PROBLEMS: "something fails; a warning is no failure"},
    sections={"S3": _S3},
    example=_EXAMPLE,
)
@click.option(
    "--s3-features",
    is_flag=True,
    help="Also list everything that was tried of the S3 server, with its outcome (`s3_features` in JSON).",
)
@store_options
@click.pass_context
def doctor(ctx: click.Context, s3_features: bool) -> None:
    """Check what this machine and the bucket lack, and say how to fix it.

    Kernel, FUSE, capabilities, disk, bucket, versions, and with what programs that read media are confined. Each
    finding that is not ok names its remedy; a note needs nothing to be done. In a mount, or with `--root`, a daemon
    that runs tells its own settings and limits. A dead mount of another store is a warning, of this one a failure.
    """
    invocation = ctx.ensure_object(Invocation)
    store, root, server, media_user = _store_checks(invocation)
    file_system = next((check.detail.partition(":")[0] for check in store if check.name == "file system"), None)
    fast = here(effective_capabilities(PROC_STATUS.read_text()), file_system)
    dead = check_dead_mounts(left_behind(root) if root is not None else None)
    checks = [*host_checks(), *dead, *store, fast, *media_checks(media_user), *version_checks()]
    failed = any(check.level is Level.FAIL for check in checks)
    if invocation.json:
        features = {"s3_features": server.as_list()} if s3_features else {}
        output.emit_json({"ok": not failed, "checks": [check.as_dict() for check in checks], **features})
    else:
        _print(checks)
        if s3_features:
            _print_features(server)
    if failed:
        ctx.exit(ExitCode.PROBLEMS)


def _store_checks(invocation: Invocation) -> tuple[list[Check], Path | None, Server, str]:
    """What is found about the store that is meant, its root (None: none is), its S3 server, and its `[media] user`."""
    try:
        config, daemon = in_effect(invocation)[0], []
    except ConfigError as exc:
        if invocation.root is not None or invocation.config is not None:
            raise
        remedy = "name a store with --root DIR or --config FILE to have its disk checked"
        return [Check("store", Level.WARN, str(exc), remedy)], None, Server([]), MediaSection().user
    except ControlError as exc:
        config = open_store(invocation).config
        remedy = "run it as the daemon's user or root; until then its own settings, and its bucket, are not looked at"
        daemon = [Check("daemon", Level.WARN, str(exc), remedy)]
    far = (
        bucket_checks(config.s3, own_store_at(config.root)) if config.s3 is not None else _without_settings(config.root)
    )
    is_reached = bool(far) and config.s3 is not None and all(check.level is not Level.FAIL for check in far[:2])
    server = server_checks(config) if is_reached and far[0].level is Level.OK else Server([])
    near = check_daemon(config.root) + disk_checks(config.root, config.min_free) + user_checks(config)
    near += check_backups(config.root, config.backup.directory)
    near += check_audit(config.audit.directory if config.audit.enabled else None)
    return daemon + near + far + server.checks, config.root, server, config.media.user


def _without_settings(root: Path) -> list[Check]:
    """Say that the bucket of a store is not looked at, where only its catalogue knows that it has one."""
    url = fact_at(root, "s3")
    if url is None:
        return []
    return [Check("s3", Level.WARN, f"{url} is not looked at: no [s3] in effect", "name the store's --config FILE")]


def check_daemon(root: Path) -> list[Check]:
    """Judge what a running daemon was given, which need not be what one started from here would get."""
    try:
        limit = ControlClient(root / INTERNAL_DIR / "control.sock", _ANSWER_S).call("settings")["max_descriptors"]
    except ControlError:
        return []
    found = check_descriptors(limit)
    return [replace(found, detail=f"{found.detail} (the daemon that runs)")]


def _print(checks: list[Check]) -> None:
    out = output.console()
    width = max(len(check.name) for check in checks)
    for check in checks:
        line = Text.assemble(
            (f"{check.level:<4}", _STYLES[check.level]),
            f"  {check.name:<{width}}  ",
            output.show_name(check.detail),
        )
        out.print(line, soft_wrap=True)
        if check.remedy:
            out.print(Text(f"{'':4}  {'':{width}}  -> {output.show_name(check.remedy)}"), soft_wrap=True)
    counts = {level: sum(check.level is level for check in checks) for level in Level}
    told = [f"{counts[Level.OK]} ok"]
    for level, word in ((Level.WARN, "warning"), (Level.FAIL, "failure")):
        told.append(output.number_of(counts[level], word))
    if counts[Level.NOTE]:
        told.append(output.number_of(counts[Level.NOTE], "note"))
    output.say(", ".join(told))


def _print_features(server: Server) -> None:
    click.echo()
    if not server.findings:
        output.say("the features of the S3 server were not tried", style="yellow")
        return
    output.print_table(
        ("S3 feature", "Outcome", "What was seen"),
        [
            (
                each.feature.name,
                Text(each.outcome.value, style=_OUTCOME_STYLES[each.outcome]),
                output.show_name(each.detail),
            )
            for each in server.findings
        ],
    )
