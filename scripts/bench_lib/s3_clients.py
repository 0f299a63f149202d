"""The command behind scripts/bench-s3-clients: what could carry recfs's bytes to and from S3, against one server.

Clients: recfs's own store (its own requests, in plain threads), boto3 in plain threads, boto3's transfer manager, boto3
with the CRT (needs awscrt) and obstore (needs obstore). Each measurement is a process of its own and the clients take
turns, so that what else the machine does befalls all alike.
"""

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from recfs.config import S3Section
from recfs.ports.objects import ObjectMeta
from recfs.stores.s3.store import S3Store

from .s3_direct import PART_BYTES, THREADS, Direct, make_client

KEY, SMALL_BYTES = "bench-s3-clients/large", 4096
CHILD_TIMEOUT_S = 300.0

Item = TypeVar("Item")
Jobs = dict[str, Callable[[], object]]
"""By what they measure: "up", "down" and "puts"."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every client is given: a file to send, one to fill, how much, and how many threads."""

    bucket: str
    source: str
    target: str
    size: int
    threads: int
    count: int
    signed: bool

    @property
    def endpoint(self) -> str:
        """The server."""
        return os.environ["AWS_ENDPOINT_URL"]

    @property
    def verify(self) -> bool:
        """Whether the certificate is checked; a server on loopback has one of its own."""
        return not self.endpoint.startswith("https://127.")

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """(offset, length) of each part."""
        return [(offset, min(PART_BYTES, self.size - offset)) for offset in range(0, self.size, PART_BYTES)]

    def spread(self, job: Callable[[Item], object], items: Iterable[Item]) -> None:
        """Do `job` for all `items` in the threads."""
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(job, items):
                pass


def recfs_store(work: Work) -> Jobs:
    """recfs's own store."""
    store = S3Store(
        S3Section(
            bucket=work.bucket,
            endpoint=work.endpoint,
            threads=work.threads,
            verify=work.verify,
            payload_signing="auto" if work.signed else "off",
            checksums="auto" if work.signed else "off",
        )
    )
    small, bytes_of_it = os.memfd_create("small"), bytes(SMALL_BYTES)
    os.write(small, bytes_of_it)
    meta = ObjectMeta(md5=hashlib.md5(bytes_of_it).digest(), sha256=hashlib.sha256(bytes_of_it).digest())
    # It is learned once per process whether the server ignores checksums; this is not what is measured.
    store.put_file(small, SMALL_BYTES, "bench-s3-clients/warm", meta)

    def up() -> None:
        with open(work.source, "rb") as file:
            fd, upload_id = file.fileno(), store.start_multipart(KEY, ObjectMeta())
            with ThreadPoolExecutor(work.threads) as pool:
                numbered = enumerate(work.ranges, 1)
                sent = pool.map(lambda each: store.upload_part(KEY, upload_id, each[0], fd, *each[1]), numbered)
                store.finish_multipart(KEY, upload_id, list(sent), ObjectMeta(), work.size)

    def down() -> None:
        with open(work.target, "wb") as file:
            into = file.fileno()
            work.spread(lambda each: store.get_range(KEY, *each, if_match=None, into=into), work.ranges)

    def puts() -> None:
        work.spread(lambda n: store.put_file(small, SMALL_BYTES, _small_key(n), meta), range(work.count))

    return {"up": up, "down": down, "puts": puts}


def _small_key(number: int) -> str:
    return f"bench-s3-clients/small/{number}"


def boto3_threads(work: Work) -> Jobs:
    """boto3's calls in plain threads: what `scripts/bench` calls direct."""
    library = Direct(work.endpoint, work.bucket, work.threads, signed=work.signed, verify=work.verify)
    return {
        "up": lambda: library.upload(Path(work.source), KEY),
        "down": lambda: library.download(KEY, work.size, Path(work.target)),
        "puts": lambda: library.put_bytes(bytes(SMALL_BYTES), map(_small_key, range(work.count))),
    }


def boto3_transfer(work: Work, preferred: str = "classic") -> Jobs:
    """boto3's transfer manager (s3transfer), or with `preferred` "crt" the AWS common runtime."""
    from boto3.s3.transfer import TransferConfig

    client = make_client(work.endpoint, work.threads, signed=work.signed, verify=work.verify)
    config = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=work.threads,
        preferred_transfer_client=preferred,
    )
    body = bytes(SMALL_BYTES)

    def put(number: int) -> None:
        client.put_object(Bucket=work.bucket, Key=_small_key(number), Body=body)

    return {
        "up": lambda: client.upload_file(work.source, work.bucket, KEY, Config=config),
        "down": lambda: client.download_file(work.bucket, KEY, work.target, Config=config),
        "puts": lambda: work.spread(put, range(work.count)),
    }


def obstore_client(work: Work) -> Jobs:
    """obstore: the object_store crate of Rust."""
    import obstore  # type: ignore[import-not-found,unused-ignore]
    from obstore.store import S3Store as RustStore  # type: ignore[import-not-found,unused-ignore]

    store: Any = RustStore(
        work.bucket,
        endpoint=work.endpoint,
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ.get("AWS_DEFAULT_REGION", "us-east-1"),
        virtual_hosted_style_request=False,
        unsigned_payload=not work.signed,
        client_options={"allow_http": True, "allow_invalid_certificates": not work.verify, "timeout": "120s"},
    )

    def up() -> None:
        with open(work.source, "rb") as file:
            obstore.put(store, KEY, file, chunk_size=PART_BYTES, max_concurrency=work.threads)

    def down() -> None:
        with open(work.target, "wb") as file:

            def one(each: tuple[int, int]) -> None:
                os.pwrite(file.fileno(), obstore.get_range(store, KEY, start=each[0], length=each[1]), each[0])

            work.spread(one, work.ranges)

    def put(number: int) -> None:
        obstore.put(store, _small_key(number), bytes(SMALL_BYTES), use_multipart=False)

    return {"up": up, "down": down, "puts": lambda: work.spread(put, range(work.count))}


CLIENTS: dict[str, Callable[[Work], Jobs]] = {
    "recfs": recfs_store,
    "threads": boto3_threads,
    "transfer": boto3_transfer,
    "crt": lambda work: boto3_transfer(work, "crt"),
    "obstore": obstore_client,
}


def _measure(name: str, what: str, work: Work) -> dict[str, float]:
    """One measurement in this process."""
    job = CLIENTS[name](work)[what]
    cpu, start = time.process_time(), time.perf_counter()
    job()
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    if what == "down" and os.stat(work.target).st_size != work.size:
        raise SystemExit("not all bytes came")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"elapsed_s": elapsed, "cpu_s": cpu, "peak_mib": peak_mib}


def _in_a_process(name: str, what: str, options: list[str]) -> dict[str, float] | None:
    """A measurement in a process of its own; None, with a word on stderr, if the client fails."""
    # With awscrt installed, botocore signs with it, which is slower; only the CRT's own measurement wants that.
    environment = os.environ | ({} if name == "crt" else {"BOTO_DISABLE_CRT": "true"})
    command = [sys.executable, "-W", "ignore", sys.argv[0], *options, "--measure", name, what]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False
    )
    if done.returncode:
        click.echo(f"{name} {what}: {(done.stderr.strip().splitlines() or ['?'])[-1][:150]}", err=True)
        return None
    return cast("dict[str, float]", json.loads(done.stdout.splitlines()[-1]))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--mb", default=512, show_default=True, help="Size of the large file in MiB.")
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds.")
@click.option("--threads", default=THREADS, show_default=True, help="Requests at the same time.")
@click.option("--count", default=1000, show_default=True, help="Small objects.")
@click.option("--only", multiple=True, type=click.Choice(list(CLIENTS)), help="These clients (repeatable).")
@click.option("--unsigned", is_flag=True, help="Leave payloads out of the signature, as one may over https.")
@click.option("--bucket", default="recfs-bench", show_default=True, help="Made if it is missing.")
@click.option("--measure", nargs=2, hidden=True)
@click.option("--files", nargs=2, hidden=True)
def main(
    mb: int,
    rounds: int,
    threads: int,
    count: int,
    only: tuple[str, ...],
    unsigned: bool,
    bucket: str,
    measure: tuple[str, str] | None,
    files: tuple[str, str] | None,
) -> None:
    """Compare what could carry recfs's bytes to and from S3: throughput, and CPU seconds per GB, against one server.

    The server is named by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: for the one that scripts/rgw
    starts, say eval "$(scripts/rgw env)". Prints medians as a table.
    """
    if "AWS_ENDPOINT_URL" not in os.environ:
        raise click.UsageError("AWS_ENDPOINT_URL is not set; see --help")
    if measure is not None and files is not None:
        work = Work(bucket, *files, mb << 20, threads, count, not unsigned)
        click.echo(json.dumps(_measure(*measure, work)))
        return
    names = list(only or CLIENTS)
    options = ["--mb", str(mb), "--threads", str(threads), "--count", str(count), "--bucket", bucket]
    options += ["--unsigned"] if unsigned else []
    some = Work(bucket, "", "", 0, threads, 0, not unsigned)
    library = Direct(some.endpoint, bucket, verify=some.verify)
    library.make_bucket()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="recfs-bench-") as directory:
        source, target = Path(directory, "source"), Path(directory, "target")
        with source.open("wb") as file:
            for _ in range(mb):
                file.write(os.urandom(1 << 20))
        options += ["--files", str(source), str(target)]
        try:
            for number in range(rounds):
                for what in ("up", "down", "puts"):
                    for name in names if number % 2 == 0 else names[::-1]:
                        if (measured := _in_a_process(name, what, options)) is not None:
                            found.setdefault((name, what), []).append(measured)
        finally:
            library.clear("bench-s3-clients/")
    _print(names, found, mb << 20, count)


def _print(names: Iterable[str], found: dict[tuple[str, str], list[dict[str, float]]], size: int, count: int) -> None:
    click.echo("| client | up MB/s | CPU s/GB | down MB/s | CPU s/GB | 4 KiB PUT/s | CPU ms | peak RSS MiB |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name in names:
        cells: list[str] = []
        for what in ("up", "down", "puts"):
            runs = found.get((name, what))
            if not runs:
                cells += ["fails", "–"]
                continue
            elapsed = statistics.median(run["elapsed_s"] for run in runs)
            cpu = statistics.median(run["cpu_s"] for run in runs)
            if what == "puts":
                cells += [f"{count / elapsed:.0f}", f"{cpu / count * 1000:.2f}"]
            else:
                cells += [f"{size / 1e6 / elapsed:.0f}", f"{cpu / size * 1e9:.2f}"]
        peak = max((run["peak_mib"] for what in ("up", "down") for run in found.get((name, what), [])), default=0.0)
        click.echo(f"| {name} | {' | '.join(cells)} | {peak:.0f} |")
