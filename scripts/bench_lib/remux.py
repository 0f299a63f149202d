"""FFmpeg copies the streams of a recording into a new file, reading and writing on the target."""

import shutil
import subprocess
from pathlib import Path

from .spec import Better, Context, Group, Metric, Workload
from .streams import MIB, warm_memory
from .target import LeftOut

USER = 7
SECONDS = 5
"""Length of the clip that the input repeats."""

REMUX = Metric("remux", "ffmpeg -c copy of {media_mb:,} MB, cold", "s", Better.LOWER, Group.DATA)


def ffmpeg(*arguments: str | Path) -> None:
    """Run it. Raises LeftOut where there is none."""
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise LeftOut("ffmpeg is not installed") from error
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"ffmpeg: {error.stderr.decode(errors='replace').strip()}") from error


def _input(context: Context) -> Path:
    """A recording of media_mb, made once per run: a short clip of noise, encoded, then repeated without encoding."""
    path = context.scratch / "source.mp4"
    if path.exists():
        return path
    clip = context.scratch / "clip.mp4"
    video = f"testsrc2=size=1280x720:rate=30:duration={SECONDS},noise=alls=60:allf=t"
    sound = f"sine=duration={SECONDS}"
    codecs = ("-c:v", "mpeg4", "-b:v", "60M", "-c:a", "aac")
    ffmpeg("-f", "lavfi", "-i", video, "-f", "lavfi", "-i", sound, *codecs, clip)
    repeats = context.sizes.media_mb * 10**6 // clip.stat().st_size
    ffmpeg("-stream_loop", str(repeats), "-i", clip, "-c", "copy", path)
    clip.unlink()
    return path


def _prepare(context: Context) -> None:
    shutil.copyfile(_input(context), context.recording(USER, 1) / "source.mp4")
    context.target.settle()


def _remux(context: Context) -> None:
    directory = context.recording(USER, 1)
    source, result = directory / "source.mp4", directory / "remuxed.mp4"
    size = source.stat().st_size
    warm_memory(context.scratch, 2 * size // MIB)
    context.target.drop_pages(source)
    with context.meter() as meter:
        ffmpeg("-i", source, "-c", "copy", result)
    context.put(REMUX.key, meter.duration())
    if result.stat().st_size < size * 0.95:
        raise AssertionError(f"{result}: {result.stat().st_size} bytes from {size}")
    context.target.settle()
    result.unlink()
    context.target.settle()


def _clear(context: Context) -> None:
    shutil.rmtree(context.recording(USER, 1))
    context.target.settle()


WORKLOADS = (Workload("remux", (REMUX,), _remux, prepare=_prepare, clear=_clear, warm_up=False),)
