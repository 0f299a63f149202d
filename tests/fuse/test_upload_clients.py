"""A client as people have it, curl, over a network that breaks: one file, whole, and nothing beside it."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.cutting_relay import CuttingRelay
from tests.helpers.gateway_process import API, GatewayProcess

from .harness import Mount
from .test_web_uploads import DATA, SHA256, created, gateway_on, one_file

pytestmark = [pytest.mark.modes("auto"), pytest.mark.slow]

CUTS = (3 << 20, 12 << 20)
ALL = len(DATA) + (64 << 10)
"""When so many bytes went to the gateway it has all of a file that was sent on and on."""


@pytest.fixture(scope="module")
def gateway(mount: Mount, workspace: Path) -> Iterator[GatewayProcess]:
    """A gateway on the module's mount."""
    with gateway_on(mount, workspace / "clients_gateway") as serving:
        yield serving


@pytest.fixture
def talk(outside: Path) -> Path:
    path = outside / "talk.mp4"
    path.write_bytes(DATA)
    return path


def curl(gateway: GatewayProcess, url: str, *arguments: str, **fields: str) -> tuple[int, int, dict[str, str]]:
    """Run curl: its exit code, the status of the answer (0: none), and the answer's header."""
    told = gateway.headers({name.replace("_", "-"): value for name, value in fields.items()})
    command = ["curl", "-sS", "-o", "/dev/null", "-D", "-", "--max-time", "100", *arguments]
    for name, value in told.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=110)
    blocks = [each.splitlines() for each in done.stdout.replace("\r", "").strip().split("\n\n") if each]
    final = blocks[-1] if blocks else []
    header = {name.lower(): value for name, _, value in (line.partition(": ") for line in final[1:])}
    status = int(final[0].split()[1]) if final else 0
    return done.returncode, 0 if status == 100 else status, header


@pytest.mark.needs("curl")
def test_curl_sends_again_what_was_cut_off_and_is_told_that_it_is_there(
    mount: Mount, gateway: GatewayProcess, talk: Path
) -> None:
    """By PUT: cut off in the middle, then with the answer lost, then again."""
    digest = f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"
    path = f"{API}/users/5/recordings/101/source.mp4"
    with CuttingRelay(gateway.port, CUTS[0], deaf_from=CUTS[0] + len(DATA)) as network:
        url = f"http://127.0.0.1:{network.port}{path}"
        told = [curl(gateway, url, "-T", str(talk), Repr_Digest=digest) for _ in range(3)]
        assert network.cut == 2
    assert [each[0] != 0 for each in told] == [True, True, False]
    assert (told[2][1], told[2][2]["etag"]) == (204, f'"{SHA256}"')
    one_file(mount, "101")


@pytest.mark.needs("curl")
def test_curl_goes_on_by_tus_where_it_was_cut_off(mount: Mount, gateway: GatewayProcess, talk: Path) -> None:
    """HEAD says where; the bytes from there on are sent by `-X PATCH -T -`, as a script does."""
    where = created(gateway, "102", sha256=SHA256).headers["location"]
    sent = 0
    with CuttingRelay(gateway.port, *CUTS, deaf_from=ALL) as network:
        url = f"http://127.0.0.1:{network.port}{where}"
        for _ in range(50):
            code, status, header = curl(gateway, url, "-I", Tus_Resumable="1.0.0")
            if code != 0 or status == 423:
                continue
            assert status == 200
            at = int(header["upload-offset"])
            if at == len(DATA):
                break
            talk.with_name("rest").write_bytes(DATA[at:])
            curl(
                gateway, url, "-X", "PATCH", "--data-binary", f"@{talk.with_name('rest')}", Tus_Resumable="1.0.0",
                Upload_Offset=str(at), Content_Type="application/offset+octet-stream", Expect="",
            )  # fmt: skip
            sent += len(DATA) - at
        assert network.cut == 2 + (sent >= ALL)
    assert sent < 3 * len(DATA), "it began anew"
    assert header["etag"] == f'"{SHA256}"'
    one_file(mount, "102")
