"""The command line of scripts/old-tree."""

from __future__ import annotations

import os
from pathlib import Path

import click

from recfs.core.units import format_size

from .tree import Wishes, make

_DEFAULTS = Wishes()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("dest", type=click.Path(file_okay=False, path_type=Path))
@click.option("--users", type=click.IntRange(1), default=_DEFAULTS.users, show_default=True, help="So many users.")
@click.option(
    "--recordings",
    type=click.IntRange(1),
    default=_DEFAULTS.recordings,
    show_default=True,
    help="So many recordings, of some six files each.",
)
@click.option("--seed", type=int, default=_DEFAULTS.seed, show_default=True, help="The same seed makes the same tree.")
@click.option("--large", type=click.IntRange(0), default=0, show_default=True, help="So many large recordings besides.")
@click.option(
    "--large-mb",
    type=click.IntRange(1),
    default=_DEFAULTS.large_mb,
    show_default=True,
    help="Size of a large one, in MB of 10^6 bytes.",
)
@click.option(
    "--picture-width",
    type=click.IntRange(16, 2000),
    default=_DEFAULTS.picture_width,
    show_default=True,
    help="Of the 22 templates of thumbnails, which each user has copies of, in pixels.",
)
def main(dest: Path, users: int, recordings: int, seed: int, large: int, large_mb: int, picture_width: int) -> None:
    """Make an old media tree in DEST, with the platform's database, to try a migration on.

    Files are small real videos, sounds and pictures, no two alike unless they are meant to be. Beside DEST come
    DEST.truth.json, which says what is to become of each file, and DEST.outside, where links lead that leave the tree,
    with the table of recordings as CSV.

    Exit codes: 0 made, 1 not made, 2 usage error.
    """
    dest = dest.absolute()
    outside = dest.with_name(f"{dest.name}.outside")
    manifest = dest.with_name(f"{dest.name}.truth.json")
    for place in (dest, outside):
        if place.is_symlink():
            raise click.ClickException(f"{place} is a symbolic link: name the directory itself")
        if place.exists() and any(place.iterdir()):
            raise click.ClickException(f"{place} is there already, and is not empty")
    if os.path.lexists(manifest):
        raise click.ClickException(f"{manifest} is there already")
    try:
        truth = make(dest, outside, Wishes(users, recordings, seed, large, large_mb, picture_width))
        truth.write(manifest)
    except (OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{dest}: {len(truth.files):,} files of {users} users; what is to become of them:")
    for action, (files, size) in truth.counts().items():
        click.echo(f"  {action:<10} {files:>8,}  {format_size(size):>10}")
    click.echo(f"The database is {dest / 'data.db'}; the truth about each file is in {manifest}.")


if __name__ == "__main__":
    main()
