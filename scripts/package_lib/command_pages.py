"""Man pages of the commands, from what they say of themselves in `--help`."""

from collections.abc import Callable, Iterator

import click

from recfs import __version__
from recfs.cli.common.exits import MEANING
from recfs.cli.common.help import Command, Group
from recfs.cli.main import cli
from scripts.package_lib.roff import Page

SHARED = frozenset({"root", "config", "json", "debug"})
"""Options of every command, which recfs(1) explains."""
MANUAL = "recfs"
FILES = {
    "/etc/recfs/recfs.conf": "The settings of a store, where no others are named. See `recfs.conf`(5).",
    "ROOT/.recfs/": "What recfs keeps of the store in ROOT: the catalogue, what is being written, the trash, the log of"
    " `recfs mount -d`.",
}
ENVIRONMENT = {"RECFS_CONFIG": "The settings to use where neither `--config` nor `--root` names a store."}


def pages(date: str) -> dict[str, str]:
    """Every page by its file's name: recfs.1, and one for each word that may follow `recfs`."""
    made = {"recfs.1": _overview(date)}
    for name, command in sorted(cli.commands.items()):
        assert isinstance(command, Command)
        made[f"recfs-{name}.1"] = _page(name, command, date)
    return made


def brief(command: click.Command) -> str:
    """What a command does: the first sentence of its help, without its full stop."""
    return command.get_short_help_str(limit=10_000).rstrip(".")


def _begun(name: str, command: click.Command, date: str) -> Page:
    page = Page(name, 1, date=date, source=f"recfs {__version__}", manual=MANUAL)
    page.section("Name")
    page.paragraphs(f"{name} - {brief(command)}")
    return page


def _overview(date: str) -> str:
    page = _begun("recfs", cli, date)
    page.section("Synopsis")
    _usage(page, ("recfs",), cli)
    page.section("Description")
    page.paragraphs(cli.help or "")
    page.section("Commands")
    page.tagged((f"recfs-{name}(1)", brief(command)) for name, command in sorted(cli.commands.items()))
    page.section("Options of every command")
    page.tagged(_options(cli, shared=True))
    page.paragraphs(str(cli.sections["Options of every command"]))
    page.section("Values of options")
    values = {word: unit for _, command in cli.runnable() for word, unit in command.values().items()}
    page.tagged(iter(values.items()))
    for title, body in cli.sections.items():
        if title != "Options of every command":
            page.section(title)
            page.paragraphs(str(body))
    page.section("Exit status")
    page.tagged((str(code.value), meaning) for code, meaning in MEANING.items())
    for title, told in (("Environment", ENVIRONMENT), ("Files", FILES)):
        page.section(title)
        page.tagged(iter(told.items()))
    page.section("See also")
    page.paragraphs("`recfs.conf`(5), " + ", ".join(f"`recfs-{name}`(1)" for name in sorted(cli.commands)))
    return page.text


def _page(name: str, command: Command, date: str) -> str:
    page = _begun(f"recfs-{name}", command, date)
    parts = list(command.runnable((name,))) if isinstance(command, Group) else []
    page.section("Synopsis")
    if not isinstance(command, Group) or command.invoke_without_command:
        _usage(page, ("recfs", name), command)
    for path, each in parts:
        _usage(page, ("recfs", *path), each)
    page.section("Description")
    page.paragraphs(command.help or "")
    _about(page, command, page.section)
    if parts:
        page.section("Commands")
    for path, each in parts:
        page.subsection(" ".join(path[1:]))
        page.paragraphs(each.help or "")
        _about(page, each, lambda title: page.paragraphs(f"`{title}:`"))
    page.section("See also")
    page.paragraphs("`recfs`(1) for the options of every command and the exit status, `recfs.conf`(5)")
    return page.text


def _usage(page: Page, words: tuple[str, ...], command: click.Command) -> None:
    pieces = command.collect_usage_pieces(click.Context(command))
    page.paragraphs(f"`{' '.join(words)}` {' '.join(pieces)}")


def _about(page: Page, command: Command, begin: Callable[[str], None]) -> None:
    """Options, what their values are, and the sections of the help; *begin* writes a title."""
    if options := list(_options(command, shared=False)):
        begin("Options")
        page.tagged(iter(options))
    if values := command.values():
        begin("Values of options")
        page.tagged(iter(values.items()))
    for title, body in command.sections.items():
        if title:
            begin(title)
        if isinstance(body, str):
            page.paragraphs(body)
        else:
            page.tagged(iter(body.items()))
    if command.exits:
        begin("Exit status")
        page.tagged((str(int(code)), meaning) for code, meaning in command.exits.items())
    if command.example:
        begin("Example")
        page.literal(command.example)


def _options(command: click.Command, *, shared: bool) -> Iterator[tuple[str, str]]:
    context = click.Context(command)
    for option in command.params:
        if isinstance(option, click.Option) and (option.name in SHARED) is shared:
            record = option.get_help_record(context)
            if record is not None:
                yield record[0], record[1].replace("  [", " [")
