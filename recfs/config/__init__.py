"""recfs.conf (TOML) to a validated, frozen `Config`; the only place that knows the keys and their defaults.

Sizes arrive as int bytes and durations as float seconds. Every mistake becomes one ConfigError that names
the file, the dotted key, what was found and what to write instead; all mistakes of a file are reported
together. recfs.conf.example documents the keys, and a test keeps the two the same.

    types      sizes, durations, paths ...
    sections   the tables every store has
    backup     [backup], copies of the catalogue
    sweeps     [sweep], when what is left over is looked for
    versions   [[versions]], how many are kept
    s3         the tables of the S3 tier
    serve      [serve], the gateway
    retention  [recordings] and [[retention]]
    lifecycle  [lifecycle], what the bucket does by itself
    model      Config, and what holds between its tables
    explain    mistakes in words
    lines      on which line a setting stands
    environment  settings of variables
    settings   where each setting is from
    load       finding and reading the file
    plain      settings as JSON carries them
    hints      what is allowed, and hardly meant
    changes    what may change while a daemon runs
"""

from recfs.config.backup import BackupSection
from recfs.config.environment import ENV_CONFIG, TAKE_OVER, assignment
from recfs.config.lifecycle import LifecycleSection
from recfs.config.load import SYSTEM_CONFIG, check_file, config_for_root, find_config, find_settings, load_config
from recfs.config.model import SECTIONS, Config
from recfs.config.plain import from_plain, plain
from recfs.config.s3 import CacheSection, RouteSection, S3Section, UploadSection
from recfs.config.sections import DEFAULT_FALLBACK, FallbackSection, QuotaSection
from recfs.config.serve import ServeSection
from recfs.config.settings import Options, Settings
from recfs.config.sweeps import SweepSection
from recfs.config.types import AbsolutePath, Duration, Size

__all__ = [
    "DEFAULT_FALLBACK",
    "ENV_CONFIG",
    "SECTIONS",
    "SYSTEM_CONFIG",
    "TAKE_OVER",
    "AbsolutePath",
    "BackupSection",
    "CacheSection",
    "Config",
    "Duration",
    "FallbackSection",
    "LifecycleSection",
    "Options",
    "QuotaSection",
    "RouteSection",
    "S3Section",
    "ServeSection",
    "Settings",
    "Size",
    "SweepSection",
    "UploadSection",
    "assignment",
    "check_file",
    "config_for_root",
    "find_config",
    "find_settings",
    "from_plain",
    "load_config",
    "plain",
]
