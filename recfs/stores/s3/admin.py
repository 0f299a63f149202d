"""What operators ask of the bucket: is it reachable, lifecycle rules, restores, tags, presigned URLs."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from recfs.ports.object_errors import NotOffered, ObjectStoreError, RequestRefused
from recfs.ports.objects import CheckReport, LifecycleRule, RestoreSpeed
from recfs.stores.s3.copies import S3Copies
from recfs.stores.s3.faults import fault, faults

RULE_MARK = "recfs-"
"""Lifecycle rules with such an id are recfs's own; all others are left alone."""
MAX_SKEW_S = 15 * 60
"""S3 refuses requests with a clock further off than this (RequestTimeTooSkewed)."""
_WARN_SKEW_S = 60
_MAX_PRESIGN_S = 7 * 86_400


class S3Admin(S3Copies):
    """Administration of objects and bucket."""

    # --- objects -------------------------------------------------------------------------------------------------

    def restore(self, key: str, days: int, tier: RestoreSpeed = "Standard") -> None:
        """As `ObjectStore.restore`."""
        request = {"Days": days, "GlacierJobParameters": {"Tier": tier}}
        try:
            self._call("restore", key, "restore_object", RestoreRequest=request)
        except ObjectStoreError as error:
            if error.code == "InvalidObjectState":
                what = "its storage class needs no restore"
                raise fault(RequestRefused, self._target, "restore", key, what, error.code) from error
            if error.code != "RestoreAlreadyInProgress":
                raise

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """As `ObjectStore.set_tags`."""
        self._set_tags(key, dict(tags))

    def get_tags(self, key: str) -> dict[str, str]:
        """As `ObjectStore.get_tags`."""
        return self._tags_of(key)

    def presign(self, key: str, method: Literal["GET", "PUT"], expires_s: int) -> str:
        """As `ObjectStore.presign`."""
        if not 1 <= expires_s <= _MAX_PRESIGN_S:
            raise ValueError(f"{expires_s} s: a presigned URL is good for 1 second to 7 days")
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        parameters = {"Bucket": self._section.bucket, "Key": self._full(key)}
        with faults(self._target, "sign a URL", key):
            url: str = self._client.generate_presigned_url(operation, Params=parameters, ExpiresIn=expires_s)
        return url

    # --- lifecycle -----------------------------------------------------------------------------------------------

    def get_lifecycle(self) -> tuple[LifecycleRule, ...]:
        """As `ObjectStore.get_lifecycle`."""
        rules = (rule for rule in self._raw_rules() if str(rule.get("ID", "")).startswith(RULE_MARK))
        return tuple(self._rule(rule) for rule in rules)

    def put_lifecycle(self, rules: Sequence[LifecycleRule]) -> None:
        """As `ObjectStore.put_lifecycle`."""
        doing = "write the lifecycle rules"
        others = [rule for rule in self._raw_rules() if not str(rule.get("ID", "")).startswith(RULE_MARK)]
        wanted = others + [self._raw(rule) for rule in rules]
        if wanted:
            self._call(doing, None, "put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": wanted})
        else:
            self._call(doing, None, "delete_bucket_lifecycle")
        if {_named(rule) for rule in rules} != set(self.get_lifecycle()):
            raise fault(NotOffered, self._target, doing, None, "the server took them and kept something else")

    def _raw_rules(self) -> list[dict[str, Any]]:
        doing = "read the lifecycle rules"
        try:
            answer = self._call(doing, None, "get_bucket_lifecycle_configuration")
        except ObjectStoreError as error:
            if error.code == "NoSuchLifecycleConfiguration":
                return []
            raise
        rules: list[dict[str, Any]] = self._expect(answer, "Rules", doing, None)
        return rules

    def _raw(self, rule: LifecycleRule) -> dict[str, Any]:
        # Never a size filter: Ceph 16 drops it and applies the rule to every object below the prefix.
        raw: dict[str, Any] = {
            "ID": _named(rule).rule_id,
            "Status": "Enabled" if rule.enabled else "Disabled",
            "Filter": {"Prefix": self._section.prefix + rule.prefix},
        }
        if rule.transitions:
            raw["Transitions"] = [{"Days": days, "StorageClass": name} for days, name in rule.transitions]
        if rule.expire_days is not None:
            raw["Expiration"] = {"Days": rule.expire_days}
        if rule.abort_multipart_days is not None:
            raw["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule.abort_multipart_days}
        return raw

    def _rule(self, raw: dict[str, Any]) -> LifecycleRule:
        prefix = raw.get("Filter", {}).get("Prefix") or raw.get("Prefix") or ""
        return LifecycleRule(
            rule_id=str(raw.get("ID", "")),
            prefix=self._relative(prefix),
            enabled=raw.get("Status") == "Enabled",
            transitions=tuple(
                sorted((int(each["Days"]), str(each["StorageClass"])) for each in raw.get("Transitions", ()))
            ),
            expire_days=raw.get("Expiration", {}).get("Days"),
            abort_multipart_days=raw.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
        )

    # --- the bucket ----------------------------------------------------------------------------------------------

    def check(self) -> CheckReport:
        """As `ObjectStore.check`."""
        page = self._probe("reach the bucket")
        headers = page["ResponseMetadata"]["HTTPHeaders"]
        skew_s = _skew_s(headers.get("date"), time.time())
        region = headers.get("x-amz-bucket-region") or str(self._client.meta.region_name)
        warnings = []
        if abs(skew_s) > _WARN_SKEW_S:
            warnings.append(
                f"the clocks of this machine and {self._target.endpoint} differ by {abs(skew_s):.0f} s, and S3 refuses "
                f"requests beyond {MAX_SKEW_S} s; is NTP running?"
            )
        if not self._section.verify:
            warnings.append("[s3] verify = false: anybody between here and the server can read and change everything")
        return CheckReport(self._section.bucket, self._target.endpoint, region, skew_s, tuple(warnings))


def _named(rule: LifecycleRule) -> LifecycleRule:
    """The rule as it reads back: marked as recfs's, transitions in order."""
    marked = rule.rule_id if rule.rule_id.startswith(RULE_MARK) else RULE_MARK + rule.rule_id
    return replace(rule, rule_id=marked, transitions=tuple(sorted(rule.transitions)))


def _skew_s(date: str | None, now_s: float) -> float:
    """Server's clock minus ours, by its Date header (whole seconds); 0 without one."""
    if not date:
        return 0.0
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - now_s
    except ValueError:
        return 0.0
