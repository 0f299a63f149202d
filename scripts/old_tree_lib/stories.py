"""What one recording of the old platform can look like: its row, its files, and what becomes of them.

Each story tells one recording (or two that get in each other's way) of a user. `PLAIN` is what most are; each of `ODD`
is in every tree at least once, if it has recordings enough.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable

from recfs.core.migration.plan import Action

from . import names
from .maker import Maker, Recording

Story = Callable[[Maker, int], None]
_As = Callable[[str], str]

_ACCENTED = "Лекция Ерёминой: чай и ёлки"
_NO_CAPITAL_I = "Перевод на русский"
_PARTS = ("master", "topics_v1", "topics_v2", "subtitles", "summary")
_HOUR = datetime.timedelta(hours=1)


def _as_it_is(path: str) -> str:
    return path


# --- the usual files ------------------------------------------------------------------------------------------------


def _source(maker: Maker, told: Recording, written: _As = _as_it_is, on_disk: _As = _as_it_is) -> None:
    path = f"{told.folder}/video/unprocessed/{on_disk(told.stem)}.mp4"
    data = maker.video()
    told.row.video_file_size = len(data)
    told.row.local_video_path = written(f"{told.folder}/video/unprocessed/{told.stem}.mp4")
    maker.give(told, path, data, "source.mp4")


def _processed(maker: Maker, told: Recording, written: _As = _as_it_is, on_disk: _As = _as_it_is) -> None:
    path = f"{told.folder}/video/processed/{on_disk(told.stem)}_processed.mp4"
    told.row.processed_video_path = written(f"{told.folder}/video/processed/{told.stem}_processed.mp4")
    maker.give(told, path, maker.video(), "video.mp4")


def _audio(maker: Maker, told: Recording, written: _As = _as_it_is, on_disk: _As = _as_it_is) -> None:
    """Often twice: one step wrote it to audio/processed, a later one to processed_audio."""
    data = maker.audio()
    places = ["audio/processed", "processed_audio"]
    maker.draw.shuffle(places)
    told.row.processed_audio_path = written(f"{told.folder}/{places[0]}/{told.stem}_processed.mp3")
    maker.give(told, f"{told.folder}/{places[0]}/{on_disk(told.stem)}_processed.mp3", data, "audio.mp3")
    if maker.draw.random() < 0.6:
        twin = f"{told.folder}/{places[1]}/{on_disk(told.stem)}_processed.mp3"
        kind = "same twice" if told.kind == "plain" else told.kind
        maker.give(told, twin, data, "audio.mp3", becomes=Action.DUPLICATE, kind=kind)


def _transcription(maker: Maker, told: Recording, written: _As = _as_it_is) -> None:
    folder = f"{told.folder}/transcriptions/{told.row.id}"
    told.row.transcription_dir = written(folder)
    for part in _PARTS[: maker.draw.randrange(1, len(_PARTS) + 1)]:
        data = maker.transcript(told.row.id, part)
        maker.give(told, f"{folder}/{part}.json", data, f"transcription/{part}.json")


def _all(maker: Maker, told: Recording, written: _As = _as_it_is, on_disk: _As = _as_it_is) -> None:
    _source(maker, told, written, on_disk)
    _processed(maker, told, written, on_disk)
    _audio(maker, told, written, on_disk)
    _transcription(maker, told, written)


# --- what most are --------------------------------------------------------------------------------------------------


def plain(maker: Maker, user: int) -> None:
    """As far as the platform came with it: downloaded, processed, transcribed; paths relative to the tree."""
    told = maker.recording(user, "plain")
    far = maker.draw.random()
    _source(maker, told)
    told.row.status = "DOWNLOADED"
    if far > 0.1:
        _processed(maker, told)
        _audio(maker, told)
        told.row.status = "PROCESSED"
    if far > 0.25:
        _transcription(maker, told)
        told.row.status = maker.draw.choice(("TRANSCRIBED", "UPLOADED", "READY"))


def absolute(maker: Maker, user: int) -> None:
    """Paths are absolute, as the tree lies now."""
    _all(maker, maker.recording(user, "absolute"), lambda path: f"{maker.old}/{path}")


def moved_base(maker: Maker, user: int) -> None:
    """Paths are absolute, from before the tree was moved here."""
    _all(maker, maker.recording(user, "moved base"), lambda path: f"/opt/platform/storage/media/{path}")


def prefixed(maker: Maker, user: int) -> None:
    """Paths are relative to the program's directory, not to the tree."""
    _all(maker, maker.recording(user, "prefixed"), lambda path: f"media/{path}")


# --- names that machines changed ------------------------------------------------------------------------------------


def row_decomposed(maker: Maker, user: int) -> None:
    """The row has the name in NFD, the disk in NFC."""
    _all(maker, maker.recording(user, "row in NFD", _ACCENTED), names.decomposed)


def disk_decomposed(maker: Maker, user: int) -> None:
    """The disk has the name in NFD, the row in NFC."""
    _all(maker, maker.recording(user, "disk in NFD", _ACCENTED), on_disk=names.decomposed)


def row_latin(maker: Maker, user: int) -> None:
    """The row's paths are UTF-8 that was read as Latin-1."""
    _all(maker, maker.recording(user, "row in mojibake", _NO_CAPITAL_I), names.latin_mojibake)


def row_cyrillic(maker: Maker, user: int) -> None:
    """The row's paths are UTF-8 that was read as Windows-1251."""
    _all(maker, maker.recording(user, "row in mojibake", _NO_CAPITAL_I), names.cyrillic_mojibake)


def disk_latin(maker: Maker, user: int) -> None:
    """The names on the disk are UTF-8 that was read as Latin-1."""
    _all(maker, maker.recording(user, "disk in mojibake", _NO_CAPITAL_I), on_disk=names.latin_mojibake)


def disk_bytes(maker: Maker, user: int) -> None:
    """The names on the disk are Windows-1251, and no UTF-8."""
    told = maker.recording(user, "disk in Windows-1251", _NO_CAPITAL_I)
    _all(maker, told, on_disk=lambda text: text.encode("cp1251").decode(errors="surrogateescape"))


def case_twins(maker: Maker, user: int) -> None:
    """Two recordings whose files differ by the case of letters alone."""
    first = maker.recording(user, "differ by case", "Вебинар")
    second = maker.recording(user, "differ by case", "вебинар")
    second.stem = first.stem.lower()
    for told in (first, second):
        _source(maker, told)
        _processed(maker, told)


def form_twins(maker: Maker, user: int) -> None:
    """Two recordings whose files differ by Unicode normalisation alone, each named exactly by its row."""
    first = maker.recording(user, "differ by form", "Чай")
    second = maker.recording(user, "differ by form", "Чай")
    second.stem = names.decomposed(first.stem)
    for told in (first, second):
        _source(maker, told)
        _processed(maker, told)


def long_names(maker: Maker, user: int) -> None:
    """Names as long as the disk takes."""
    told = maker.recording(user, "255 bytes")
    told.stem = names.as_long_as_possible(told.stem, "_processed.mp4").removesuffix("_processed.mp4")
    _all(maker, told)


def odd_names(maker: Maker, user: int) -> None:
    """Names with a tab, a newline, quotes, blanks at the ends, a mark that turns text around."""
    told = maker.recording(user, "odd characters")
    told.stem = f" -a\tb\nc \"'\\\u202e*#%\x7f {told.stem} "
    _all(maker, told)


# --- rows that say less ---------------------------------------------------------------------------------------------


def id_in_name(maker: Maker, user: int) -> None:
    """The row names no file; the names have the recording's id."""
    told = maker.recording(user, "id in the name")
    told.row.status = "PROCESSED"
    name = f"recording_{told.row.id}"
    maker.give(told, f"{told.folder}/video/unprocessed/{name}.mp4", maker.video(), "source.mp4")
    maker.give(told, f"{told.folder}/video/processed/{name}_processed.mp4", maker.video(), "video.mp4")
    maker.give(told, f"{told.folder}/audio/processed/{name}_processed.mp3", maker.audio(), "audio.mp3")


def title_in_name(maker: Maker, user: int) -> None:
    """The row names no file; the names are the recording's title, which no other has."""
    told = maker.recording(user, "title in the name")
    told.row.display_name = f"Защита диплома №{told.row.id}"
    name = names.in_a_name(told.row.display_name)
    maker.give(told, f"{told.folder}/video/unprocessed/{name}.mp4", maker.video(), "source.mp4")
    maker.give(told, f"{told.folder}/processed_audio/{name}_processed.mp3", maker.audio(), "audio.mp3")


def title_of_two(maker: Maker, user: int) -> None:
    """The rows name no file, and the name is the title of both."""
    first = maker.recording(user, "title of two")
    second = maker.recording(user, "title of two")
    first.row.display_name = second.row.display_name = f"Пересдача №{first.row.id}"
    path = f"{first.folder}/video/unprocessed/{names.in_a_name(first.row.display_name)}.mp4"
    maker.give(first, path, maker.video(), "", becomes=Action.AMBIGUOUS)


def transcription_by_id(maker: Maker, user: int) -> None:
    """The row names no directory of transcriptions; its name is the recording's id."""
    told = maker.recording(user, "transcription by id")
    _source(maker, told)
    _transcription(maker, told)
    told.row.transcription_dir = None


def no_files(maker: Maker, user: int) -> None:
    """The row names files that are gone."""
    told = maker.recording(user, "row without files")
    told.row.status = "FAILED"
    told.row.local_video_path = f"{told.folder}/video/unprocessed/{told.stem}.mp4"
    told.row.transcription_dir = f"{told.folder}/transcriptions/{told.row.id}"
    maker.truth.missing[told.row.id] = told.kind


def never_downloaded(maker: Maker, user: int) -> None:
    """The row names nothing, and nothing is there."""
    maker.recording(user, "row without paths").row.status = "INITIALIZED"


def one_file_two_rows(maker: Maker, user: int) -> None:
    """Two rows name the same file."""
    first = maker.recording(user, "named by two rows")
    second = maker.recording(user, "named by two rows", first.row.display_name)
    path = f"{first.folder}/video/unprocessed/{first.stem}.mp4"
    first.row.local_video_path = second.row.local_video_path = path
    maker.give(first, path, maker.video(), "", becomes=Action.AMBIGUOUS)


# --- the same sound twice, and not quite ----------------------------------------------------------------------------


def different_audio(maker: Maker, user: int) -> None:
    """audio/processed and processed_audio have different files of one name: the newer is taken, the other kept."""
    told = maker.recording(user, "differing audio")
    _source(maker, told)
    places = ["audio/processed", "processed_audio"]
    maker.draw.shuffle(places)
    older, newer = (f"{told.folder}/{place}/{told.stem}_processed.mp3" for place in places)
    told.row.processed_audio_path = maker.draw.choice((older, newer))
    maker.give(told, newer, maker.audio(), "audio.mp3", when=told.when + _HOUR)
    maker.give(told, older, maker.audio(), "", becomes=Action.ASIDE)


def hard_linked(maker: Maker, user: int) -> None:
    """audio/processed and processed_audio have one file under two names."""
    told = maker.recording(user, "hard link")
    _processed(maker, told)
    path, twin = (
        f"{told.folder}/{place}/{told.stem}_processed.mp3" for place in ("audio/processed", "processed_audio")
    )
    told.row.processed_audio_path = path
    maker.give(told, path, maker.audio(), "audio.mp3")
    maker.name_again(path, twin, Action.DUPLICATE)


# --- expired --------------------------------------------------------------------------------------------------------


def expired_by_status(maker: Maker, user: int) -> None:
    """The platform let it expire, and its files stayed."""
    told = maker.recording(user, "expired")
    told.expired = True
    told.row.status = "EXPIRED"
    maker.truth.expired.add(told.target)
    _all(maker, told)


def expired_by_date(maker: Maker, user: int) -> None:
    """Its time is over, and nobody has noticed."""
    told = maker.recording(user, "expired")
    told.expired = True
    told.row.expire_at = "2024-03-01 12:00:00.000000"
    maker.truth.expired.add(told.target)
    _all(maker, told)


def expires_later(maker: Maker, user: int) -> None:
    """It has a date, which is to go with it; written as several programs write dates."""
    told = maker.recording(user, "expires later")
    year, written = maker.draw.choice(
        (
            (2031, "2031-05-09 08:30:00.000000"),
            (2031, "2031-05-09T08:30:00+00:00"),
            (2031, "2031-05-09T11:30:00+03:00"),
            (2040, "2040-05-09T08:30:00Z"),
        )
    )
    told.row.expire_at = written
    maker.truth.expiries[told.target] = f"{year}-05-09T08:30:00Z"
    _all(maker, told)


# --- damage, and what is no file ------------------------------------------------------------------------------------


def cut_off(maker: Maker, user: int) -> None:
    """A download and an encode were cut off; their bytes are what there is."""
    told = maker.recording(user, "cut off")
    for place, name, column in (
        ("video/unprocessed", f"{told.stem}.mp4", "local_video_path"),
        ("video/processed", f"{told.stem}_processed.mp4", "processed_video_path"),
    ):
        data = maker.video()
        path = f"{told.folder}/{place}/{name}"
        setattr(told.row, column, path)
        target = "source.mp4" if column == "local_video_path" else "video.mp4"
        maker.give(told, path, data[: maker.draw.randrange(40, len(data) - 200)], target)


def old_times(maker: Maker, user: int) -> None:
    """A clock that had not been set."""
    told = maker.recording(user, "1970")
    told.when = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    _source(maker, told)
    _processed(maker, told)


def far_times(maker: Maker, user: int) -> None:
    """A clock that was ahead; 2040 does not fit into 32 bits."""
    told = maker.recording(user, "2040")
    told.when = datetime.datetime(2040, 2, 29, 12, 0, 1, tzinfo=datetime.UTC)
    _source(maker, told)
    _processed(maker, told)


def linked(maker: Maker, user: int) -> None:
    """What the row names is a link: to a file in the tree, out of the tree, to nothing."""
    told = maker.recording(user, "link")
    _processed(maker, told)
    processed = f"../processed/{told.stem}_processed.mp4"
    outside = maker.outside / "somebody_elses.mp4"
    to = maker.draw.choice((processed, os.fspath(outside), "../nowhere.mp4"))
    told.row.local_video_path = f"{told.folder}/video/unprocessed/{told.stem}.mp4"
    maker.link(told.row.local_video_path, to, told.kind)


def piped(maker: Maker, user: int) -> None:
    """What the row names is a named pipe."""
    told = maker.recording(user, "pipe")
    _processed(maker, told)
    told.row.local_video_path = f"{told.folder}/video/unprocessed/{told.stem}.mp4"
    maker.pipe(told.row.local_video_path, told.kind)


def forbidden(maker: Maker, user: int) -> None:
    """A file that its mode lets nobody read; root can."""
    told = maker.recording(user, "mode 000")
    path = f"{told.folder}/video/unprocessed/{told.stem}.mp4"
    told.row.local_video_path = path
    becomes = Action.COPY if os.geteuid() == 0 else Action.UNREADABLE
    maker.give(told, path, maker.video(), "source.mp4", becomes=becomes)
    os.chmod(maker.path(path), 0)


def other_container(maker: Maker, user: int) -> None:
    """The source is no MP4, and keeps its ending."""
    told = maker.recording(user, "other ending")
    told.row.local_video_path = f"{told.folder}/video/unprocessed/{told.stem}.mkv"
    maker.give(told, told.row.local_video_path, maker.matroska(), "source.mkv")
    _processed(maker, told)


PLAIN: tuple[Story, ...] = (plain, plain, plain, plain, plain, plain, absolute, moved_base, prefixed)
ODD: tuple[Story, ...] = (
    plain,
    absolute,
    moved_base,
    prefixed,
    row_decomposed,
    disk_decomposed,
    row_latin,
    row_cyrillic,
    disk_latin,
    disk_bytes,
    case_twins,
    form_twins,
    long_names,
    odd_names,
    id_in_name,
    title_in_name,
    title_of_two,
    transcription_by_id,
    no_files,
    never_downloaded,
    one_file_two_rows,
    different_audio,
    hard_linked,
    expired_by_status,
    expired_by_date,
    expires_later,
    cut_off,
    old_times,
    far_times,
    linked,
    piped,
    forbidden,
    other_container,
)

__all__ = ["ODD", "PLAIN", "Story"]
