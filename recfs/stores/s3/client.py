"""Makes the boto3 client for all requests but those that carry bytes (`wire`), from the [s3] section."""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.session
import urllib3
from botocore.config import Config as BotoConfig
from botocore.httpsession import get_cert_path

from recfs import __version__
from recfs.config import S3Section
from recfs.ports.object_errors import WrongCredentials
from recfs.stores.s3 import interim
from recfs.stores.s3.answers.moments import moment
from recfs.stores.s3.credentials import RotatingCredentials
from recfs.stores.s3.faults import STATUS_HEADER, Target, faults
from recfs.stores.s3.proxy import give_to, proxy_for

DEFAULT_REGION = "us-east-1"
USER_AGENT = f"recfs/{__version__} boto3/{boto3.__version__}"
_SPARE_CONNECTIONS = 8
"""For a listing, a probe, a deletion. The transfers have connections of their own (wire.py)."""


def signs_payload(section: S3Section, endpoint: str) -> bool:
    """Whether uploads are hashed for the signature. TLS protects them as well; AWS demands it over http."""
    match section.payload_signing:
        case "on":
            return True
        case "off":
            return False
    return endpoint.startswith("http://")


@functools.cache
def _loader() -> Any:
    """botocore's service descriptions, read once: another client then costs 10 ms instead of 100."""
    return botocore.loaders.create_loader()


class _Provider:
    """In the place of botocore's chain: rotating credentials, or none."""

    def __init__(self, rotating: RotatingCredentials) -> None:
        self._rotating = rotating

    def load_credentials(self) -> RotatingCredentials | None:
        return self._rotating if self._rotating.found else None


def make_session(section: S3Section) -> Any:
    """A boto3 session with the credentials the section names, else the standard chain. Raises WrongCredentials.

    They are `RotatingCredentials`, which ask another session of the same kind.
    """
    core = _core_of(section)
    with faults(Target(section.bucket, section.prefix, section.endpoint or "AWS"), "read the credentials"):
        files = tuple(name for key in ("credentials_file", "config_file") if (name := core.get_config_variable(key)))
        rotating = RotatingCredentials(lambda: _core_of(section).get_credentials(), files)
        core.register_component("credential_provider", _Provider(rotating))
        return boto3.session.Session(botocore_session=core)


def _core_of(section: S3Section) -> Any:
    core = botocore.session.Session(profile=section.profile)
    core.register_component("data_loader", _loader())
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    if section.credentials_file is not None:
        if not os.access(section.credentials_file, os.R_OK):
            raise WrongCredentials(
                f"[s3] credentials_file = {section.credentials_file}: uid {os.geteuid()} cannot read it; "
                "correct the path or the file's mode"
            )
        core.set_config_variable("credentials_file", str(section.credentials_file))
        if section.profile is None:
            # Naming a profile keeps variables of the environment from taking precedence over the file.
            core.set_config_variable("profile", "default")
    return core


def endpoint_of(session: Any, section: S3Section) -> str:
    """The section's endpoint, else what environment and profile say, else AWS."""
    if section.endpoint is not None:
        return section.endpoint
    with faults(Target(section.bucket, section.prefix, "AWS"), "find the endpoint"):
        client = session.client("s3", region_name=_region(session, section))
    return str(client.meta.endpoint_url)


def trusted_certificates(session: Any, section: S3Section) -> str | None:
    """File of the certificates that a server's has to be signed by; None: any certificate will do."""
    if not section.verify:
        return None
    configured = session._session.get_config_variable("ca_bundle")  # AWS_CA_BUNDLE, or the profile's
    return str(section.ca_bundle or configured or get_cert_path(True))


def _region(session: Any, section: S3Section) -> str:
    return str(section.region or session.region_name or DEFAULT_REGION)


def make_client(session: Any, section: S3Section, endpoint: str, *, signed: bool) -> Any:
    """A thread-safe S3 client that has payloads *signed* or not. Raises ObjectStoreError."""
    if not section.verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    with faults(Target(section.bucket, section.prefix, endpoint), "set up the client"):
        return _made(session, section, endpoint, signed=signed)


def _made(session: Any, section: S3Section, endpoint: str, *, signed: bool) -> Any:
    addressing: str = section.addressing
    aws = (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    if addressing == "auto":
        # A bucket in the host name takes DNS and certificates that few own servers have. For AWS it is the usual way;
        # botocore's own "auto" would presign URLs for us-east-1, whatever the region.
        addressing = "virtual" if aws and "." not in section.bucket else "path"
    proxy = proxy_for(endpoint)
    client = session.client(
        "s3",
        region_name=_region(session, section),
        endpoint_url=section.endpoint,
        verify=str(section.ca_bundle) if section.ca_bundle else (None if section.verify else False),
        config=BotoConfig(
            signature_version="s3v4",
            connect_timeout=section.connect_timeout,
            read_timeout=section.read_timeout,
            max_pool_connections=section.threads + _SPARE_CONNECTIONS,
            retries={"total_max_attempts": 1},  # wrap.RetryingObjectStore is the one place that tries again
            tcp_keepalive=True,
            proxies={} if proxy is None else {urlsplit(endpoint).scheme: proxy.url},
            user_agent=USER_AGENT,  # else put together anew for every request
            # By default boto3 sends CRCs in trailers, which many servers refuse; recfs sends its own in headers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": addressing, "payload_signing_enabled": signed},
        ),
    )
    give_to(client, proxy)
    interim.use_in(client)
    events = client.meta.events
    events.register("before-call.s3", _follow_no_redirect)
    # The widest pattern: its handlers come first, before botocore's own of "before-parse.s3.*".
    events.register("before-parse.*.*", _remember_status)
    return client


def _follow_no_redirect(context: dict[str, Any], **_: Any) -> None:
    """botocore would ask for the bucket's region and go there, at every call, and recurse against a server that only
    ever redirects. The region belongs into the config; the error says which.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def _remember_status(response_dict: dict[str, Any], **_: Any) -> None:
    """botocore makes a 500 of status 200 with a body that is no XML; `faults` wants to tell the two apart."""
    response_dict["headers"][STATUS_HEADER] = str(response_dict["status_code"])
