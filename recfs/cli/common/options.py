"""Options every command shares, and the `Invocation` they fill; good before and after the command's name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from recfs.cli.common import cwd

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Invocation:
    """What was said on this command line apart from the command itself."""

    json: bool = False
    debug: bool = False
    root: Path | None = None
    config: Path | None = None


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    # Not set here must not undo what was set before the command's name.
    if value is not None and value is not False and param.name is not None:
        if isinstance(value, Path):
            cwd.absolute(value)  # refuses what leads nowhere
        setattr(ctx.ensure_object(Invocation), param.name, value)
    return value


def common_options(command: F) -> F:
    """Add --json and --debug."""
    command = click.option("--debug", is_flag=True, expose_value=False, callback=_remember, help="Show tracebacks.")(
        command
    )
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,  # --version asks for it
        expose_value=False,
        callback=_remember,
        help="One JSON document on standard output, also for errors.",
    )(command)


def store_options(command: F) -> F:
    """Add --root and --config, and what `common_options` adds."""
    command = common_options(command)
    command = click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help="Use this recfs.conf.",
    )(command)
    return click.option(
        "--root",
        type=click.Path(path_type=Path),
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="Use the store at DIR, or behind the mount DIR is in; replaces the root of --config.",
    )(command)
