"""What names and paths of a database mean, whatever forms, encodings and base directories they went through."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recfs.core.migration.lookup import Found, Index, candidates
from recfs.core.migration.names import bytes_of, id_of, ids_in, other_readings, parted, stem_key, text_of

PATH = "user_4/video/processed/Перевод_на_йогу_25-12-26_07-21_processed.mp4"
OLD = b"/srv/media"


def find(text: str, *there: str | bytes, user: str = "4") -> Found | None:
    index = Index(path if isinstance(path, bytes) else path.encode() for path in there)
    return index.find(candidates(text, user, [OLD]))


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (PATH, ""),
        (f"./{PATH}", ""),
        (f"user_4/audio/../{PATH.removeprefix('user_4/')}", ""),
        (f"/srv/media/{PATH}", ""),
        (f"//srv/./media//{PATH}", ""),
        (f"/opt/platform/storage/media/{PATH}", "another base directory"),
        (f"../media/{PATH}", "another base directory"),
        (f"media/{PATH}", "another base directory"),
        (PATH.removeprefix("user_4/"), "below the user's directory"),
        (f"file:///srv/media/{quote(PATH)}", "a URL"),
        (f"file://localhost/srv/media/{quote(PATH)}", "a URL"),
        (f"file:/mnt/x/{quote(PATH)}", "a URL, another base directory"),
        (f"  {PATH}\n", "without blanks"),
        (quote(PATH), "URL-quoted"),
        (PATH.replace("/", "\\"), "with backslashes"),
        ("C:\\Media\\" + PATH.replace("/", "\\"), "with backslashes, another base directory"),
        (unicodedata.normalize("NFD", PATH), "another Unicode form"),
        (f"/old/{unicodedata.normalize('NFD', PATH)}", "another base directory, another Unicode form"),
        (PATH.encode().decode("latin-1"), "another encoding"),
        (PATH.encode().decode("latin-1").encode().decode("latin-1"), "another encoding"),
        (PATH.encode().decode("koi8-r"), "another encoding"),
        (PATH.encode().decode("cp866"), "another encoding"),
        (PATH.encode().decode("cp437"), "another encoding"),
        (PATH.encode("cp866").decode("cp1251"), "another encoding"),
        (PATH.encode("cp1251").decode("latin-1"), "another encoding"),
    ],
)
def test_a_path_is_found_however_it_is_written(text: str, how: str) -> None:
    found = find(text, PATH, "user_4/video/processed/Перевод_на_йогу_25-12-26_07-22_processed.mp4")
    assert found == Found((PATH.encode(),), how)


def windows(text: str) -> str:
    """As a program on Windows reads UTF-8: bytes that mean nothing in Windows-1251 become control characters."""
    return "".join(bytes([byte]).decode("cp1251") if byte != 0x98 else "\x98" for byte in text.encode())


@pytest.mark.parametrize(
    "there",
    [
        unicodedata.normalize("NFD", PATH),
        PATH.encode().decode("latin-1"),
        windows(PATH),
        windows(unicodedata.normalize("NFD", PATH)),
        PATH.encode("cp1251"),
        PATH.encode("cp866"),
        PATH.encode("koi8-r"),
        quote(PATH),
    ],
)
def test_what_became_of_a_name_on_the_disk_is_found_by_what_it_was(there: str | bytes) -> None:
    there = there if isinstance(there, bytes) else there.encode()
    found = find(PATH, there, "user_4/video/processed/Other_25-12-26_07-21_processed.mp4")
    assert found is not None
    assert found.paths == (there,)


def test_what_is_written_exactly_is_found_before_what_it_may_also_mean() -> None:
    composed, decomposed = (unicodedata.normalize(form, PATH) for form in ("NFC", "NFD"))
    assert find(composed, composed, decomposed) == Found((composed.encode(),), "")
    assert find(decomposed, composed, decomposed) == Found((decomposed.encode(),), "")
    assert find("user_4/a%20b\\c", "user_4/a b/c", "user_4/a%20b\\c") == Found((b"user_4/a%20b\\c",), "")


def test_a_path_that_may_mean_several_files_means_none() -> None:
    once, again = "user_4/video/Й\u0306.mp4", "user_4/video/И\u0306\u0306.mp4"
    found = find("user_4/video/И\u0306\u0306.mp4".encode().decode("latin-1"), once, again)
    assert found is not None
    assert set(found.paths) == {once.encode(), again.encode()}


def test_what_lies_elsewhere_is_not_taken_for_what_is_meant() -> None:
    assert find("/srv/old/user_5/video/unprocessed/a.mp4", "video/unprocessed/a.mp4") is None  # another user's
    assert find("/somewhere/a.mp4", "a.mp4") is None  # one component says too little
    assert find("/srv/mediation/a.mp4", "a.mp4", "iation/a.mp4") is None
    assert find(PATH, PATH.replace("25-12-26", "25-12-27")) is None
    assert find("", PATH) is None
    assert find("/", PATH) is None
    assert find("..", PATH) is None


@settings(max_examples=50)
@given(st.binary(min_size=1, max_size=60), st.text(max_size=60))
def test_no_bytes_and_no_text_are_too_odd(name: bytes, text: str) -> None:
    index = Index([name, b"a/b"])
    for each in (text, text_of(name)):
        index.find(candidates(each, "4", [OLD]))
    if b"/" not in name and name not in (b".", b".."):
        assert index.find(candidates(text_of(name), "4", [OLD])) == Found((name,), "")
    assert bytes_of(text_of(name)) == name


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8", min_codepoint=0xA1), min_size=1, max_size=30))
@example("\uf900")  # whose normal form is another character
def test_mojibake_is_undone(text: str) -> None:
    mangled = text.encode().decode("latin-1")
    assert unicodedata.normalize("NFC", text) in {unicodedata.normalize("NFC", text), *other_readings(mangled)}
    assert unicodedata.normalize("NFC", mangled) in set(other_readings(text))


def test_names_say_ids_and_stems() -> None:
    assert ids_in(b"recording_142_processed") == ["142"]
    assert ids_in("Перевод_на_ИИ_25-12-26_07-21_processed".encode()) == []
    assert ids_in(b"142_7_142_007_1e3") == ["142", "7"]
    assert ids_in(b"a_0d3c1f8e-7a55-4c1e-9b1a-2f64a1c0ffee_b") == ["0d3c1f8e-7a55-4c1e-9b1a-2f64a1c0ffee"]
    assert stem_key("Перевод на ИИ: 1") == stem_key("Перевод_на_ИИ__1_processed") == "Перевод_на_ИИ_1"
    assert stem_key(unicodedata.normalize("NFD", "йога")) == "йога"
    assert parted(b"a.b.MP4") == (b"a.b", b"mp4")
    assert parted(b".mp4") == (b".mp4", b"")
    assert parted("a.мп4".encode()) == ("a.мп4".encode(), b"")
    assert parted(b"Dr. Strange (part 2.1 of long name)") == (b"Dr. Strange (part 2.1 of long name)", b"")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("142", "142"),
        (" 142 ", "142"),
        ("0d3c1f8e7a554c1e9b1a2f64a1c0ffee", "0d3c1f8e-7a55-4c1e-9b1a-2f64a1c0ffee"),
        ("0D3C1F8E-7a55-4c1e-9b1a-2f64a1c0ffee", "0D3C1F8E-7a55-4c1e-9b1a-2f64a1c0ffee"),
        ("11111111111111111111111111111111", "11111111-1111-1111-1111-111111111111"),
        ("007", None),
        ("-1", None),
        ("4.5", None),
        ("../../etc", None),
        ("４", None),
        ("", None),
    ],
)
def test_ids_are_those_that_a_store_has(text: str, found: str | None) -> None:
    assert id_of(text) == found
