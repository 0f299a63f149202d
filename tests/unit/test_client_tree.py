"""recfs.client: paths of the tree, as the daemon's own layout has them."""

from __future__ import annotations

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.client import InvalidName, NotAMount, StoragePathBuilder
from recfs.client.tree import id_of, name_of, parts_of
from recfs.core.layout import is_id, role_of
from recfs.errors import RecfsError

UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
METHODS = {
    "shared_thumbnail", "recording_source", "recording_video", "recording_audio", "transcription_master",
    "transcription_topics", "transcription_subtitles", "asset", "temp_file", "delete_recording_files",
    "get_recording_size",
}  # fmt: skip
HOSTILE = [
    "", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b", "a\nb", "\x1b[2J", "\u202egpj.exe", "\u200b", "\ud800",
    "\udcff", "x" * 256, "é" * 128,
]  # fmt: skip


def accepted(check: object, value: object) -> bool:
    try:
        check(value)  # type: ignore[operator]
    except (InvalidName, RecfsError):
        return False
    return True


def test_the_builder_has_exactly_these_methods() -> None:
    assert {name for name in dir(StoragePathBuilder) if not name.startswith("_")} == METHODS


def test_where_known_files_lie() -> None:
    paths = StoragePathBuilder()
    assert paths.shared_thumbnail("default.png") == "shared/thumbnails/default.png"
    assert paths.recording_source(5, 142) == "users/5/recordings/142/source.mp4"
    assert paths.recording_source(5, 142, ".MOV") == "users/5/recordings/142/source.MOV"
    assert paths.recording_video(5, UUID) == f"users/5/recordings/{UUID}/video.mp4"
    assert paths.recording_audio(uuid.UUID(UUID), "142") == f"users/{UUID}/recordings/142/audio.mp3"
    assert paths.transcription_master(5, 142) == "users/5/recordings/142/transcription/master.json"
    assert paths.transcription_topics(5, 142) == "users/5/recordings/142/transcription/topics_v1.json"
    assert paths.transcription_topics(5, 142, version=12) == "users/5/recordings/142/transcription/topics_v12.json"
    assert paths.transcription_subtitles(5, 142) == "users/5/recordings/142/transcription/subtitles.srt"
    assert paths.transcription_subtitles(5, 142, format="vtt") == "users/5/recordings/142/transcription/subtitles.vtt"
    assert paths.asset(5, 142, "Обложка.png") == "users/5/recordings/142/assets/Обложка.png"
    assert paths.temp_file(5, UUID, "chunk-0.wav") == f"temp/5/{UUID}/chunk-0.wav"


def test_all_of_them_are_files_of_the_daemons_layout() -> None:
    paths = StoragePathBuilder()
    for path in (
        paths.shared_thumbnail("a.png"), paths.recording_source(5, 1), paths.recording_video(5, 1),
        paths.recording_audio(5, 1), paths.transcription_master(5, 1), paths.transcription_topics(5, 1),
        paths.transcription_subtitles(5, 1), paths.asset(5, 1, "a"), paths.temp_file(5, 1, "a"),
    ):  # fmt: skip
        role_of(tuple(os.fsencode(path).split(b"/")), is_dir=False)
        assert "/".join(parts_of(path, new=True)) == path


@pytest.mark.parametrize("root", ["/mnt/recfs", "/mnt/recfs/"])
def test_a_root_stands_before_them(root: str) -> None:
    assert StoragePathBuilder(root).recording_video(5, 1) == "/mnt/recfs/users/5/recordings/1/video.mp4"
    assert StoragePathBuilder("s3://b/p/").recording_video(5, 1) == "s3://b/p/users/5/recordings/1/video.mp4"
    for builder in (StoragePathBuilder(), StoragePathBuilder("s3://bucket/prefix")):
        with pytest.raises(NotAMount):
            builder.delete_recording_files(5, 1)
        with pytest.raises(NotAMount):
            builder.get_recording_size(5, 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_names_are_refused(name: str) -> None:
    paths = StoragePathBuilder("/mnt")
    for make in (
        lambda: paths.shared_thumbnail(name), lambda: paths.asset(5, 142, name), lambda: paths.temp_file(5, 1, name),
        lambda: paths.recording_source(5, 142, name), lambda: paths.recording_source(5, 142, f".{name}"),
        lambda: paths.transcription_subtitles(5, 142, name),
    ):  # fmt: skip
        with pytest.raises(InvalidName) as refused:
            make()
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "bad", [*HOSTILE, -1, True, None, 1.5, "01", "+1", "1 ", "٣", "²", 10**20, "a", UUID[:-1], f"{UUID}\n"]
)
def test_bad_ids_are_refused(bad: object) -> None:
    paths = StoragePathBuilder("/mnt")
    for make in (
        lambda: paths.recording_video(bad, 142), lambda: paths.recording_video(5, bad),  # type: ignore[arg-type]
        lambda: paths.temp_file(5, bad, "a"), lambda: paths.delete_recording_files(5, bad),  # type: ignore[arg-type]
        lambda: paths.get_recording_size(bad, 1),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(InvalidName):
            make()


@pytest.mark.parametrize("version", [0, -1, True, 1.5, 2.0, 10**18, "2", None, float("nan"), float("inf")])
def test_bad_versions_are_refused(version: int) -> None:
    with pytest.raises(InvalidName):
        StoragePathBuilder().transcription_topics(5, 142, version=version)


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"[0-9]{1,22}"),
        st.uuids().map(str),
        st.uuids().map(lambda u: str(u).upper()),
    )
)
def test_ids_are_those_of_the_daemon(text: str) -> None:
    assert accepted(lambda value: id_of("user", value), text) == is_id(
        os.fsencode(text) if text.isprintable() else b"?"
    )


PART = st.one_of(
    st.sampled_from(
        ["users", "shared", "temp", "recordings", "thumbnails", "5", UUID, "..", ".", "", "01", "source.mp4"]
    ),
    st.text(max_size=5),
    st.just("x" * 256),
)


@given(st.lists(PART, min_size=1, max_size=7))
def test_paths_are_those_of_the_daemon(parts: list[str]) -> None:
    """What the client takes for a file the daemon's layout has a place for, and the other way round."""
    text = "/".join(parts)
    try:
        raw = tuple(os.fsencode(text).split(b"/"))
        role_of(raw, is_dir=False)
        taken = True
    except (UnicodeEncodeError, RecfsError):
        taken = False
    assert accepted(parts_of, text) == taken


@pytest.mark.parametrize(
    "path",
    [
        "/users/5/recordings/1/a", "users/5/recordings/1", "users/5/a", "a", "", "other/5/x", "temp/5/a/b", "shared",
        "users/5/recordings/1/../../../6", "users/5/recordings/1/", "users//5/recordings/1/a",
        "users/5/recordings/1/\0",
    ],
)  # fmt: skip
def test_what_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidName):
        parts_of(path)


def test_new_names_have_to_be_such_as_can_be_shown_and_old_ones_not() -> None:
    for name in ("a\nb", "\u202e", "\udcff"):
        assert parts_of(f"shared/{name}") == ("shared", name)
        with pytest.raises(InvalidName):
            parts_of(f"shared/{name}", new=True)
        with pytest.raises(InvalidName):
            name_of(name)
