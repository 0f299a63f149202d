"""Which store a command means, and whether a daemon or the store's own files answer it. Decided here only."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recfs.api.client import ControlClient
from recfs.cli.common import cwd
from recfs.cli.common.methods import ASK_S3, LIVE_ONLY, LONG, LONG_S, TELL_THEMSELVES, WRITING
from recfs.cli.common.options import Invocation
from recfs.cli.common.where import DeadMount, mount_around, path_in_mount, resolve, root_behind
from recfs.core.naming import show_name
from recfs.errors import NO_S3, ConfigError, ControlError, DaemonNotRunning, InvalidPath, NotAStore, NotSupported

if TYPE_CHECKING:
    from recfs.config import Config, Settings
    from recfs.ports.reports import Reports, Snapshot

TOP_LEVELS = ("users", "shared", "temp")
INTERNAL_DIR = ".recfs"

_TIMEOUT_S = 60.0
"""Silence accepted from a daemon; a quota check over a million rows takes some ten seconds."""
_TIMEOUT_MARGIN_S = 15.0
_SETTINGS_S = 15.0
_QUIET_S = 3.0
"""So long a command that waits says nothing …"""
_LOOK_S = 10.0
"""… and then looks that often whether there is something else to say."""


class Store:
    """A store, answered for by its daemon when one runs, else by its files."""

    def __init__(self, root: Path, config: "Config | None" = None) -> None:
        """*config*: None has all defaults. They are loaded for those who ask for them: a daemon has its own."""
        self.root = root
        self._config = config

    @property
    def config(self) -> "Config":
        if self._config is None:
            from recfs.config import config_for_root

            self._config = config_for_root(self.root)
        return self._config

    def client(self, timeout_s: float = _TIMEOUT_S) -> ControlClient:
        """Return a client for the store's control socket; whether anybody listens shows at the first call.

        Who may not look for that one asks on the socket of [gateway], if there is one.
        """
        other = self._gateway()
        return ControlClient(other or self.root / INTERNAL_DIR / "control.sock", timeout_s)

    def _gateway(self) -> Path | None:
        """The second socket, where there is one and the store's own is not for this user."""
        other = self._config.gateway.socket if self._config is not None else None
        return other if other is not None and _is_hidden(self.root / INTERNAL_DIR / "control.sock") else None

    def call(self, method: str, **params: Any) -> Any:
        """Return the result of a daemon method, whoever computes it.

        A method that may take long carries its own `timeout_s`, which also bounds the wait for an answer.
        Raises RecfsError: DaemonNotRunning for what takes a daemon and has none, NotAStore without a store.
        """
        patience_s = max(_TIMEOUT_S, float(params.get("timeout_s", 0.0)) + _TIMEOUT_MARGIN_S)
        if method in LONG:
            patience_s = LONG_S
        try:
            with self._heard_of(method):
                return self.client(patience_s).call(method, **params)
        except DaemonNotRunning as exc:
            if self._gateway() is not None:
                raise  # who does not get at the socket does not get at the catalogue
            if method in LIVE_ONLY:
                self._require_catalogue()
                raise DaemonNotRunning(f"no daemon runs on {self.root}; {LIVE_ONLY[method]}") from exc
        return self.call_alone(method, **params)

    def call_alone(self, method: str, **params: Any) -> Any:
        """Return the result of a method where no daemon runs; *params* may be anything. Raises as `call`, RootBusy."""
        self._require_catalogue()
        question = self._question(method, params)
        if question is not None:
            with reports_at(self.root).reading() as snapshot:
                return question(snapshot)
        from recfs import offline

        with offline.offline(self.config) as writer:
            if method not in ASK_S3:
                return writer.call(method, **params)
            with self._heard_of(method):
                return writer.call(method, **params)

    @contextmanager
    def _heard_of(self, method: str) -> Iterator[None]:
        """Say on standard error what is waited for, where that takes more than a moment."""
        done = threading.Event()
        tell = self._tell_of_s3 if method in ASK_S3 else self._tell_of_daemon
        if method not in TELL_THEMSELVES:
            threading.Thread(target=tell, args=(done,), daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _tell_of_daemon(self, done: threading.Event) -> None:
        if not done.wait(_QUIET_S):
            click.echo(f"recfs: waiting for the daemon of {show_name(str(self.root))}", err=True)

    def _tell_of_s3(self, done: threading.Event) -> None:
        told = ""
        wait_s = _QUIET_S
        while not done.wait(wait_s):
            url, trouble = self._trouble_of_s3()
            line = f"waiting for {url}{f': {trouble}' if trouble else ''}"
            if line != told and not done.is_set():
                click.echo(f"recfs: {show_name(line)}", err=True)
            told, wait_s = line, _LOOK_S

    def _trouble_of_s3(self) -> tuple[str, str | None]:
        """Where the store's objects are, and what S3 said last if that is no good; as far as anybody tells."""
        try:
            far = self.client(_SETTINGS_S).call("status").get("s3") or {}
        except ControlError:
            far = {"url": self.config.s3.url} if self.config.s3 is not None else {}
        return far.get("url", "S3"), far.get("trouble")

    def _require_catalogue(self) -> Path:
        catalogue = self.root / INTERNAL_DIR / "catalogue.db"
        if not catalogue.exists():
            raise NotAStore(f"no recfs store at {self.root}; `recfs mount --root {self.root} DIR` makes one")
        return catalogue

    def _question(self, method: str, params: dict[str, Any]) -> "Callable[[Snapshot], Any] | None":
        """Return what is to be asked of the catalogue, beside nobody; None for what must write."""
        if method in WRITING or (method == "quota_check" and params["repair"]):
            return None
        config = self.config
        if method in ("queue", "route_explain"):
            return _s3_question(method, params, config)
        from recfs.api import observing, summaries, summaries_upkeep
        from recfs.api.recordings import Asked
        from recfs.api.reuse.duplicates import duplicates
        from recfs.api.stats.figures import stats
        from recfs.api.stats.trend import trend
        from recfs.api.users import user_list

        questions: dict[str, Callable[[Snapshot], Any]] = {
            "status": lambda snapshot: summaries.status(snapshot, config),
            "stats": lambda snapshot: stats(snapshot, config, params),
            "stats_trend": lambda snapshot: trend(snapshot, params),
            "quota_show": lambda snapshot: summaries.quota_show(snapshot, config, params["user"]),
            "quota_check": lambda snapshot: summaries.quota_check(snapshot),
            "user_list": lambda snapshot: user_list(snapshot, params["everyone"]),
            "sweep_history": lambda snapshot: summaries_upkeep.sweep_history(snapshot, params["name"], params["limit"]),
            "info": lambda snapshot: summaries.info(snapshot, config, params["path"]),
            "ls_files": lambda snapshot: summaries.ls_files(
                snapshot, params["path"], params["recursive"], params["state"], params.get("media", False)
            ),
            "duplicates": lambda snapshot: duplicates(snapshot, params),
            "events": lambda snapshot: observing.events(snapshot, params, time.time_ns()),
            "recording_list": lambda snapshot: Asked(snapshot, config.policy(), None, {}).list(
                params["user"], params["status"], params["due_s"]
            ),
            "recording_show": lambda snapshot: Asked(snapshot, config.policy(), None, {}).show(params["path"]),
        }
        return questions[method]


def _is_hidden(socket: Path) -> bool:
    try:
        os.lstat(socket)
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(socket, os.W_OK)


def reports_at(root: Path) -> "Reports":
    """Return what answers questions of the store at *root*, whether a daemon runs or not."""
    from recfs.catalogue.reports import SqliteReports

    return SqliteReports(root / INTERNAL_DIR / "catalogue.db")


def _s3_question(method: str, params: dict[str, Any], config: "Config") -> "Callable[[Snapshot], Any]":
    from recfs.api import summaries_s3

    if method == "queue":
        limit = params["limit"] or None
        return lambda snapshot: _stopped_queue(summaries_s3.queue(snapshot, None, {}, limit=limit), config)
    now_ns = time.time_ns()
    path, size_bytes, age_s = params["path"], params["size_bytes"], params["age_s"]
    return lambda snapshot: summaries_s3.route_explain(snapshot, config, now_ns, path, size_bytes, age_s)


def _stopped_queue(found: dict[str, Any], config: "Config") -> dict[str, Any]:
    if config.s3 is None and not found["totals"]["rows"]:
        raise NotSupported(NO_S3)
    return found | {"breaker": None}


@dataclass(frozen=True, slots=True)
class Place:
    """A path of a store: where a command's PATH leads."""

    store: Store
    path: str
    """Relative to the mount, "" for its root."""


def open_store(invocation: Invocation, path: Path | None = None) -> Store:
    """Find the store a command means. Raises ConfigError, MountError (a dead mount).

    `path` (any path inside a mount) goes first, then --root and --config, the working directory,
    $RECFS_CONFIG and /etc/recfs/recfs.conf.
    """
    if path is not None:
        return locate(invocation, path).store
    here = None if _is_chosen(invocation) else _working_directory()
    if here is not None:
        try:
            root = _root_around(here)
        except DeadMount:
            root = None
        if root is not None:
            return _store_at(root)
    return _chosen_store(invocation)


def locate(invocation: Invocation, path: Path) -> Place:
    """Find what PATH means: a path in a mount, in a home tree on disk, or `users/...` of a chosen store.

    Raises InvalidPath when it is none of them, MountError for a dead mount, ConfigError.
    """
    if _is_chosen(invocation) and not path.is_absolute() and (path.parts[:1] or ("",))[0] in ("", *TOP_LEVELS):
        return Place(_chosen_store(invocation), _normal(path))
    mount = mount_around(path)
    if mount is not None:
        inside = path_in_mount(mount, path)
        if _is_chosen(invocation):
            return Place(_chosen_store(invocation), inside)
        root = root_behind(mount)
        if root is not None:
            return Place(_store_at(root), inside)
    return _locate_on_disk(invocation, path)


def here_or_top(invocation: Invocation) -> Place:
    """Return the working directory if it is inside a mount and no store was chosen, else the store's top."""
    here = None if _is_chosen(invocation) else _working_directory()
    if here is not None and mount_around(here) is not None:
        return locate(invocation, here)
    return Place(open_store(invocation), "")


def _is_root(directory: Path) -> bool:
    """Whether a store lies there. Raises InvalidPath where this user may not look."""
    try:
        return (directory / INTERNAL_DIR).is_dir()
    except PermissionError as exc:
        raise InvalidPath(f"{directory} cannot be looked into ({exc.strerror}): give a path inside the mount") from exc
    except OSError:
        return False  # longer than any path can be


def _locate_on_disk(invocation: Invocation, path: Path) -> Place:
    resolved = resolve(path)
    root = next((each for each in (resolved, *resolved.parents) if _is_root(each)), None)
    if root is not None:
        inside = resolved.relative_to(root)
        if inside.parts[:1] not in ((), *((top,) for top in TOP_LEVELS)):
            raise InvalidPath(f"{path} is recfs' own; give a path below {', '.join(TOP_LEVELS)}")
        store = _chosen_store(invocation) if _is_chosen(invocation) else _store_at(root)
        if Path(os.path.realpath(store.root)) != root:
            raise InvalidPath(f"{path} lies in the store at {root}, not in the chosen one at {store.root}")
        return Place(store, _normal(inside))
    if not path.is_absolute() and path.parts[:1] and path.parts[0] in TOP_LEVELS:
        try:
            return Place(_chosen_store(invocation), _normal(path))
        except ConfigError:
            pass
    raise InvalidPath(f"{path} is in no recfs mount and no store; give a path inside a mount, or --root DIR users/...")


def _normal(path: Path) -> str:
    inside = os.path.normpath(path)
    if inside.startswith(".."):
        raise InvalidPath(f"{path} leads out of the store")
    return "" if inside == "." else inside


def _is_chosen(invocation: Invocation) -> bool:
    return invocation.root is not None or invocation.config is not None


def _working_directory() -> Path | None:
    return Path.cwd() if cwd.LOST is None else None


def _root_around(path: Path) -> Path | None:
    mount = mount_around(path)
    return None if mount is None else root_behind(mount)


def _store_at(root: Path) -> Store:
    if not _is_environment_heard():
        return Store(Path(os.path.abspath(root)))
    from recfs.config import config_for_root

    config = config_for_root(root, os.environ)
    return Store(config.root, config)


def _is_environment_heard() -> bool:
    """Whether a variable may be a setting, or may be wrong: to find out takes the configuration, 0.2 s to load."""
    return any(name.upper().startswith("RECFS_") for name in os.environ)


def _chosen_store(invocation: Invocation) -> Store:
    """The store that --root, --config, $RECFS_CONFIG or /etc name. Raises ConfigError, MountError."""
    if invocation.root is not None and invocation.config is None:
        return _store_at(_root_around(invocation.root) or invocation.root)
    config = configured(invocation)
    return Store(config.root, config)


def in_effect(invocation: Invocation, store: Store | None = None) -> "tuple[Config, str]":
    """Return the configuration that holds for the store a command means, and where it is from, as `all_in_effect`."""
    settings, source = all_in_effect(invocation, store)
    return settings.config, source


def all_in_effect(invocation: Invocation, store: Store | None = None) -> "tuple[Settings, str]":
    """Return the settings that hold for the store a command means, and where they come from, for people.

    --config is meant itself. Else a daemon that runs tells its own; without one they are what a start would have.
    *store*: that of a path, where one is given.
    Raises ConfigError, MountError, ControlError.
    """
    from recfs.config import ENV_CONFIG, SYSTEM_CONFIG, Settings, from_plain

    if invocation.config is not None:
        return _settings(invocation), str(invocation.config)
    is_at_path, store = store is not None, store if store is not None else open_store(invocation)
    try:
        told = store.client(_SETTINGS_S).call("settings")
        config = from_plain(told["config"], "settings")
        return Settings(config, told.get("origins", {})), f"the daemon of {store.root}"
    except DaemonNotRunning:
        pass
    if is_at_path and invocation.root is None:
        return Settings(store.config, {}), f"the store at {store.root}"
    settings = _settings(invocation)
    if invocation.root is not None:
        return settings, f"--root {invocation.root}"
    named = os.environ.get(ENV_CONFIG)
    return settings, named or (str(SYSTEM_CONFIG) if os.path.lexists(SYSTEM_CONFIG) else "the environment")


def configured(invocation: Invocation) -> "Config":
    """Return the settings --root, --config, $RECFS_CONFIG or /etc name. Raises ConfigError, MountError."""
    return _settings(invocation).config


def _settings(invocation: Invocation) -> "Settings":
    from recfs.config import ENV_CONFIG, find_settings

    root = invocation.root
    if root is not None:
        root = _root_around(root) or root
    elif invocation.config is None:
        cwd.named_in(ENV_CONFIG)
    return find_settings(invocation.config, root, os.environ)
