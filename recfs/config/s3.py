"""The tables of recfs.conf for the S3 tier: where the objects are, which files go there, what stays on the disk.

No secrets: access keys stay in the files, variables and services of AWS's standard chain.
"""

import re
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import core_schema

from recfs.config.types import AbsolutePath, AnyCase, Duration, Section, Size, Text
from recfs.core.routing import DEFAULT_ROUTES, RouteRule, check_routes, check_storage_class
from recfs.core.units import format_size

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,253}[A-Za-z0-9]")


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError("not a bucket name; write it alone, without s3:// and without a path")
    return value


def _prefix(value: str) -> str:
    value = value.strip("/")
    if "//" in value or any(part in (".", "..") for part in value.split("/")):
        raise ValueError('a prefix is a path inside the bucket, such as "studio/main"')
    if len(value.encode()) > 512:
        raise ValueError("at most 512 bytes, so that paths still fit into S3's 1024")
    return value and value + "/"


def _endpoint(value: str) -> str:
    if not re.fullmatch(r"https?://[^/?#@\s]+/?", value):
        raise ValueError('an endpoint is scheme and host only, such as "https://s3.example.org:9000"')
    return value.rstrip("/")


def _tags(value: dict[str, str]) -> dict[str, str]:
    if len(value) > 10 or any(not 0 < len(k) <= 128 or len(v) > 256 for k, v in value.items()):
        raise ValueError("S3 takes up to 10 tags, with keys of 1 to 128 and values of up to 256 characters")
    return value


StorageClass = Annotated[Text, AfterValidator(check_storage_class)]


class S3Section(Section):
    """[s3]: which bucket, how to reach it, how to store there. Without it a store has no S3 tier."""

    bucket: Annotated[str, AfterValidator(_bucket)] = Field(strict=True, description="bucket that holds the objects")
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="", strict=True, description="path inside the bucket below which everything lies"
    )
    endpoint: Annotated[Text, AfterValidator(_endpoint)] | None = Field(
        default=None, description="URL of an S3 server other than AWS; none: $AWS_ENDPOINT_URL, the profile's, or AWS"
    )
    region: Text | None = Field(default=None, description="none: $AWS_DEFAULT_REGION, the profile's, or us-east-1")
    addressing: Annotated[Literal["auto", "path", "virtual"], AnyCase] = Field(
        default="auto", description="bucket in the path or in the host name; auto: in the path where endpoint is set"
    )
    profile: Text | None = Field(default=None, description="profile of the credentials file")
    credentials_file: AbsolutePath | None = Field(
        default=None, description="file with aws_access_key_id and aws_secret_access_key; none: the standard chain"
    )
    ca_bundle: AbsolutePath | None = Field(default=None, description="certificates to trust (PEM); none: the system's")
    verify: bool = Field(default=True, strict=True, description="whether the server's certificate is checked")
    storage_class: StorageClass | None = Field(
        default=None, description="class of new objects; none: the bucket's default"
    )
    sse: Literal["none", "AES256", "aws:kms"] = Field(default="none", description="encryption on the server")
    kms_key: Text | None = Field(default=None, description='key for sse = "aws:kms"; none: the account\'s default key')
    tags: Annotated[dict[str, str], AfterValidator(_tags)] = Field(default={}, description="tags of new objects")
    part_size: Size = Field(
        default=8 << 20, ge=5 << 20, le=5 << 30, description="smallest part of a multipart upload (bytes)"
    )
    threads: int = Field(
        default=8, strict=True, ge=1, le=256, description="uploads at the same time, and as many downloads"
    )
    connect_timeout: Duration = Field(default=10.0, gt=0.0, le=600.0, description="wait for a connection (seconds)")
    read_timeout: Duration = Field(
        default=60.0, gt=0.0, le=3600.0, description="wait for the next byte of an answer (seconds)"
    )
    deadline: Duration = Field(
        default=120.0, gt=0.0, le=86_400.0, description="time after which a call is not tried again (seconds)"
    )
    max_attempts: int = Field(default=8, strict=True, ge=1, le=100, description="tries of one call")
    checksums: Annotated[Literal["auto", "crc32c", "sha256", "off"], AnyCase] = Field(
        default="auto",
        description="checksum sent along with uploads; auto: crc32c, until the server turns out to ignore it",
    )
    payload_signing: Annotated[Literal["auto", "on", "off"], AnyCase] = Field(
        default="auto",
        description="whether uploads are hashed for the signature; auto: over http, and where checksums are ignored",
    )

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.kms_key is not None and self.sse != "aws:kms":
            raise ValueError('kms_key is used with sse = "aws:kms" only; add that, or leave kms_key out')
        if self.ca_bundle is not None and not self.verify:
            raise ValueError("ca_bundle has no effect with verify = false; leave one of them out")
        return self

    @property
    def url(self) -> str:
        """Where the objects are, for people: "s3://bucket/prefix/"."""
        return f"s3://{self.bucket}/{self.prefix}"


class RouteSection(Section):
    """One [[route]] table, as written; `Config.route` holds the checked rules made from these."""

    pattern: str = Field(strict=True, description="glob on the path in the mount; ** stands for any number of levels")
    to: Annotated[Literal["s3", "local"], AnyCase] = Field(description="where such files live")
    min_size: Size | None = Field(default=None, description="smallest file the rule is for (bytes)")
    max_size: Size | None = Field(default=None, description="largest file the rule is for (bytes)")
    min_age: Duration | None = Field(default=None, description="least time since the last change (seconds)")
    max_age: Duration | None = Field(default=None, description="most time since the last change (seconds)")
    storage_class: Text | None = Field(default=None, description="class of the objects; none: the one of [s3]")
    keep_local: Duration = Field(
        default=0.0, description="time the local copy stays at least, after the upload (seconds)"
    )
    broken: bool = Field(default=False, strict=True, description="whether files whose media is broken go to S3, too")


def _route_rule(value: object, handler: pydantic.ValidatorFunctionWrapHandler) -> RouteRule:
    if isinstance(value, RouteRule):
        return value
    written: RouteSection = handler(value)
    return RouteRule(
        written.pattern,
        written.to,
        min_size=written.min_size,
        max_size=written.max_size,
        min_age_s=written.min_age,
        max_age_s=written.max_age,
        storage_class=written.storage_class,
        keep_local_s=written.keep_local,
        broken=written.broken,
    )


def _checked_routes(rules: tuple[RouteRule, ...]) -> tuple[RouteRule, ...]:
    check_routes(rules)
    return rules


_Route = Annotated[
    RouteRule,
    pydantic.GetPydanticSchema(
        lambda _type, schema: core_schema.no_info_wrap_validator_function(_route_rule, schema(RouteSection))
    ),
]
RouteRules = Annotated[tuple[_Route, ...], AfterValidator(_checked_routes)]


def default_routes(fields: dict[str, Any]) -> tuple[RouteRule, ...]:
    """Give the rules of a config that names none, from the fields before: some with [s3], none without."""
    return () if fields.get("s3") is None else DEFAULT_ROUTES


class CacheSection(Section):
    """[cache]: what lies on the disk of files that S3 holds."""

    max_size: Size = Field(default=20 << 30, ge=1 << 20, description="bytes of local copies of files in S3")
    fetch_whole_below: Size = Field(default=8 << 20, description="files smaller than this are fetched at once (bytes)")
    read_ahead_max: Size = Field(default=64 << 20, description="most bytes fetched ahead of one reader")

    @pydantic.model_validator(mode="after")
    def _fit_together(self) -> Self:
        for key, size in (("fetch_whole_below", self.fetch_whole_below), ("read_ahead_max", self.read_ahead_max)):
            if size > self.max_size:
                raise ValueError(
                    f"{key} ({format_size(size, exact=True)}) is more than max_size "
                    f"({format_size(self.max_size, exact=True)}); lower it"
                )
        return self


class UploadSection(Section):
    """[upload]: how files are brought to S3."""

    concurrency: int = Field(default=8, strict=True, ge=1, le=64, description="files uploaded at the same time")
    part_threads: int = Field(
        default=8, strict=True, ge=1, le=256, description="parts of large files uploaded at the same time"
    )
    settle: Duration = Field(
        default=5.0, le=3600.0, description="time a file is left alone before its upload (seconds)"
    )
    copy_identical: bool = Field(
        default=True, strict=True, description="whether what S3 has already is copied there instead of being sent"
    )
    copy_min_size: Size = Field(default=1 << 20, description="smallest file that is copied so (bytes)")
    retry_max: Duration = Field(
        default=300.0, ge=1.0, le=86_400.0, description="longest wait between two tries of an upload (seconds)"
    )
