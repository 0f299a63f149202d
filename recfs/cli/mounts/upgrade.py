"""`recfs upgrade`: have another process go on with the mount, from the files of recfs that lie on the disk now."""

import time
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import Store, open_store
from recfs.errors import ControlError, DaemonNotRunning, MountError

_SERVED_S = 120.0
"""How long the next daemon may take to answer, from when the last one let go."""
_LOOK_S = 0.02


_EXITS = {
    ExitCode.MOUNT: "the new process did not go on with the mount; the daemon that was there does",
    ExitCode.REFUSED: "this mount cannot be left to another process now, or at all",
}
_EXAMPLE = """
$ recfs upgrade --root /srv/recfs
/mnt/recordings: process 21402 goes on (was 19554), with 16 open files; requests waited 0.14 s
"""


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@store_options
@click.pass_obj
def upgrade(invocation: Invocation) -> None:
    """Have a new process go on with the mount, while programs record.

    For after an update of recfs, or of its configuration: the daemon starts the command it was started by once more,
    with the files that lie on the disk now. When that is prepared, requests wait for a moment; open files and their
    writers go on, also what the kernel reads and writes by itself, and are sealed in the end as if nothing had
    happened. The mount is never gone.

    Should the new process not come to serve, the old one goes on, and the reason is told. It refuses while files are
    read that are being fetched from S3, or copied for a user, for more than 30 s; and where requests cannot be sent
    again by the kernel (before Linux 6.9). What the mount was made with takes a new mount: its options, `passthrough`,
    its place. Other commands that the daemon works on are broken off, as by a stop. So is the command of `[notify]`:
    it is killed, and the new process runs it once more for the same events, which are given to it at least once, not
    just once.

    A process in a terminal's foreground leaves it. Under systemd the unit goes on with the new process.
    """
    store = open_store(invocation)
    before = store.call("status")
    pid = int(store.call("upgrade")["pid"])
    began = time.monotonic()
    told = _until_served(store, began)
    waited_s = time.monotonic() - began
    if told["pid"] != pid:
        raise MountError(f"{told['refused'] or 'the new process did not go on'}; process {told['pid']} still serves")
    after = store.call("status")
    if invocation.json:
        output.emit_json(
            {
                "mountpoint": after["mountpoint"],
                "pid": pid,
                "was_pid": before["pid"],
                "version": after["version"],
                "was_version": before["version"],
                "open_files": len(after["open_files"]),
                "waited_s": round(waited_s, 3),
            }
        )
        return
    version = f", version {after['version']} after {before['version']}" if after["version"] != before["version"] else ""
    output.say(
        f"{output.show_name(str(after['mountpoint']))}: process {pid} goes on (was {before['pid']}){version}, with "
        f"{output.number_of(len(after['open_files']), 'open file')}; requests waited {waited_s:.2f} s"
    )


def _until_served(store: Store, began: float) -> dict[str, Any]:
    """Wait until a daemon answers, and return what it says of the handover. Raises MountError."""
    while time.monotonic() - began < _SERVED_S:
        try:
            told: dict[str, Any] = store.client().call("upgraded")
        except (DaemonNotRunning, ControlError):  # between the two
            time.sleep(_LOOK_S)
        else:
            if not told["leaving"]:
                return told
            time.sleep(_LOOK_S)
    raise MountError(f"no daemon of {store.root} answers since {_SERVED_S:g} s; its log tells why")
