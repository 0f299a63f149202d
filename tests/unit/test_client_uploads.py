"""recfs.client: names, kinds and sizes of uploads, whatever strangers send."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.client import (
    ALLOWED_EXTENSIONS,
    InvalidName,
    Upload,
    UploadRefused,
    check_upload,
    extension_of,
    mime_type_of,
    sanitize_name,
    upload_name,
)
from recfs.client.folding import fold
from recfs.client.tree import name_of
from recfs.core.naming import is_temporary_name

SAFE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)

ANYTHING = st.one_of(
    st.text(st.characters(), max_size=400),  # surrogates, too
    st.binary(max_size=400),
    st.text(st.sampled_from("a.-_ /\\~\0\n\u202e\ud800соnCOM1tmpart.."), max_size=40),
)


@given(ANYTHING)
def test_whatever_comes_becomes_a_safe_name_and_stays_it(sent: str | bytes) -> None:
    name = sanitize_name(sent)
    assert SAFE.fullmatch(name), name
    assert len(name.encode()) <= 128
    assert ".." not in name
    assert not DEVICES.match(name)
    assert not is_temporary_name(name.encode())
    assert name_of(name) == name
    assert sanitize_name(name) == name


@given(ANYTHING, ANYTHING, st.integers(min_value=0, max_value=2**40))
def test_upload_names_are_safe_and_the_same_each_time(sent: str | bytes, project: str | bytes, at: int) -> None:
    project = project if isinstance(project, str) else project.hex()
    name = upload_name(project, sent, at)
    assert upload_name(project, sent, at) == name
    assert SAFE.fullmatch(name), name
    assert len(name) <= 128
    assert not DEVICES.match(name)
    assert not is_temporary_name(name.encode())
    assert re.fullmatch(r".+-[0-9a-f]{10}(\.[A-Za-z0-9]+)?", name)
    assert sanitize_name(name) == name


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("holiday.mp4", "holiday.mp4"),
        ("My Movie (final).MP4", "My-Movie-final.MP4"),
        ("Доклад Щербакова — часть 2.mov", "Doklad-Shcherbakova-chast-2.mov"),
        ("Їжак і ґава.mp3", "Yizhak-i-gava.mp3"),
        ("Ελληνικά.wav", "Ellinika.wav"),
        ("Straße Łódź Øre ﬁle ①.ogg", "Strasse-Lodz-Ore-file-1.ogg"),
        ("日本語.mp4", "file.mp4"),
        ("", "file"),
        ("...", "file"),
        (".mp4", "file.mp4"),
        ("-rf.mp4", "rf.mp4"),
        (".htaccess", "file.htaccess"),
        ("..", "file"),
        ("../../../etc/passwd", "passwd"),
        ("/absolute/path.mp4", "path.mp4"),
        ("C:\\Users\\x\\clip.avi", "clip.avi"),
        ("trailing/", "trailing"),
        ("a\0b\nc.mp4", "ab-c.mp4"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("zero\u200bwidth.mp4", "zerowidth.mp4"),
        ("lone\ud800surrogate.mp4", "lone-surrogate.mp4"),
        (b"\xff\xfe.mp4", "file.mp4"),
        ("NUL.mp4", "NUL_.mp4"),
        ("com1", "com1_"),
        ("con.tar.mp4", "con_.tar.mp4"),
        ("video.mp4.part", "video.mp4-part"),
        ("draft.tmp", "draft-tmp"),
        ("x~", "x"),
        ("a.tmp .", "a-tmp"),
        ("a" * 123 + ".tmp" + "z" * 20, "a" * 123 + "-tmp"),
        ("a" * 122 + ".part" + "z" * 20, "a" * 122 + "-part"),
        ("…con .mp4  .", "con_.mp4"),
        ("a..b...c.mp4", "a.b.c.mp4"),
        ("clip.mp4 ", "clip.mp4"),
        ("x" * 300 + ".mp4", "x" * 123 + ".mp4"),
        ("x." + "y" * 300, "x." + "y" * 125),
    ],
)
def test_names_that_front_ends_meet(sent: str | bytes, name: str) -> None:
    assert sanitize_name(sent) == name


def test_every_letter_of_the_table_is_folded_to_ascii() -> None:
    for letters in (
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўђјљњћџѓќѕ",
        "αβγδεζηθικλμνξοπρστυφχψωάέήίόύώ",
        "ßæœøđðþłħıŋ",
    ):
        assert fold(letters).isascii(), letters
        assert fold(letters.upper()).isascii(), letters.upper()


def test_the_limit_in_bytes_and_the_fallback_can_be_said() -> None:
    assert sanitize_name("x" * 99 + ".mp4", max_bytes=30) == "x" * 25 + ".mp4"
    assert sanitize_name("???.mov", fallback="upload") == "upload.mov"
    with pytest.raises(ValueError, match="max_bytes is at least"):
        sanitize_name("x", max_bytes=10)
    for fallback in ("", "../x", ".hidden"):
        with pytest.raises(ValueError, match="fallback a safe name"):
            sanitize_name("x", fallback=fallback)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_name_in_pieces_is_the_same_upload(as_bytes: bool) -> None:
    whole, pieces = "Žluťoučký kůň ﬁ.mp4", unicodedata.normalize("NFD", "Žluťoučký kůň ﬁ.mp4")
    assert whole != pieces
    names = [each.encode() if as_bytes else each for each in (whole, pieces)]
    assert len({upload_name("p", each, 1) for each in names}) == 1
    assert upload_name("p", whole, 1) == upload_name("p", whole.encode(), 1)
    assert upload_name(unicodedata.normalize("NFD", "é"), "a.mp4", 1) == upload_name("é", "a.mp4", 1)
    assert upload_name("p", b"\xff.mp4", 1) != upload_name("p", b"\xfe.mp4", 1)


def test_an_upload_name_is_the_stem_and_ten_digits_of_the_sha1() -> None:
    digits = hashlib.sha1(b"demo:My Holiday.mp4:1796056962").hexdigest()[:10]
    assert upload_name("demo", "My Holiday.mp4", 1796056962) == f"My-Holiday-{digits}.mp4"
    assert upload_name("demo", "My Holiday.mp4", "1796056962") == f"My-Holiday-{digits}.mp4"
    cyrillic = hashlib.sha1("7:Отчёт.mov:2026-11-29".encode()).hexdigest()[:10]
    assert upload_name(7, "Отчёт.mov", "2026-11-29") == f"Otchyot-{cyrillic}.mov"
    assert len({upload_name(project, "a.mp4", at) for project in range(9) for at in range(9)}) == 81


def test_a_moment_is_the_same_in_every_time_zone() -> None:
    at = datetime(2026, 11, 29, 16, 42, 42, tzinfo=UTC)
    elsewhere = at.astimezone(timezone(timedelta(hours=9)))
    assert upload_name("p", "a.mp4", at) == upload_name("p", "a.mp4", elsewhere)
    assert upload_name("p", "a.mp4", at) == upload_name("p", "a.mp4", "2026-11-29T16:42:42+00:00")
    with pytest.raises(ValueError, match="time zone"):
        upload_name("p", "a.mp4", datetime(2026, 11, 29))


def test_extensions_and_mime_types() -> None:
    assert {".mp4", ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav"} <= ALLOWED_EXTENSIONS
    assert [extension_of(name) for name in ("a.MP4", "a.b.c", ".hidden", "none", "dot.", "")] == [
        ".mp4", ".c", "", "", "", "",
    ]  # fmt: skip
    assert mime_type_of("x.mp3") == "audio/mpeg"
    assert mime_type_of("x.vtt") == "text/vtt"
    assert mime_type_of("x.php") == "application/octet-stream"


@pytest.mark.parametrize("name", ["a.exe", "a", "a.mp4.exe", ".mp4", "a.mp4\0.exe", "a.mp4.", "a\n"])
def test_other_kinds_are_refused(name: str) -> None:
    with pytest.raises(UploadRefused, match="are not taken"):
        check_upload(name, 1)


def test_sizes_are_limited_and_allowed_kinds_can_be_said() -> None:
    check_upload("a.MP4", 1000, max_bytes=1000)
    check_upload("a.exe", allowed={".exe"})
    with pytest.raises(UploadRefused, match="1,001 bytes; at most 1,000"):
        check_upload("a.mp4", 1001, max_bytes=1000)
    with pytest.raises(UploadRefused, match="is empty"):
        check_upload("a.mp4", 0)


def test_a_refusal_shows_nothing_that_could_be_meant_for_a_terminal() -> None:
    with pytest.raises(UploadRefused) as refused:
        check_upload("\x1b[2J\u202e\n.exe")
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


def test_what_is_kept_of_an_upload() -> None:
    at = datetime(2026, 11, 29, 17, 42, 42, tzinfo=timezone(timedelta(hours=1)))
    assert Upload("Отчёт\n\udcff.mov", uploaded_at=at).attributes() == {
        "user.original_name": "Отчёт\n".encode() + b"\xff.mov",
        "user.mime_type": b"video/quicktime",
        "user.upload_time": b"2026-11-29T16:42:42+00:00",
    }
    for mime in ("video", "a/b; charset=x", "a/\n", "/", "x" * 128 + "/y"):
        with pytest.raises(InvalidName, match="no MIME type"):
            Upload("a.mp4", mime).attributes()
    with pytest.raises(InvalidName, match="4,097 bytes"):
        Upload("x" * 4097).attributes()
    with pytest.raises(ValueError, match="time zone"):
        Upload("a", uploaded_at=datetime(2026, 1, 1)).attributes()
