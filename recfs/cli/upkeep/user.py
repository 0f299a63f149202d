"""`recfs user`: users who are told apart by uid."""

import pwd
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.commands import Commands
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import GID, UID, Mode, UserId
from recfs.cli.common.store import open_store

_COLUMNS = ("User", "Uid", "Gid", "Mode", "Used", "Files", "users/", "temp/")
_LISTED = """
$ recfs user list
User  Uid    Gid    Mode     Used  Files  users/  temp/
5     10005  10005  0700  1.5 GiB     12  ok      ok
7     10007  10007  2770      0 B      0  ok      missing
"""
_REMOVED = """
$ recfs user remove 5
recfs: user 5 has 12 files of 1,610,612,736 bytes: --delete removes them, --keep-files leaves them to root
$ recfs user remove 5 --delete
user 5: uid 10005 is free; 12 files of 1.5 GiB removed, users/5 and temp/5 with them
"""


_ELSEWHERE = Commands({"move": "recfs.cli.migration.move:move"})


@click.group(cls=Group, commands=_ELSEWHERE)
def user() -> None:
    """Tell users apart by uid.

    A user is an id that `users/<id>` and `temp/<id>` are named by, and whom quotas count. With `recfs user add` both
    directories belong to one uid, with a mode that keeps all others out. A user without that is as the directory's
    owner and mode have it, which is whoever made it.
    """


@user.command("list", example=_LISTED)
@click.option("--all", "everyone", is_flag=True, help="Also users who have a directory and no uid.")
@store_options
@click.pass_obj
def list_(invocation: Invocation, everyone: bool) -> None:
    """List users, their uids, and how their directories are.

    `ok` is a directory with that owner and mode. `differs` and `missing` say that somebody changed it: `recfs user
    add` sets it right. Of users without a uid, `closed` is a directory that its owner alone gets at, `shared` one
    that others do, too.
    """
    found = open_store(invocation).call("user_list", everyone=everyone)
    if invocation.json:
        output.emit_json(found)
    elif found:
        output.print_table(_COLUMNS, [_row(each) for each in found], right=("Used", "Files"))
    else:
        output.say("no users have a uid")


@user.command("add")
@click.argument("user", type=UserId())
@click.option("--uid", type=UID, metavar="UID", help="Of the user's processes; by default that of users/<id>.")
@click.option("--gid", type=GID, metavar="GID", help="By default the uid's group, else the same number as the uid.")
@click.option("--mode", type=Mode(), metavar="MODE", help="Of users/<id> and temp/<id>; by default 0700.")
@store_options
@click.pass_obj
def add(invocation: Invocation, user: str, uid: int | None, gid: int | None, mode: int | None) -> None:
    """Give USER a uid, and directories that no other uid gets at.

    `users/<id>`, its `recordings` and `thumbnails`, and `temp/<id>` are made, or given to that owner and mode; what
    lies below keeps its owners. From then on the user cannot change owner and mode of `users/<id>` and `temp/<id>`,
    both belong to the user whoever makes them, and so does what root makes in them. The last digit of MODE is 0: the
    others are kept out. With 2770 members of the group get in, such as a service.

    For a user who has a uid already, what is given is changed. The uid of an operator, or of another user, is refused.
    """
    if uid is not None and gid is None:
        gid = _group_of(uid)
    told = open_store(invocation).call("user_add", user=user, uid=uid, gid=gid, mode=mode)
    if invocation.json:
        output.emit_json(told)
        return
    output.say(f"user {told['user']}: uid {told['uid']}, gid {told['gid']}, mode {told['mode']}")
    for note in told["notes"]:
        output.say(note, style="yellow")


@user.command("remove", example=_REMOVED)
@click.argument("user", type=UserId())
@click.option("--delete", "files", flag_value="delete", help="Remove all files of the user as well.")
@click.option("--keep-files", "files", flag_value="keep", help="Leave them where they are, to root alone.")
@store_options
@click.pass_obj
def remove(invocation: Invocation, user: str, files: str | None) -> None:
    """Take USER's uid away, and the user's directories.

    A user who has files is refused, unless it is said what becomes of them. First `users/<id>` and `temp/<id>` are
    given to root with mode 0700, so that no process of the user gets in any more. With `--delete` everything in them
    is then removed as by rm(1): with a `[trash]` it can be had back for a time. Recordings that are kept, or have a
    date that has not come, are refused before anything is removed. With `--keep-files` all stays as it is, and is
    charged to the user as before. Last the uid is forgotten; limits, and how much was uploaded this month, stay known
    (`recfs quota show`).
    """
    told = open_store(invocation).call("user_remove", user=user, files=files)
    if invocation.json:
        output.emit_json(told)
        return
    uid = f"uid {told['uid']} is free" if told["uid"] is not None else "had no uid"
    removed = f"{output.number_of(told['removed_files'], 'file')} of {output.size(told['removed_bytes'])} removed"
    if told["left"]:
        kept = output.number_of(told["kept_files"], "file")
        output.say(f"user {told['user']}: {uid}; {kept} left to root in {' and '.join(told['left'])}")
    else:
        output.say(f"user {told['user']}: {uid}; {removed}, {_places(told['user'])} with them")


def _places(user: str) -> str:
    return f"users/{user} and temp/{user}"


def _group_of(uid: int) -> int:
    """The group that a user of this machine has; of one it does not know, the number of the uid."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    mapped = (told["uid"], told["gid"], told["mode"])
    places = []
    for top in ("users", "temp"):
        place = told["directories"][top]
        here = (
            f": {place['uid']}:{place['gid']} {place['mode']}"
            if place["state"] in ("differs", "shared", "closed")
            else ""
        )
        places.append(place["state"] + here)
    return (
        told["user"],
        *("-" if each is None else str(each) for each in mapped),
        output.size(told["used_bytes"]),
        output.count(told["used_files"]),
        *places,
    )
