"""`recfs bucket`: whose the prefix in the bucket is, and taking it over."""

from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store
from recfs.core.ownership import LOST_REMEDY

_WORDS = {
    "ours": "it is this store's",
    "free": "it is nobody's yet; the first upload makes it this store's",
    "returned": "it is this store's, and was last used by a copy of it, or before the store was restored",
    "foreign": "it is another store's: nothing there is changed",
    "unknown": "it holds objects that this store knows nothing of: nothing there is changed",
    "followed": "a copy of this store has taken it into use: nothing there is changed",
    "lost": "this store's mark and objects are gone, it was emptied or is another one: nothing there is changed;"
    f" {LOST_REMEDY}",
}


_WAS = {
    "ours": ", as it was",
    "free": "; it was nobody's",
    "returned": "; a copy of it had used it",
    "foreign": "; it was another's, which changes nothing there any more",
    "unknown": "; there were objects that it knows nothing of",
    "followed": "; a copy of it had taken it into use",
    "lost": "; its mark and objects were gone, and those that nobody brings back stay so",
}


_REFUSED = """
$ recfs bucket claim --config /etc/recfs/main.conf
s3://media/studio/: it is another store's: nothing there is changed
last taken into use by the store /srv/recfs on studio1, id 77c459e2-4065-472f-b19c-0e6f85ce2e13, \
2026-11-28T11:42:40+00:00
not taken over: files of the other store, whose only bytes may be there, would be overwritten; --force takes it over \
all the same
"""


@click.group(cls=Group)
def bucket() -> None:
    """Show whose the prefix in the bucket is, or take it over."""


@bucket.command(
    "owner", exits={ExitCode.PROBLEMS: "it is not this store's, or its mark and objects are gone from there"}
)
@store_options
@click.pass_context
def owner(ctx: click.Context) -> None:
    """Show whose the prefix in the bucket is.

    Changes nothing, and works without a daemon, given the configuration: docs/s3.md, "One store for each prefix".
    """
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("bucket_owner")
    if invocation.json:
        output.emit_json(result)
    else:
        _say(result)
    if not result["usable"]:
        ctx.exit(ExitCode.PROBLEMS)


@bucket.command("claim", exits={ExitCode.PROBLEMS: "it is another's, and `--force` was not given"}, example=_REFUSED)
@click.option("--force", is_flag=True, help="Also when it is another store's.")
@store_options
@click.pass_context
def claim(ctx: click.Context, force: bool) -> None:
    """Make the prefix in the bucket this store's.

    Another's is taken over with `--force` alone, and the command says whose it was. From then on this store writes
    there, and the other one does not: objects under the names of its files are replaced, whosever they are. If the
    other store still has files whose bytes only S3 has, mount that one instead, or choose another prefix.
    """
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("bucket_claim", force=force)
    if invocation.json:
        output.emit_json(result)
    elif result["claimed"]:
        output.say(f"{output.show_name(result['url'])}: it is this store's now{_WAS[result['verdict']]}", style="green")
        _say_mark(result["owner"], "before that, ")
    else:
        _say(result)
        output.say(
            "not taken over: files of the other store, whose only bytes may be there, would be overwritten; "
            "--force takes it over all the same",
            style="yellow",
        )
    if not result["claimed"]:
        ctx.exit(ExitCode.PROBLEMS)


def _say(result: dict[str, Any]) -> None:
    output.say(f"{output.show_name(result['url'])}: {_WORDS[result['verdict']]}")
    _say_mark(result["owner"])


def _say_mark(mark: dict[str, Any] | None, when: str = "") -> None:
    if mark is not None:
        output.say(
            f"{when}last taken into use by the store {output.show_name(mark['root'])}"
            f" on {output.show_name(mark['host'])}, id {output.show_name(mark['store'])},"
            f" {output.show_name(mark['since'])}"
        )
