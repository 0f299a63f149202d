"""`recfs serve`: the gateway."""

import errno
import ipaddress
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import INTERNAL_DIR, configured
from recfs.cli.common.where import mount_around, root_behind
from recfs.cli.web.own import make_directory
from recfs.errors import Busy, ConfigError, MountError

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.web.settings import Settings

_EXITS = {
    ExitCode.MOUNT: "nothing is mounted on MOUNTPOINT",
    ExitCode.CONFIG: "the configuration is wrong, or the extra `web` is not installed",
    ExitCode.REFUSED: "somebody else listens at that address",
}
_EXAMPLE = """
$ recfs serve --config /etc/recfs/main.conf
http://127.0.0.1:8080 serves /mnt/recordings
"""


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@click.argument("mountpoint", required=False, type=ANY_PATH)
@click.option("--listen", metavar="ADDRESS:PORT", help="In place of [serve].listen; port 0: one that is free.")
@click.option("--plain", is_flag=True, help="MOUNTPOINT is a plain directory with the same tree, and no mount.")
@store_options
@click.pass_obj
def serve(invocation: Invocation, mountpoint: Path | None, listen: str | None, plain: bool) -> None:
    """Serve the tree by HTTP: lists, downloads, uploads, signed links, and a page for browsers.

    MOUNTPOINT defaults to `mountpoint` of recfs.conf. It works on the mount as the user it runs as, who need not be
    root, and asks the daemon on the socket of [gateway]. [serve] in the configuration has its settings; who may do what
    is said with `recfs token`. It ends with SIGTERM, when what is under way has come to its end, 30 s later at the
    latest. It takes the extra `web`: scripts/setup --web in a checkout, or
    `pip install 'FILE[web]'` of the package that recfs came by.
    """
    try:
        from recfs.web.app import build, outside
        from recfs.web.context import context_for
        from recfs.web.serving import Serving
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"there is no {error.name}: `recfs serve` takes the extra `web`: scripts/setup --web in a checkout, else"
            f" pip install 'FILE[web]' of the package that recfs came by"
        ) from error
    config = _configured(invocation, mountpoint)
    where = _mount(config, mountpoint, plain=plain)
    settings = settings_of(config, where, mounted=not plain, listen=listen)
    logging.basicConfig(level=config.log.level.upper(), format="%(levelname)s %(name)s: %(message)s", force=True)
    make_directory(settings.directory)
    context = context_for(settings)
    context.trail.begin()
    app = outside(build(context))

    def tell(address: tuple[str, int]) -> None:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        if invocation.json:
            output.emit_json({"address": address[0], "port": address[1], "mountpoint": str(where)})
        else:
            output.say(f"http://{host}:{address[1]} serves {output.show_name(str(where))}")
        _notify_systemd()

    try:
        Serving(app, settings, tell, context.close).run()
    except OSError as error:
        message = f"cannot listen at {settings.host}, port {settings.port}: {error.strerror}"
        raise (Busy if error.errno == errno.EADDRINUSE else ConfigError)(message) from error
    finally:
        context.trail.close()


def _notify_systemd() -> None:
    import sdnotify

    sdnotify.SystemdNotifier().notify("READY=1")


def _configured(invocation: Invocation, mountpoint: Path | None) -> "Config":
    from recfs.config import config_for_root

    try:
        return configured(invocation)
    except ConfigError:
        # No file at all is needed, where the mount says which store it is.
        if invocation.config is not None or invocation.root is not None or mountpoint is None:
            raise
        mount = mount_around(mountpoint)
        root = root_behind(mount) if mount is not None else None
        return config_for_root(root or mountpoint / INTERNAL_DIR, os.environ)


def _mount(config: "Config", mountpoint: Path | None, *, plain: bool) -> Path:
    where = mountpoint if mountpoint is not None else config.mountpoint
    if where is None:
        raise MountError("no mount point is named: give MOUNTPOINT, or set mountpoint in recfs.conf")
    where = Path(os.path.abspath(where))
    if not plain:
        mount = mount_around(where)
        if mount is None or mount.mount_point != where.resolve():
            missing = f"{where}: nothing is mounted there"
            if "NOTIFY_SOCKET" not in os.environ:
                raise MountError(f"{missing}; `recfs mount` does that (or --plain serves a directory)")
            click.echo(f"recfs: {missing} yet; all answers are 503 until it is", err=True)  # as it is later on
    elif not where.is_dir():
        raise MountError(f"{where}: there is no such directory")
    return where


def settings_of(config: "Config", where: Path, *, mounted: bool, listen: str | None = None) -> "Settings":
    """Make the gateway's settings of the configuration. Raises ConfigError for an address that is none."""
    from recfs.config.metrics import address_of
    from recfs.web.settings import Settings

    section = config.serve
    try:
        host, port = address_of(section.listen if listen is None else listen)
    except ValueError as error:
        raise ConfigError(f"--listen {str(listen)[:60]!r}: {error}") from None
    return Settings(
        root=where, directory=section.directory, socket=_socket(config) if mounted else None, mounted=mounted,
        host=host, port=port, url=section.url, proxies=tuple(ipaddress.ip_network(each) for each in section.proxies),
        subject_header=section.subject_header or "", requests_per_s=float(section.requests_per_second),
        requests_burst=section.requests_burst, header_timeout_s=section.header_timeout,
        body_timeout_s=section.body_timeout, body_rate=section.body_rate, send_timeout_s=section.send_timeout,
        temp_max_age_s=config.temp.max_age,
        max_connections=section.max_connections, max_connections_per_address=section.max_connections_per_address,
        uploads_per_user=section.uploads_per_user, reads=section.read_threads, slow_reads=section.slow_read_threads,
    )  # fmt: skip


def _socket(config: "Config") -> Path | None:
    """The socket of [gateway]; else the store's own, for whoever may ask there."""
    if config.gateway.socket is not None:
        return config.gateway.socket
    own = config.root / INTERNAL_DIR / "control.sock"
    return own if os.access(own, os.W_OK) else None


__all__ = ["serve", "settings_of"]
