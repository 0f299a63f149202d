"""What scripts/package puts beside the program.

`roff` writes man pages: `command_pages` each from what a command says of itself, `helper_page` that of
mount.recfs, `conf_page` that of recfs.conf
from recfs.conf.example. `share` has all of them and the shells' completions written below a directory.
"""
