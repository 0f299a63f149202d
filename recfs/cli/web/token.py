"""`recfs token`: who may use the gateway."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recfs.cli.common import output
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration, UserId
from recfs.cli.web.own import directory_meant, make_directory, told_of_disk
from recfs.core.dates import date_text

if TYPE_CHECKING:
    from recfs.web.who.tokens import Grant, Tokens

_COLUMNS = ("Id", "Role", "Users", "For", "Made", "Good until", "State")
_NS = 10**9
_LONGEST_S = 1e9
_DIRECTORY = click.option(
    "--directory", type=ANY_PATH, metavar="DIR", help="The gateway's own directory, in place of [serve].directory."
)
_ADDED = """
$ recfs token add --role user --user 5 --name "the encoder"
recfs_9c1f0e5a7b32_qh0T1oX0bX5l8r2vQ9k3mC7nZ4yW6uE1sA2dF5gH8jK
token 9c1f0e5a7b32: role user, of user 5; the line above is told this once
"""
_LISTED = """
$ recfs token list
Id            Role   Users  For          Made        Good until  State
9c1f0e5a7b32  user   5      the encoder  2026-11-30  for ever    good
"""
_REVOKED = """
$ recfs token revoke 9c1f0e5a7b32
token 9c1f0e5a7b32 is revoked, with its sessions and links
"""


@click.group(cls=Group)
def token() -> None:
    """Say who may use the gateway (`recfs serve`), as what, and for whose files.

    A token is for programs, which send it as `Authorization: Bearer TOKEN`, and for people, who log in with it once.
    It is kept hashed in `tokens.json` of [serve].directory. A gateway that runs heeds changes at once.
    """


@token.command(example=_ADDED)
@click.option(
    "--role", type=click.Choice(["admin", "user", "readonly"]), required=True,
    help="admin: everything, of all users; user: reading and writing files of its users; readonly: reading them.",
)  # fmt: skip
@click.option("--user", "users", type=UserId(), multiple=True, metavar="ID", help="For this user's files; repeatable.")
@click.option("--name", default="", metavar="TEXT", help="What it is for, to be known by in lists.")
@click.option("--expires", type=Duration(1.0, _LONGEST_S), metavar="DURATION", help="Good for so long; else for ever.")
@click.option(
    "--subject", metavar="NAME",
    help="Make no token: grant it to whom the proxy of [serve].subject_header calls so.",
)  # fmt: skip
@_DIRECTORY
@store_options
@click.pass_obj
def add(
    invocation: Invocation, role: str, users: tuple[str, ...], name: str, expires: float | None, subject: str | None,
    directory: Path | None,
) -> None:  # fmt: skip
    """Make a token, and print it: nobody can look it up later."""
    from recfs.web.who.tokens import Role

    expires_ns = None if expires is None else time.time_ns() + round(expires * _NS)
    directory = directory_meant(invocation) if directory is None else directory
    make_directory(directory)
    with told_of_disk(directory):
        grant, secret = _tokens(invocation, directory).add(Role(role), users, name, expires_ns, subject)
    if invocation.json:
        output.emit_json(grant.as_json() | {"token": secret})
        return
    if secret is not None:
        click.echo(secret)
    of = f", of user {', '.join(sorted(grant.users))}" if grant.users else ""
    told = "; the line above is told this once" if secret is not None else f", granted to {subject}"
    click.echo(output.show_name(f"token {grant.id}: role {grant.role.value}{of}{told}"), err=secret is not None)


@token.command("list", example=_LISTED)
@click.option("--all", "everything", is_flag=True, help="Also those that are revoked or have expired.")
@_DIRECTORY
@store_options
@click.pass_obj
def list_(invocation: Invocation, everything: bool, directory: Path | None) -> None:
    """List tokens: what they are for, not what they are."""
    now_ns = time.time_ns()
    found = [each for each in _tokens(invocation, directory).book().by_id.values() if everything or each.holds(now_ns)]
    if invocation.json:
        output.emit_json([each.as_json() | {"good": each.holds(now_ns)} for each in found])
    elif found:
        output.print_table(_COLUMNS, [_row(each, now_ns) for each in found])
    else:
        output.say("there are no tokens")


@token.command(example=_REVOKED)
@click.argument("token_id", metavar="ID")
@_DIRECTORY
@store_options
@click.pass_obj
def revoke(invocation: Invocation, token_id: str, directory: Path | None) -> None:
    """Take a token back, for good, with its sessions and links. ID is as `recfs token list` has it."""
    directory = directory_meant(invocation) if directory is None else directory
    with told_of_disk(directory):
        grant = _tokens(invocation, directory).revoke(token_id)
    if invocation.json:
        output.emit_json(grant.as_json())
    else:
        output.say(f"token {grant.id} is revoked, with its sessions and links")


def _tokens(invocation: Invocation, directory: Path | None) -> "Tokens":
    from recfs.web.who.tokens import TOKENS, Tokens

    return Tokens((directory_meant(invocation) if directory is None else directory) / TOKENS)


def _row(grant: "Grant", now_ns: int) -> tuple[Any, ...]:
    state = "revoked" if grant.revoked_ns is not None else "good" if grant.holds(now_ns) else "expired"
    made = date_text(grant.created_ns)[:10]
    until = "for ever" if grant.expires_ns is None else date_text(grant.expires_ns)
    name = grant.name if grant.subject is None else f"{grant.name} ({grant.subject})".strip()
    users = ", ".join(sorted(grant.users)) or "all"
    return (grant.id, grant.role.value, users, output.show_name(name), made, until, state)


__all__ = ["token"]
