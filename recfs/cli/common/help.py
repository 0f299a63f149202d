"""Help in full: commands that tell their exit codes, words and an example, in a terminal and in docs/commands.md."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import click

Section = str | Mapping[str, str]
"""Paragraphs, those that begin with \\b as they are; or words and what they mean."""


class Command(click.Command):
    """A command with sections of help after its options."""

    def __init__(
        self, *args: Any, exits: Mapping[int, str] | None = None, sections: Mapping[str, Section] | None = None,
        example: str = "", **rest: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **rest)
        self.exits = exits or {}
        """What exit codes mean of this command in particular."""
        self.sections = {
            title: inspect.cleandoc(body) if isinstance(body, str) else body for title, body in (sections or {}).items()
        }
        """By title; "" has more paragraphs without one."""
        self.example = inspect.cleandoc(example)

    def values(self) -> dict[str, str]:
        """How the values of this command's options are written, by the word that stands for each."""
        return {
            (each.metavar or each.type.name.upper()): unit
            for each in self.params
            if (unit := getattr(each.type, "unit", None)) is not None
        }

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, then the epilog."""
        for title, body in self._all_sections():
            if not title:
                formatter.write_paragraph()
            with formatter.section(title) if title else formatter.indentation():
                if isinstance(body, str):
                    formatter.write_text(body)
                else:
                    formatter.write_dl(list(body.items()))
        super().format_epilog(ctx, formatter)

    def _all_sections(self) -> Iterator[tuple[str, Section]]:
        if values := self.values():
            yield "Values", values
        yield from self.sections.items()
        if self.exits:
            yield "Exit codes", {str(int(code)): meaning for code, meaning in self.exits.items()}
        if self.example:
            yield "Example", "\b\n" + self.example.replace("\n\n", "\n\n\b\n")


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def runnable(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
        """Every command below that does something by itself, with the words that call it."""
        for name, each in self.commands.items():
            if not isinstance(each, Command):
                raise TypeError(f"{name}: every command is made by this group, or one in it")
            if not isinstance(each, Group) or each.invoke_without_command:
                yield (*path, name), each
            if isinstance(each, Group):
                yield from each.runnable((*path, name))
