"""What servers offer is what the S3 guide says of them, and finding it out leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recfs.stores.s3.features.endpoint import who_answers
from recfs.stores.s3.features.run import FEATURES, Result, find_out
from recfs.stores.s3.features.wants import Wants
from tests.helpers import s3_table
from tests.helpers.s3_servers import (
    Bucket,
    SeaweedFS,
    moto_bucket,
    moto_server,
    rgw,
    rgw_bucket,
    seaweedfs,
    seaweedfs_bucket,
)
from tests.system.fake_daemon import run

__all__ = ["moto_bucket", "moto_server", "rgw", "rgw_bucket", "seaweedfs", "seaweedfs_bucket"]

PREFIX = "studio/main"
OTHERS = (f"{PREFIX}/users/5/film.mp4", f"{PREFIX}/.recfs/store.json", ".recfs/doctor-of-somebody-else")


def everything(bucket: Bucket) -> dict[str, Any]:
    """All that a bucket holds, and all buckets there are."""
    versions = bucket.client.list_object_versions(Bucket=bucket.name)
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", ())
    try:
        rules = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    except bucket.client.exceptions.ClientError:
        rules = []
    return {
        "versions": [(each["Key"], each["VersionId"]) for each in versions.get("Versions", ())],
        "markers": [each["Key"] for each in versions.get("DeleteMarkers", ())],
        "uploads": [each["UploadId"] for each in uploads],
        "rules": rules,
        "buckets": [each["Name"] for each in bucket.client.list_buckets()["Buckets"] if each["Name"] == bucket.name]
        + [each["Name"] for each in bucket.client.list_buckets()["Buckets"] if each["Name"].startswith("recfs-doctor")],
    }


def found_without_a_trace(bucket: Bucket) -> Result:
    """A run on a bucket that others use as well; their things are as they were, and nothing else is there."""
    for key in OTHERS:
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"of others")
    begun = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=OTHERS[0])
    before = everything(bucket)
    result = find_out(bucket.section(prefix=PREFIX), Wants(), within_s=90, clean_s=30)
    assert result.left == ()
    assert everything(bucket) == before
    assert before["uploads"] == [begun["UploadId"]]
    assert [each.feature for each in result.findings] == list(FEATURES)
    return result


@pytest.mark.slow
def test_moto_offers_what_the_guide_says(moto_bucket: Bucket) -> None:
    s3_table.hold_to("moto", found_without_a_trace(moto_bucket).findings)


@pytest.mark.slow
def test_in_a_bucket_that_keeps_versions_none_is_left(moto_bucket: Bucket) -> None:
    status = {"Status": "Enabled"}
    moto_bucket.client.put_bucket_versioning(Bucket=moto_bucket.name, VersioningConfiguration=status)
    result = found_without_a_trace(moto_bucket)
    versioning = next(each for each in result.findings if each.feature.name == "versioning")
    assert "keeps the old object" in versioning.detail


@pytest.mark.slow
@pytest.mark.seaweedfs
def test_seaweedfs_offers_what_the_guide_says(seaweedfs_bucket: Bucket) -> None:
    s3_table.hold_to("SeaweedFS", found_without_a_trace(seaweedfs_bucket).findings)


@pytest.mark.slow
@pytest.mark.seaweedfs
def test_the_other_ports_of_seaweedfs_are_told_from_its_gateway(
    seaweedfs: SeaweedFS, seaweedfs_bucket: Bucket, tmp_path: Path
) -> None:
    assert who_answers(seaweedfs_bucket.section()) is None
    for endpoint, what in ((seaweedfs.filer_endpoint, "filer"), (seaweedfs.master_endpoint, "master")):
        section = seaweedfs_bucket.section(endpoint=endpoint)
        conf = tmp_path / "recfs.conf"
        conf.write_text(
            f'root = "{tmp_path}/store"\n[s3]\nbucket = "{section.bucket}"\nendpoint = "{endpoint}"\n'
            f'credentials_file = "{section.credentials_file}"\n'
        )
        checks = json.loads(run("doctor", "--config", conf, "--json").stdout)["checks"]
        told = [check for check in checks if check["name"].startswith("s3")]
        assert [(check["status"], f"is no S3 server but SeaweedFS's {what}" in check["detail"]) for check in told] == [
            ("fail", True)
        ]


@pytest.mark.slow
@pytest.mark.rgw
def test_ceph_offers_what_the_guide_says(rgw_bucket: Bucket) -> None:
    s3_table.hold_to("Ceph RGW", found_without_a_trace(rgw_bucket).findings)


def test_the_table_of_the_guide_has_every_feature_and_a_word_for_each_server() -> None:
    cells = s3_table.table()
    assert list(cells) == [each.name for each in FEATURES]
    wrong = {
        (name, server, word)
        for name, row in cells.items()
        for server, word in row.items()
        if word not in {"yes", "no", "wrong"}
    }
    assert wrong == set()
    text = s3_table.GUIDE.read_text("utf-8")
    assert text.split(s3_table.BEGIN, 1)[1].split(s3_table.END, 1)[0] == s3_table.written(cells)
