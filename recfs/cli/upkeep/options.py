"""Options of several commands."""

import click

from recfs.cli.common.params import ANY_PATH

IDENTITY = click.option(
    "--identity", type=ANY_PATH, metavar="FILE", help="A file with the secret key, as `age-keygen` writes it."
)
