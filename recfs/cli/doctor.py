"""`recfs doctor`: what this machine lacks to run recfs, and how to give it that."""

import click
from rich.text import Text

from recfs.cli import output
from recfs.cli.checks import Check, Level
from recfs.cli.checks.bucket import bucket_checks
from recfs.cli.checks.disk import disk_checks
from recfs.cli.checks.host import PROC_STATUS, effective_capabilities, host_checks
from recfs.cli.checks.owner import store_id_at
from recfs.cli.checks.passthrough import here
from recfs.cli.checks.versions import version_checks
from recfs.cli.exits import ExitCode
from recfs.cli.options import Invocation, store_options
from recfs.cli.store import configured
from recfs.errors import ConfigError

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command()
@store_options
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check what this machine lacks, and say how to fix it.

    Kernel, FUSE, capabilities, disk, bucket and versions; each finding names its remedy.

    Exit code 1 when something fails; a warning is no failure.
    """
    invocation = ctx.ensure_object(Invocation)
    store = _store_checks(invocation)
    file_system = next((check.detail.partition(":")[0] for check in store if check.name == "file system"), None)
    fast = here(effective_capabilities(PROC_STATUS.read_text()), file_system)
    checks = [*host_checks(), *store, fast, *version_checks()]
    failed = any(check.level is Level.FAIL for check in checks)
    if invocation.json:
        output.emit_json({"ok": not failed, "checks": [check.as_dict() for check in checks]})
    else:
        _print(checks)
    if failed:
        ctx.exit(ExitCode.PROBLEMS)


def _store_checks(invocation: Invocation) -> list[Check]:
    try:
        config = configured(invocation)
    except ConfigError as exc:
        if invocation.root is not None or invocation.config is not None:
            raise
        remedy = "name a store with --root DIR or --config FILE to have its disk checked"
        return [Check("store", Level.WARN, str(exc), remedy)]
    far = bucket_checks(config.s3, store_id_at(config.root)) if config.s3 is not None else []
    return disk_checks(config.root, config.min_free) + far


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
    output.say(f"{counts[Level.OK]} ok, {counts[Level.WARN]} warnings, {counts[Level.FAIL]} failures")
