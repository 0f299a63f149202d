"""What answers at an endpoint that is no S3 server: another port of one, a console, a web server."""

from __future__ import annotations

import re
from typing import Any, Final

import urllib3

from recfs.config import S3Section
from recfs.stores.s3.client import endpoint_of, make_session, trusted_certificates
from recfs.stores.s3.proxy import proxy_for

_MOST_BYTES: Final = 64 << 10
_S3_ANSWERS = re.compile(r"<(?:\w+:)?(?:Error|ListBucketResult|ListAllMyBucketsResult)[\s>]")
"""Root elements of what S3 answers to a listing (S3 API, ListObjectsV2 and Error Responses)."""
_TITLE = re.compile(r"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)
_HTTPS_WANTED = re.compile(r"HTTP request (?:was sent )?to (?:an )?HTTPS (?:server|port)", re.IGNORECASE)
_WEED = "its S3 gateway has a port of its own, 8333 unless -s3.port says otherwise"
_KNOWN: Final = (
    ("SeaweedFS Filer", f"SeaweedFS's filer; {_WEED}"),
    ("SeaweedFS Volume", f"a volume server of SeaweedFS; {_WEED}"),
    ("SeaweedFS", f"SeaweedFS's master, or another of its ports; {_WEED}"),
    ("MinIO Console", "MinIO's console; its S3 port is another one, 9000 unless --address says otherwise"),
    ("Ceph", "Ceph's dashboard; S3 is served by its RGW, at another port"),
    ("Garage", "Garage's administration or web port; its S3 port is another one (s3_api in garage.toml)"),
)  # fmt: skip


def who_answers(section: S3Section) -> str | None:
    """What it is that answers there, for people; None where it is an S3 server, or does not answer at all."""
    session = make_session(section)
    endpoint = endpoint_of(session, section)
    with pools_for(section, session, endpoint) as pools:
        try:
            if _S3_ANSWERS.search(_get(pools, f"{endpoint}/{section.bucket}?list-type=2&max-keys=1")[1]):
                return None
            headers, page = _get(pools, f"{endpoint}/")
        except urllib3.exceptions.HTTPError:
            return None
    if _S3_ANSWERS.search(page):
        return None
    return _named(headers, page)


def _named(headers: dict[str, str], page: str) -> str:
    if _HTTPS_WANTED.search(page):
        return "a server that wants https://"
    found = _TITLE.search(page)
    title, server = " ".join(found[1].split()) if found else "", headers.get("server", "")
    for mark, what in _KNOWN:
        if mark in title or mark in server:
            return what
    told = [f"Server: {server}"] if server else []
    told += [f'a page titled "{title[:60]}"'] if title else []
    return "a web server" + (f" ({', '.join(told)})" if told else "")


def _get(pools: urllib3.PoolManager, url: str) -> tuple[dict[str, str], str]:
    answer = pools.request("GET", url, retries=False, redirect=False, preload_content=False)
    try:
        page = answer.read(_MOST_BYTES).decode("utf-8", "replace")
    finally:
        answer.close()
    return {name.lower(): value for name, value in answer.headers.items()}, page


def pools_for(section: S3Section, session: Any, url: str) -> urllib3.PoolManager:
    """Connections for requests without a signature, with the section's times, certificates and proxy."""
    certificates = trusted_certificates(session, section)
    settings: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=section.connect_timeout, read=section.read_timeout),
        "cert_reqs": "CERT_NONE" if certificates is None else "CERT_REQUIRED",
        "ca_certs": certificates,
    }
    proxy = proxy_for(url)
    if proxy is None:
        return urllib3.PoolManager(**settings)
    return urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers, **settings)
