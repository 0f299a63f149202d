"""Writes below a directory what a system's shells and man(1) look for, in the places below /usr/share where they do."""

import sys
import time
from pathlib import Path

from click.shell_completion import get_completion_class

from recfs.cli.main import cli
from scripts.package_lib import command_pages, conf_page, helper_page

COMPLETIONS = {
    "bash": "bash-completion/completions/recfs",
    "zsh": "zsh/site-functions/_recfs",
    "fish": "fish/vendor_completions.d/recfs.fish",
}


def files(source: Path, date: str) -> dict[str, str]:
    """Every file by its place. *source*: the tree of the sources; *date*: what the pages say, YYYY-MM-DD."""
    found = {place: _completion(shell) for shell, place in COMPLETIONS.items()}
    found |= {f"man/man1/{name}": text for name, text in command_pages.pages(date).items()}
    found["man/man5/recfs.conf.5"] = conf_page.page(source / "recfs.conf.example", date)
    found["man/man8/mount.recfs.8"] = helper_page.page(date)
    return found


def _completion(shell: str) -> str:
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"click has no completions for {shell}")
    return kind(cli, {}, "recfs", "_RECFS_COMPLETE").source()


def main() -> None:
    """SOURCE SHARE EPOCH: write all of them below SHARE, dated by the seconds since 1970 that EPOCH says."""
    source, share, epoch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for place, text in files(source, time.strftime("%Y-%m-%d", time.gmtime(epoch))).items():
        path = share / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
