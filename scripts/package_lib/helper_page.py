"""The man page mount.recfs(8), from what the helper knows."""

from recfs import __version__
from recfs.cli.mount_helper import EXITS, OF_MOUNT, OPTIONS, REASONS
from scripts.package_lib.roff import Page


def page(date: str) -> str:
    """The whole page."""
    page = Page("mount.recfs", 8, date=date, source=f"recfs {__version__}", manual="recfs")
    page.section("Name")
    page.paragraphs("mount.recfs - mount a recfs store, for mount(8) and /etc/fstab")
    page.section("Synopsis")
    page.literal("mount -t recfs ROOT DIR [-o OPTION[,OPTION]...]\nmount.recfs ROOT DIR [-sfnv] [-o OPTIONS] [-t TYPE]")
    page.section("Description")
    page.paragraphs(
        "`mount`(8) runs it for the type recfs. It starts a daemon for the store at ROOT in the background, and ends"
        " when the mount on DIR answers. `umount`(8) ends the daemon.\n\n"
        "A recfs mount is always nosuid and nodev. `remount` is refused: `recfs reload` takes up changed settings."
    )
    page.section("Options")
    page.tagged(iter(OPTIONS.items()))
    page.section("Options that change nothing")
    page.paragraphs(f"They are taken as they hold anyway, or are for others: {', '.join(sorted(OF_MOUNT))}.")
    page.section("Options that are refused")
    page.tagged((name, f"{why[0].upper()}{why[1:]}.") for name, why in REASONS.items())
    page.section("Exit status")
    page.tagged((str(code), meaning) for code, meaning in EXITS.items())
    page.section("Example")
    page.literal("/srv/recfs /mnt/recordings recfs config=/etc/recfs/recfs.conf,nofail,_netdev 0 0")
    page.section("See also")
    page.paragraphs("`mount`(8), `fstab`(5), `recfs-mount`(1), `recfs.conf`(5)")
    return page.text


__all__ = ["page"]
