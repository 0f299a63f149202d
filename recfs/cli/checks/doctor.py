"""`recfs doctor`: what this machine lacks to run recfs, and how to give it that."""

from dataclasses import replace
from pathlib import Path

import click
from rich.text import Text

from recfs.api.control import ControlClient
from recfs.cli.checks import Check, Level
from recfs.cli.checks.bucket import bucket_checks
from recfs.cli.checks.disk import disk_checks
from recfs.cli.checks.features import Server, server_checks
from recfs.cli.checks.host import (
    PROC_STATUS,
    check_dead_mounts,
    check_descriptors,
    effective_capabilities,
    host_checks,
)
from recfs.cli.checks.owner import fact_at, own_store_at
from recfs.cli.checks.passthrough import here
from recfs.cli.checks.versions import version_checks
from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.last_daemon import left_behind
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import INTERNAL_DIR, in_effect, open_store
from recfs.errors import ConfigError, ControlError

_ANSWER_S = 15.0
_STYLES = {Level.OK: "green", Level.NOTE: "cyan", Level.WARN: "yellow", Level.FAIL: "bold red"}
_OUTCOME_STYLES = {"offered": "green", "not offered": "yellow", "wrong": "bold red", "not tried": ""}


@click.command()
@click.option("--s3-features", is_flag=True, help="Also list everything that was tried of the S3 server.")
@store_options
@click.pass_context
def doctor(ctx: click.Context, s3_features: bool) -> None:
    """Check what this machine and the bucket lack, and say how to fix it.

    Kernel, FUSE, capabilities, disk, bucket and versions; each finding names its remedy.

    Exit code 1 when something fails; a warning is no failure, and a note needs nothing to be done.
    """
    invocation = ctx.ensure_object(Invocation)
    store, root, server = _store_checks(invocation)
    file_system = next((check.detail.partition(":")[0] for check in store if check.name == "file system"), None)
    fast = here(effective_capabilities(PROC_STATUS.read_text()), file_system)
    dead = check_dead_mounts(left_behind(root) if root is not None else None)
    checks = [*host_checks(), *dead, *store, fast, *version_checks()]
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


def _store_checks(invocation: Invocation) -> tuple[list[Check], Path | None, Server]:
    """What is found about the store that is meant, its root (None where none is), and its S3 server."""
    try:
        config, daemon = in_effect(invocation)[0], []
    except ConfigError as exc:
        if invocation.root is not None or invocation.config is not None:
            raise
        remedy = "name a store with --root DIR or --config FILE to have its disk checked"
        return [Check("store", Level.WARN, str(exc), remedy)], None, Server([])
    except ControlError as exc:
        config = open_store(invocation).config
        remedy = "run it as the daemon's user or root; until then its own settings, and its bucket, are not looked at"
        daemon = [Check("daemon", Level.WARN, str(exc), remedy)]
    far = (
        bucket_checks(config.s3, own_store_at(config.root)) if config.s3 is not None else _without_settings(config.root)
    )
    is_reached = bool(far) and config.s3 is not None and all(check.level is not Level.FAIL for check in far[:2])
    server = server_checks(config) if is_reached and far[0].level is Level.OK else Server([])
    near = check_daemon(config.root) + disk_checks(config.root, config.min_free)
    return daemon + near + far + server.checks, config.root, server


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
