"""`Config`: all settings of one store together, and what holds between its tables."""

from typing import Annotated, Literal, Self

import pydantic
from pydantic import BaseModel, BeforeValidator, Field

from recfs.config.backup import BackupSection
from recfs.config.deriving import ChunksSection, DeriveRules, DeriveSection, DerivingSection
from recfs.config.gateway import GatewaySection
from recfs.config.lifecycle import LifecycleSection
from recfs.config.media import MediaSection
from recfs.config.metrics import MetricsSection
from recfs.config.observing import AuditSection, EventsSection, NotifySection
from recfs.config.prices import PricesSection
from recfs.config.processing import ProcessingSection
from recfs.config.retention import RecordingsSection, RetentionRules, RetentionSection
from recfs.config.s3 import CacheSection, RouteRules, RouteSection, S3Section, UploadSection, default_routes
from recfs.config.sections import (
    DEFAULT_FALLBACK,
    CatalogueSection,
    CommitSection,
    FallbackRules,
    FallbackSection,
    LogSection,
    QuotaSection,
    ScrubSection,
    TempSection,
    TrashSection,
    WatchSection,
)
from recfs.config.serve import ServeSection
from recfs.config.stats import StatsSection
from recfs.config.sweeps import SweepSection
from recfs.config.types import AbsolutePath, AnyCase, Section, Size, Uid
from recfs.config.versions import VersionRules, VersionsSection
from recfs.core.retention import Policy
from recfs.core.units import MAX_SIZE_BYTES

CENTURY_S = 100 * 366 * 86_400.0


def _allow_other(value: object) -> object:
    if isinstance(value, bool) or value == "auto":
        return value
    raise ValueError('not one of the choices; write "auto", true or false')


class Config(Section):
    """All settings of one store. Frozen; make another with `load_config` or `config_for_root`."""

    root: AbsolutePath = Field(description="directory that holds the store")
    mountpoint: AbsolutePath | None = Field(default=None, description="default mount point of `recfs mount`")
    min_free: Size = Field(default=1024**3, description="bytes of the disk that recfs leaves free")
    existing: bool = Field(
        default=False, strict=True, description="whether `recfs mount` only takes a store that is there"
    )
    operator: Uid | None = Field(
        default=None, description="uid that may write shared/ and set quotas; none: the daemon's"
    )
    allow_other: Annotated[Literal["auto"] | bool, BeforeValidator(_allow_other)] = Field(
        default="auto", description="whether users other than the daemon's may enter the mount"
    )
    passthrough: Annotated[Literal["auto", "read", "off"], AnyCase] = Field(
        default="auto", description="whether the kernel reads and writes files by itself"
    )
    passthrough_headroom: Size | None = Field(
        default=None, description="bytes of quota left for each writer the kernel serves; none: 10 GiB or 10 %"
    )
    log: LogSection = Field(default=LogSection(), description="the log")
    catalogue: CatalogueSection = Field(default=CatalogueSection(), description="the catalogue of files")
    commit: CommitSection = Field(default=CommitSection(), description="the commit pipeline")
    quota: QuotaSection = Field(default=QuotaSection(), description="limits of every user without own ones")
    fallback: FallbackRules = Field(
        default=(DEFAULT_FALLBACK,), description="shared files shown where a user's own are missing"
    )
    temp: TempSection = Field(default=TempSection(), description="temporary jobs")
    trash: TrashSection = Field(default=TrashSection(), description="deleted and overwritten bytes")
    backup: BackupSection = Field(default=BackupSection(), description="backups of the catalogue")
    sweep: SweepSection = Field(default=SweepSection(), description="when what is left over is looked for")
    watch: WatchSection = Field(default=WatchSection(), description="what is done to the home tree past recfs")
    recordings: RecordingsSection = Field(default=RecordingsSection(), description="recordings that expire")
    retention: RetentionRules = Field(default=(), description="how long recordings live; with no rule: for ever")
    versions: VersionRules = Field(default=(), description="how many versions are kept; with no rule: all")
    derive: DeriveRules = Field(default=(), description="what is made from recordings; with no rule: nothing")
    deriving: DerivingSection = Field(default=DerivingSection(), description="bounds of what is made from recordings")
    chunks: ChunksSection = Field(default=ChunksSection(), description="how long audio is cut")
    events: EventsSection = Field(default=EventsSection(), description="what becomes of files, for programs to read")
    audit: AuditSection = Field(default=AuditSection(), description="who did what")
    notify: NotifySection = Field(default=NotifySection(), description="a command that is run when something happens")
    gateway: GatewaySection = Field(default=GatewaySection(), description="a second control socket, of reduced rights")
    serve: ServeSection = Field(default=ServeSection(), description="the gateway, `recfs serve`: the tree by HTTP")
    scrub: ScrubSection = Field(default=ScrubSection(), description="verification of all files in the background")
    s3: S3Section | None = Field(default=None, description="the bucket of the S3 tier; none: no S3 tier")
    route: RouteRules = Field(
        default_factory=default_routes, description="which files go to S3; with [s3] and no rule: all below users/"
    )
    cache: CacheSection = Field(default=CacheSection(), description="local copies of files in S3")
    processing_cache: ProcessingSection = Field(
        default=ProcessingSection(), description="results of processing, kept by checksum"
    )
    upload: UploadSection = Field(default=UploadSection(), description="uploads to S3")
    media: MediaSection = Field(default=MediaSection(), description="what is in recordings, and whether they are whole")
    metrics: MetricsSection = Field(default=MetricsSection(), description="figures for Prometheus")
    prices: PricesSection = Field(default=PricesSection(), description="what storage costs, for `recfs stats`")
    stats: StatsSection = Field(default=StatsSection(), description="what is kept for `recfs stats`")
    lifecycle: LifecycleSection = Field(
        default=LifecycleSection(), description="rules that `recfs lifecycle apply` writes into the bucket"
    )

    @pydantic.model_validator(mode="after")
    def _keep_root_and_mount_apart(self) -> Self:
        # A mount over its own store would make the daemon wait for itself.
        mount = self.mountpoint
        if mount is not None and (mount.is_relative_to(self.root) or self.root.is_relative_to(mount)):
            raise ValueError(
                f'mountpoint = "{mount}": it and root = "{self.root}" lie inside one another; keep them apart'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _backups_have_a_place(self) -> Self:
        if self.backup.to_bucket and self.s3 is None:
            raise ValueError('backup.to_bucket = true: there is no S3 tier; add [s3] with bucket = "...", or remove it')
        directory, own = self.backup.directory, self.root / ".recfs" / "backups"
        tops = (self.root, self.mountpoint or self.root)
        if directory is not None and directory != own and any(directory.is_relative_to(top) for top in tops):
            raise ValueError(
                f'backup.directory = "{directory}": it lies in the store or its mount; leave it out for {own}, or name'
                f" a directory elsewhere"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _gateway_has_a_place(self) -> Self:
        path, tops = self.gateway.socket, (self.root, self.mountpoint or self.root)
        if path is not None and any(path.is_relative_to(top) for top in tops):
            raise ValueError(
                f'gateway.socket = "{path}": it lies in the store or its mount, where nobody else gets; name a path'
                f' elsewhere, such as "/run/recfs/gateway.sock"'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _serving_has_a_place(self) -> Self:
        directory, tops = self.serve.directory, (self.root, self.mountpoint or self.root)
        if any(directory.is_relative_to(top) for top in tops):
            raise ValueError(
                f'serve.directory = "{directory}": it lies in the store or its mount; name a directory elsewhere,'
                f' such as "/var/lib/recfs-serve"'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _audit_has_a_place(self) -> Self:
        directory, tops = self.audit.directory, (self.root, self.mountpoint or self.root)
        if directory is not None and any(directory.is_relative_to(top) for top in tops):
            raise ValueError(
                f'audit.directory = "{directory}": it lies in the store or its mount; leave it out for'
                f" {self.root / '.recfs' / 'audit'}, or name a directory elsewhere"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _commands_have_events(self) -> Self:
        if self.notify.command is not None and not self.events.enabled:
            raise ValueError("notify.command: it is run for events, and events.enabled is false; set that to true")
        return self

    @pydantic.model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        if self.route and self.s3 is None:
            raise ValueError(
                'route: there are [[route]] rules but no S3 tier; add [s3] with bucket = "...", or remove the rules'
            )
        return self

    @pydantic.model_validator(mode="after")
    def _archives_lie_somewhere(self) -> Self:
        for number, rule in enumerate(self.retention, start=1):
            if rule.archive_storage_class is not None and self.s3 is None:
                raise ValueError(
                    f'retention[{number}].archive_storage_class = "{rule.archive_storage_class}": there is no S3 tier;'
                    f' add [s3] with bucket = "...", or leave it and archive_threshold out'
                )
        return self

    def giving_nothing_up(self) -> Self:
        """These settings, but with a trash that keeps all that is in it: for whoever does not know the store's own."""
        kept = self.trash.model_copy(update={"retention": CENTURY_S, "max_metadata": MAX_SIZE_BYTES})
        return self.model_copy(update={"trash": kept})

    def policy(self) -> Policy:
        """Give what decides how long recordings live, as the core's value."""
        return Policy(self.retention, self.recordings.grace)


SECTIONS: dict[str, type[BaseModel]] = {
    "log": LogSection,
    "catalogue": CatalogueSection,
    "commit": CommitSection,
    "quota": QuotaSection,
    "fallback": FallbackSection,
    "temp": TempSection,
    "trash": TrashSection,
    "backup": BackupSection,
    "sweep": SweepSection,
    "watch": WatchSection,
    "recordings": RecordingsSection,
    "retention": RetentionSection,
    "versions": VersionsSection,
    "derive": DeriveSection,
    "deriving": DerivingSection,
    "chunks": ChunksSection,
    "events": EventsSection,
    "audit": AuditSection,
    "notify": NotifySection,
    "gateway": GatewaySection,
    "serve": ServeSection,
    "scrub": ScrubSection,
    "s3": S3Section,
    "route": RouteSection,
    "cache": CacheSection,
    "processing_cache": ProcessingSection,
    "upload": UploadSection,
    "media": MediaSection,
    "metrics": MetricsSection,
    "prices": PricesSection,
    "stats": StatsSection,
    "lifecycle": LifecycleSection,
}
"""The tables of recfs.conf; the other fields of `Config` are keys above them."""
LISTS = ("derive", "fallback", "retention", "route", "versions")
"""Those that may be there several times: [[fallback]]."""
