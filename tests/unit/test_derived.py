"""What is made from recordings: rules, whether a product is to be made, and how ffmpeg is told to make it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recfs.core.media.derived import (
    FIRST_RETRY_S,
    MAX_TRIES,
    Derived,
    DeriveRule,
    Made,
    Product,
    Status,
    Step,
    after_failure,
    check_derive,
    companion,
    judge,
    principal,
    wanted,
)
from recfs.core.media.facts import Facts, facts_of
from recfs.core.media.recipes import grid, lacks, playlist, recipe, scrubbing

SHA, OTHER = b"s" * 32, b"o" * 32
RULE = DeriveRule("thumbnail")
MADE = Made("assets/thumbnail.png", 9, b"m" * 32)
DONE = Derived(3, Product.THUMBNAIL, 4, SHA, RULE.options, Status.COMPLETED, files=(MADE,))
SOURCE = (b"users", b"5", b"recordings", b"142", b"source.mp4")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"make": "movie"}, "what can be made is thumbnail, audio"),
        ({"make": "audio", "pattern": "users/**"}, "directly in a recording"),
        ({"make": "audio", "pattern": "shared/*"}, "directly in a recording"),
        ({"make": "audio", "pattern": "users/*/recordings/*/takes/*"}, "directly in a recording"),
        ({"make": "thumbnail", "at_s": -1.0}, "between 0 and 1 d"),
        ({"make": "sprite", "width": 4}, "from 16 to 7680"),
    ],
)
def test_a_rule_that_makes_no_sense_says_what_to_write(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DeriveRule(**settings)


def test_the_first_rule_for_each_product_counts() -> None:
    narrow = DeriveRule("thumbnail", "users/5/recordings/*/source.*", at_s=3.0)
    rules = [narrow, RULE, DeriveRule("audio", automatic=True)]
    check_derive(rules)
    assert [*wanted(rules, SOURCE)] == [narrow, rules[2]]
    assert [*wanted(rules, SOURCE, automatic=True)] == [rules[2]]
    assert [*wanted(rules, (*SOURCE[:1], b"6", *SOURCE[2:]))] == rules[1:]
    assert [*wanted(rules, (*SOURCE[:4], b"notes.txt"))] == []
    with pytest.raises(ValueError, match=r"rule 2 .* never applies: rule 1 comes first"):
        check_derive([RULE, narrow])


def test_no_product_is_made_of_itself() -> None:
    rule = DeriveRule("audio", "users/*/recordings/*/*")
    assert rule.takes(SOURCE)
    assert not rule.takes((*SOURCE[:4], b"audio.mp3"))


@pytest.mark.parametrize(
    ("record", "there", "asked", "step"),
    [
        (None, None, False, Step.MAKE),
        (None, MADE, True, Step.KEEP),
        (DONE, MADE, True, Step.DONE),
        (DONE, MADE._replace(sha256=OTHER), True, Step.KEEP),
        (DONE, MADE._replace(ino=10), True, Step.KEEP),
        (DONE, None, True, Step.MAKE),
        (DONE, None, False, Step.LEAVE),
        (DONE._replace(sha256=OTHER), MADE, False, Step.MAKE),
        (DONE._replace(options="{}"), MADE, False, Step.MAKE),
        (DONE._replace(source=5), MADE, False, Step.MAKE),
        (DONE._replace(status=Status.FAILED, files=()), None, False, Step.LEAVE),
        (DONE._replace(status=Status.FAILED, files=()), None, True, Step.MAKE),
        (DONE._replace(status=Status.PENDING), MADE, True, Step.UNDER_WAY),
        (DONE._replace(files=(), staged=(MADE,)), MADE, True, Step.DONE),
    ],
)
def test_what_is_there_and_what_is_known_decide(
    record: Derived | None, there: Made | None, asked: bool, step: Step
) -> None:
    assert judge(record, 4, SHA, RULE.options, there, asked=asked).step is step


def test_of_two_sources_the_first_keeps_its_product() -> None:
    verdict = judge(DONE, 5, OTHER, RULE.options, MADE, asked=True, other_source=True)
    assert (verdict.step, verdict.reason) == (Step.KEEP, "it is made from another source of this recording")


def test_a_failure_is_tried_again_for_a_while() -> None:
    record, pauses = DONE, []
    while record.status is not Status.FAILED:
        record = after_failure(record, "no room", again=True, now_ns=1, steady_ns=0)
        pauses.append(record.next_ns / 1e9)
    assert pauses == [FIRST_RETRY_S * 2**tried for tried in range(MAX_TRIES - 1)] + [0.0]
    assert after_failure(DONE, "broken", again=False, now_ns=1, steady_ns=0).status is Status.FAILED


def test_a_second_file_is_called_by_its_bytes() -> None:
    assert companion(Product.HLS, SHA) == f"assets/hls-{SHA.hex()[:12]}.ts"
    assert companion(Product.AUDIO, SHA) is None
    assert len({principal(each) for each in Product}) == len(Product)


def facts(duration_ms: int, video: bool, audio: bool) -> Facts:
    return Facts(
        "mp4", "video/mp4", duration_ms / 1000, video_codec="h264" if video else None,
        audio_codec="aac" if audio else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ('"format": {"duration": "12.5"}, "streams": [{"codec_type": "audio"}]', (12500, False, True)),
        ('"streams": [{"codec_type": "video", "duration": "3"}]', (3000, True, False)),
        ('"streams": [{"codec_type": "video", "disposition": {"attached_pic": 1}}]', None),
        ('"format": {"duration": "nan"}, "streams": [{"codec_type": "audio"}]', (0, False, True)),
        ('"format": {"duration": "-1"}, "streams": [{"codec_type": "audio"}]', (0, False, True)),
        ('"format": {"duration": "1e300"}, "streams": [{"codec_type": "audio"}]', (0, False, True)),
        ('"format": {"duration": "1e300"}', None),
    ],
)
def test_what_ffprobe_answers_is_believed_as_far_as_it_can_be(
    answer: str, found: tuple[int, bool, bool] | None
) -> None:
    told = json.loads(f"{{{answer}}}")
    told["format"] = told.get("format", {}) | {"format_name": "mp3"}
    told["streams"] = [{"codec_name": "opus"} | each for each in told.get("streams", [])]
    read = facts_of(json.dumps(told).encode())
    assert (read and (read.duration_ms, read.has_video, read.has_audio)) == found


def test_what_a_source_lacks_is_said() -> None:
    sound, silent = facts(5000, False, True), facts(5000, True, False)
    assert lacks(Product.HLS, sound) == lacks(Product.THUMBNAIL, sound) == "the source has no video"
    assert lacks(Product.AUDIO, silent) == "the source has no audio"
    assert lacks(Product.SPRITE, facts(0, True, True)) == "the source has no duration"
    assert {lacks(each, facts(1, True, True)) for each in Product} == {""}


def test_the_frame_is_of_a_moment_that_there_is() -> None:
    assert recipe(DeriveRule("thumbnail", at_s=60.0), facts(10_000, True, True)).before == ("-ss", "5.000")
    assert recipe(DeriveRule("thumbnail", at_s=3.0), facts(10_000, True, True)).before == ("-ss", "3.000")


@pytest.mark.parametrize(("seconds", "every", "frames", "rows"), [(0.2, 1, 1, 1), (100, 1, 100, 10), (101, 2, 51, 6)])
def test_frames_for_scrubbing_are_few(seconds: float, every: int, frames: int, rows: int) -> None:
    laid = grid(facts(round(seconds * 1000), True, True), 160)
    assert (laid.every_s, laid.frames, laid.rows, laid.height) == (every, frames, rows, 90)


def test_each_frame_has_its_time_and_its_place() -> None:
    text = scrubbing(grid(facts(11_500, True, True), 160), 11_500, "sprite-1.jpg")
    cues = text.split("\n\n")
    assert cues[0] == "WEBVTT"
    assert cues[1] == "00:00:00.000 --> 00:00:01.000\nsprite-1.jpg#xywh=0,0,160,90"
    assert cues[12] == "00:00:11.000 --> 00:00:11.500\nsprite-1.jpg#xywh=160,90,160,90\n"


def test_a_playlist_names_its_file_and_nothing_else_passes_for_one() -> None:
    assert playlist(["#EXTM3U\n", "media\n", "#EXT-X-ENDLIST\n"], "hls-1.ts") == "#EXTM3U\nhls-1.ts\n#EXT-X-ENDLIST\n"
    for broken in ("", "media\n", "#EXTM3U\n#EXT-X-ENDLIST\n", "#EXTM3U\nmedia\n"):
        with pytest.raises(ValueError, match="no playlist"):
            playlist(broken.splitlines(), "hls-1.ts")


@pytest.mark.parametrize("make", ["thumbnail", "sprite", "hls"])
def test_a_cover_picture_is_no_video(make: str) -> None:
    after = recipe(DeriveRule(make), Facts("mp4", "video/mp4", 9.0, video_codec="h264")).after
    assert after[after.index("-map") + 1] == "0:V:0"  # ffmpeg(1): "V" takes no attached pictures and covers
