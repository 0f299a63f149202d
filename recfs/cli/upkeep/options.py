"""Options of several commands."""

import click

from recfs.cli.common.params import LocalPath

IDENTITY = click.option(
    "--identity", type=LocalPath(), metavar="FILE", help="A file with the secret key, as `age-keygen` writes it."
)
