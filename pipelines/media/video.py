"""The frames of a video as images: sampled by their time stamps, upright, and one at a time.

A clip of any length takes the memory of a few frames. Only video files themselves are opened: no playlist, which
could name other files, and nothing on a network.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.exceptions import DataError
from pipelines.media.headers import MAX_PIXELS, UnreadableError

try:
    import av
except ImportError:  # an extra
    av = None

SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
_CONTAINERS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,ogg"  # as FFmpeg names them
_COVER = 0x400  # FFmpeg's mark of a stream that is one picture, such as that of a song
_GONE = 0.1  # of the length that a file tells: more than this missing at its end, and it was cut short
_ROUNDING = 1e-6  # seconds


class Frame(NamedTuple):
    """One frame: seconds since the first, and uint8 (height, width, 3), RGB, upright."""

    seconds: float
    image: np.ndarray


def is_video(path: Path) -> bool:
    """Whether a path is that of a video, by its suffix."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def require_library(path: Path) -> None:
    """Do nothing where videos can be read.

    Raises:
        DataError: the library is not installed; `path` is what it is needed for.
    """
    if av is None:
        raise DataError(f'{path} is a video; to score those: pip install "ddkeras[video]"')


def sample(path: Path, *, fps: float) -> Iterator[Frame]:
    """Yield the first frame, then of each `1 / fps` seconds the first; none of them twice.

    Where a frame stays for longer than that it counts once, so that a clip of variable frame rate may yield fewer.
    Frames that are damaged are passed over. A phone's rotation is undone; colours are as the file says, without
    tone mapping.

    Args:
        fps: at most so many frames a second.

    Raises:
        UnreadableError: it cannot be read, is no video, has no frame that can be decoded, has too large ones, or
            ends before it should; the last is raised after the frames that there are.
    """
    due, count, end, length = 0.0, 0, 0.0, 0.0
    try:
        with _opened(path) as container:
            stream = _stream(container)
            for seconds, frame in _timed(container, stream):
                # Some files tell their length from the first frame, and some from 0.
                count, end = count + 1, max(seconds, frame.time or 0) + _length(frame.duration, frame.time_base)
                if seconds >= due - _ROUNDING:
                    due = (math.floor((seconds + _ROUNDING) * fps) + 1) / fps
                    yield Frame(seconds, _upright(frame))
            length = _told(container, stream)
    except (av.error.FFmpegError, OSError, IndexError) as error:  # the last where damage names a stream more
        raise UnreadableError(_why(error)) from error
    if not count:
        raise UnreadableError("a video without a frame that can be decoded")
    if length - end > max(_GONE * length, 0.5):
        raise UnreadableError(f"cut short: its frames end after {end:.1f} of {length:.1f} seconds")


def _opened(path: Path) -> "av.container.InputContainer":
    if not path.is_file():
        raise OSError(f"{path} is not a file")
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    return av.open(f"file:{path}", container_options=options, metadata_errors="replace")


def _stream(container: "av.container.InputContainer") -> "av.VideoStream":
    found = next((stream for stream in container.streams.video if not stream.disposition & _COVER), None)
    if found is None:
        raise UnreadableError("no video in it, sound alone" if container.streams.audio else "no video in it")
    if found.codec_context is None:
        raise UnreadableError("a video in a codec that cannot be decoded")
    if found.codec_context.width * found.codec_context.height > MAX_PIXELS:
        raise UnreadableError(f"frames of more than {MAX_PIXELS:,} pixels")
    found.thread_type = "AUTO"
    return found


def _timed(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator[tuple[float, "av.VideoFrame"]]:
    """All frames that can be decoded and the seconds since the first; where a time stamp lacks, by the frame rate."""
    step, shift, last = 1 / float(stream.guessed_rate or 25), None, 0.0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # of this packet; others may be whole
            continue
        for frame in frames:
            if frame.is_corrupt:
                continue
            if shift is None:
                shift = -(frame.time or 0.0)
            elif frame.time is None:
                last += step
            elif frame.time + shift < last - 1:  # time stamps begin anew, as where recordings were joined
                last += step
                shift = last - frame.time
            else:
                last = max(last, frame.time + shift)
            yield last, frame


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    # The rotation is counter-clockwise, as is NumPy's.
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _told(container: "av.container.InputContainer", stream: "av.VideoStream") -> float:
    """How long a file says that its frames go on, in seconds; 0 where it does not."""
    if stream.duration or container.streams.audio:  # which may go on for longer
        return _length(stream.duration, stream.time_base)
    return _length(container.duration, Fraction(1, av.time_base))


def _length(duration: int | None, time_base: Fraction | None) -> float:
    return float(duration * time_base) if duration and time_base else 0.0


def _why(error: Exception) -> str:
    if isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError, IndexError)):
        return "no video in a known format, damaged, or cut short"
    return getattr(error, "strerror", "") or str(error)
