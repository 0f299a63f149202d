"""The endpoint for Prometheus on a mount."""

from __future__ import annotations

import http.client
import math
import socket
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .clients import wait_until
from .harness import BASE_CONFIG, Mount

pytestmark = pytest.mark.modes("auto", "off")


def scraped(port: int) -> dict[str, float]:
    """Values by name and labels."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        families = text_string_to_metric_families(answer.read().decode())
    return {f"{each.name}{sorted(each.labels.items())}": each.value for f in families for each in f.samples}


def test_a_mount_is_scraped(store: Mount) -> None:
    store.expect_log("metrics: .*Address already in use")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        store.start(config=f'{BASE_CONFIG}[metrics]\nlisten = "127.0.0.1:{port}"\n')
        aside = [each for each in store.status()["set_aside"] if each["part"] == "metrics"]
        assert len(aside) == 1
    rec = store.recording(5, 1)
    (rec / "source.mp4").write_bytes(b"x" * 1000)
    with pytest.raises(OSError, match="not empty"):
        rec.rmdir()

    def is_served() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(is_served, "the address is had once it is free")
    found = scraped(port)
    assert found["recfs_requests_total[('op', 'create'), ('result', 'ok')]"] == 1
    assert found["recfs_requests_total[('op', 'rmdir'), ('result', 'ENOTEMPTY')]"] == 1
    assert found["recfs_request_seconds_count[('op', 'create')]"] == 1
    assert "recfs_passthrough[('what', 'read')]" in found
    assert "recfs_build_info" in " ".join(found)
    assert found["recfs_backup_age_seconds[]"] == math.inf
    assert found["recfs_disk_reserve_bytes[]"] >= 0
    store.drain()
    committed = "recfs_events_total[('kind', 'committed')]"
    wait_until(lambda: scraped(port)[committed] == 1, "the commit is counted")  # a scrape is a second old at most
