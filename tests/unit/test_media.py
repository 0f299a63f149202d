"""What names promise, what ffprobe says, where a file stands: decisions about media."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.media import texts
from recfs.core.media.facts import LONGEST_S, MOST, MOST_TAGS, TAG_CHARS, VALUE_CHARS, Facts, facts_of, unpacked
from recfs.core.media.kinds import Checker, Kind, kind_of
from recfs.core.media.structure import cut_off
from recfs.core.media.verdicts import is_beyond_bounds, judge, why_unreadable
from recfs.core.media.words import Known, Word, told, word_of
from recfs.core.model import State


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"video.mp4", Kind.VIDEO), (b"VIDEO.MP4", Kind.VIDEO), (b"audio.webm", Kind.AUDIO), (b"audio.mp3", Kind.AUDIO),
        (b"source.mov", Kind.EITHER), (b"a.b.mkv", Kind.EITHER), (b"chunk_1.wav", Kind.AUDIO), (b"x.json", Kind.JSON),
        (b"subtitles.srt", Kind.SRT), (b"subtitles.vtt", Kind.VTT), (b"mp4", None), (b".mp4", None), (b"a.", None),
        (b"a.txt", None), (b"a.mp4.part", None), (b"thumbnail.png", None), (b"caf\xe9.flac", Kind.AUDIO),
    ],
)  # fmt: skip
def test_a_name_says_what_a_file_is(name: bytes, kind: Kind | None) -> None:
    assert kind_of(name) is kind


def test_texts_have_checkers_of_their_own() -> None:
    found = {kind.checker for kind in (Kind.VIDEO, Kind.AUDIO, Kind.EITHER)}
    assert found == {Checker.MEDIA}
    assert [kind.checker.value for kind in (Kind.JSON, Kind.SRT, Kind.VTT)] == list(texts.CHECKS)


# --- what ffprobe says -----------------------------------------------------------------------------------------------


def said(**form: object) -> bytes:
    streams = [
        {"codec_type": "video", "codec_name": "h264", "width": 1920, "height": 1080, "avg_frame_rate": "30000/1001"},
        {"codec_type": "audio", "codec_name": "aac", "sample_rate": "48000", "channels": 2},
    ]
    base = {"format_name": "mov,mp4,m4a,3gp,3g2,mj2", "duration": "12.5", "bit_rate": "4000000"}
    return json.dumps({"format": base | form, "streams": streams}).encode()


def test_what_is_in_a_recording_is_told() -> None:
    facts = facts_of(said(tags={"Title": "A\ntitle", "x": 7}))
    assert facts == Facts(
        "mp4", "video/mp4", 12.5, 4_000_000, 2, "h264", 1920, 1080, 29.97, "aac", 48_000, 2, {"title": "A title"}
    )
    assert unpacked(facts.packed()) == facts


@pytest.mark.parametrize(
    ("form", "field", "value"),
    [
        ({"duration": "N/A"}, "duration_s", None), ({"duration": "-1"}, "duration_s", None),
        ({"duration": "inf"}, "duration_s", None), ({"duration": "nan"}, "duration_s", None),
        ({"duration": "9" * 39}, "duration_s", LONGEST_S), ({"duration": True}, "duration_s", None),
        ({"duration": 10**400}, "duration_s", LONGEST_S), ({"duration": {}}, "duration_s", None),
        ({"bit_rate": "9" * 30}, "bitrate", MOST), ({"bit_rate": "-5"}, "bitrate", None),
        ({"bit_rate": 2**70}, "bitrate", MOST), ({"bit_rate": "1e309"}, "bitrate", None),
    ],
)  # fmt: skip
def test_numbers_are_brought_into_bounds(form: dict[str, object], field: str, value: object) -> None:
    facts = facts_of(said(**form))
    assert facts is not None
    assert getattr(facts, field) == value


def test_tags_are_few_short_and_without_control_codes() -> None:
    tags = {f"name{number}" * 100: "v\x1b[2J\u202e\ud800" * 1000 for number in range(100)}
    facts = facts_of(said(tags=tags))
    assert facts is not None
    assert len(facts.tags) <= MOST_TAGS
    for name, value in facts.tags.items():
        assert len(name) <= TAG_CHARS
        assert len(value) <= VALUE_CHARS
        assert not any(ord(char) < 32 or char in "\u202e\ud800" for char in name + value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from([
        "format", "streams", "codec_type", "codec_name", "duration", "bit_rate", "tags", "avg_frame_rate", "width",
        "format_name", "disposition", "attached_pic",
    ]) | st.text(max_size=4), inner, max_size=5),
    max_leaves=20,
))  # fmt: skip
def test_whatever_is_said_is_facts_that_fit_or_none(answer: object) -> None:
    try:
        facts = facts_of(json.dumps(answer).encode())
    except ValueError:
        return
    if facts is not None:
        assert unpacked(facts.packed()) == facts
        assert all(value is None or 0 < value <= MOST for value in (facts.bitrate, facts.width, facts.sample_rate))


@pytest.mark.parametrize("answer", [b"", b"[", b"[]", b"\xff", b'"x"', b"[" * 100_000])
def test_what_is_no_answer_is_said_to_be_none(answer: bytes) -> None:
    with pytest.raises(ValueError):
        facts_of(answer)


def test_the_picture_of_an_album_is_no_video() -> None:
    cover = {"codec_type": "video", "codec_name": "mjpeg", "disposition": {"attached_pic": 1}}
    sound = {"codec_type": "audio", "codec_name": "mp3"}
    facts = facts_of(json.dumps({"format": {"format_name": "mp3"}, "streams": [cover, sound]}).encode())
    assert facts is not None
    assert (facts.video_codec, facts.mime) == (None, "audio/mpeg")
    assert judge(Kind.AUDIO, facts) is None
    assert judge(Kind.VIDEO, facts) == "there are no moving pictures in it"


@pytest.mark.parametrize(
    ("kind", "facts", "reason"),
    [
        (Kind.EITHER, None, "it is no audio and no video"),
        (Kind.VIDEO, Facts("mp4", "video/mp4", 1.0, video_codec="h264"), None),
        (Kind.AUDIO, Facts("mp4", "video/mp4", 1.0, video_codec="h264"), "there is no sound in it"),
        (Kind.AUDIO, Facts("mp4", "video/mp4", 1.0, video_codec="h264", audio_codec="aac"), "it is a video"),
        (Kind.EITHER, Facts("mp4", "audio/mp4", 0.0, audio_codec="aac"), "it has no duration"),
        (Kind.EITHER, Facts("webm", "audio/webm", None, audio_codec="opus"), None),
    ],
)
def test_a_file_is_judged_by_its_name(kind: Kind, facts: Facts | None, reason: str | None) -> None:
    assert judge(kind, facts) == reason


def test_the_last_words_of_a_program_name_no_file_and_control_no_terminal() -> None:
    told_of = why_unreadable("[mov @ 0x55] x\nfile:/proc/self/fd/0: \x1b[31mCannot allocate memory")
    assert told_of == "it cannot be read: ?[31mCannot allocate memory"


def test_what_is_beyond_bounds_may_be_whole() -> None:
    """The bounds are recfs's: they say nothing of the file."""
    assert (
        is_beyond_bounds("[matroska] Number of streams exceeds max_streams parameter (1000), see the doc") is not None
    )
    assert is_beyond_bounds("fd:: Cannot allocate memory") is not None
    assert is_beyond_bounds("fd:: Invalid data found when processing input") is None
    assert why_unreadable("file:x: Invalid data found when processing input") == "it cannot be read as audio or video"
    assert why_unreadable("") == "it cannot be read as audio or video"


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "reason"),
    [
        ("json", b"{}", None), ("json", b'\xef\xbb\xbf{"a": [1, 2.5e9]}', None), ("json", b"1" * 10_000, None),
        ("json", b"", "Expecting value"), ("json", b'{"a": ', "Expecting value"), ("json", b"{} {}", "Extra data"),
        ("json", b"\xff\xfe{", "not UTF-8"), ("json", b"[" * 60_000, "nested too deeply"), ("json", b"NaN", "no JSON"),
        ("json", b"{}\0", "zero byte"),
        ("srt", b"1\r\n00:00:01,000 --> 00:00:02,000\r\nHello\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,5\r\nx\r\n", None),
        ("srt", b"1\n00:00:01,000 --> 00:00:02,000\nHello", None), ("srt", b"", "no cue"), ("srt", b"\n\n", "no cue"),
        ("srt", b"1\n00:00:01,000 --> 00:00", "times cannot be read"), ("srt", b"1\n", "times of a cue are missing"),
        ("srt", b"1\n\n", "times of a cue are missing"), ("srt", b"Hello\nthere", "neither"),
        ("srt", b"1\n00:00:01,000 --> 00:00:02,000\n" + b"x" * 70_000, "too long"),
        ("vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000 align:start\nHello\n", None), ("vtt", b"WEBVTT", None),
        ("vtt", b"WEBVTT - title\n\nNOTE a\n\nid\n01:00:01.000 --> 01:00:02.000\nx", None), ("vtt", b"WEBVT", "begin"),
        ("vtt", b"WEBVTTx\n", "begin"), ("vtt", b"", "begin"), ("vtt", b"WEBVTT\n\n00:01,000 --> x\n", "times cannot"),
    ],
)  # fmt: skip
def test_texts_parse_or_it_is_told_why_not(kind: str, data: bytes, reason: str | None) -> None:
    found = texts.CHECKS[kind](data)
    assert found is None if reason is None else found is not None and reason in found, found


@given(st.binary(max_size=200), st.sampled_from(sorted(texts.CHECKS)))
def test_no_text_confuses_a_checker(data: bytes, kind: str) -> None:
    found = texts.CHECKS[kind](data)
    assert found is None or 0 < len(found) <= 250


# --- where it ends ---------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([
        b"\0\0\0\x10ftyp", b"RIFF", b"OggS\0", b"fLaC", b"\x1a\x45\xdf\xa3", b"ID3", b"\xff\xfb", b"\x47", b"FORM", b"",
        b"\0\0\0\x01mdat", b"RIFF\0\0\0\0AVI ", b"\x1a\x45\xdf\xa3\x80\xec\x80\xec\x80\x18\x53\x80\x67",
    ]),
    st.binary(max_size=300),
)  # fmt: skip
def test_no_beginning_confuses_who_looks_for_the_end(start: bytes, rest: bytes) -> None:
    data, reads = start + rest, 0

    def read(at: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        assert at >= 0
        assert size <= 1 << 17
        return data[at : at + size]

    found = cut_off(read, len(data))
    assert found is None or found.isprintable()
    assert reads <= len(data) + 10


def test_boxes_without_an_end_are_not_gone_through_for_ever() -> None:
    reads = 0

    def read(at: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return b"\0\0\0\x10ftypisom\0\0\0\0"[:size]

    assert cut_off(read, 1 << 60) is None
    assert reads < 300_000


# --- where it stands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "word", "code"),
    [
        (Known(State.WRITING), None, None),
        (Known(State.SEALING), Word.UPLOADED, None),
        (Known(State.COMMITTED), Word.COMPLETED, None),
        (Known(State.COMMITTED, verdict="pending"), Word.VALIDATING, None),
        (Known(State.COMMITTED, verdict="whole"), Word.COMPLETED, None),
        (Known(State.COMMITTED, verdict="whole", upload_due=True), Word.PROCESSING, None),
        (Known(State.UPLOADING, verdict="whole", upload_due=True), Word.PROCESSING, None),
        (
            Known(State.COMMITTED, upload_due=True, upload_attempts=2, upload_error="no"),
            Word.PROCESSING,
            "upload_failed",
        ),
        (Known(State.STORED, verdict="whole"), Word.COMPLETED, None),
        (Known(State.EVICTED), Word.COMPLETED, None),
        (Known(State.EVICTED, upload_due=True), Word.COMPLETED, None),
        (Known(State.FETCHING), Word.PROCESSING, None),
        (Known(State.ARCHIVED, verdict="whole"), Word.ARCHIVED, None),
        (Known(State.INCOMPLETE), Word.FAILED, "incomplete"),
        (Known(State.CORRUPT, verdict="whole"), Word.FAILED, "corrupt"),
        (Known(State.COMMITTED, verdict="broken", reason="why"), Word.FAILED, "media_broken"),
        (Known(State.COMMITTED, verdict="unknown", reason="why"), Word.COMPLETED, "media_unknown"),
    ],
)
def test_each_state_has_its_word(known: Known, word: Word | None, code: str | None) -> None:
    assert word_of(known) == word
    assert told(known)["code"] == code


def test_every_state_has_a_word() -> None:
    assert {state for state in State if word_of(Known(state)) is None} == {State.WRITING}


def test_the_times_of_the_steps_are_told() -> None:
    known = Known(
        State.STORED, changed_ns=1, verdict="whole", queued_ns=2, began_ns=3, ended_ns=4, stored_ns=9, looks=1
    )
    assert told(known) == {
        "status": "completed", "code": None, "message": None, "retries": 1,
        "times_ns": {"uploaded": 2, "validating": 3, "processing": 4, "completed": 9},
    }  # fmt: skip
    again = told(known._replace(touched_ns=2, queued_ns=5, began_ns=6, ended_ns=7, stored_ns=0))
    assert again["times_ns"] == {"uploaded": 2, "validating": 6, "completed": 7}, "it was looked into once more"
    renamed = told(known._replace(touched_ns=8))
    assert renamed["times_ns"]["uploaded"] == 2
    failed = told(Known(State.COMMITTED, verdict="broken", reason="why", queued_ns=2, began_ns=3, ended_ns=4))
    assert failed["times_ns"] == {"uploaded": 2, "validating": 3, "failed": 4}
    assert failed["message"] == "why"
