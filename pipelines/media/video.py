"""The frames of a video: sampled by their timestamps, upright, one at a time.

A clip of any length takes the memory of a few frames. Only video files are opened: no playlists, which could name
other files, and nothing on a network.
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
except ImportError:
    av = None  # type: ignore[assignment]  # an extra

SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
_CONTAINERS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,ogg"  # FFmpeg's names
_ATTACHED_PICTURE = 0x400  # FFmpeg's flag of a stream that is a single picture, such as cover art
_MAX_MISSING = 0.1  # of the declared duration; with more missing at its end a file counts as cut short
_TOLERANCE = 1e-6  # seconds, for rounding
_DEFAULT_FPS = 25  # of a stream that states no frame rate


class Frame(NamedTuple):
    """One frame: seconds since the first, and uint8 (height, width, 3), RGB, upright."""

    seconds: float
    image: np.ndarray


def is_video(path: Path) -> bool:
    """Whether the suffix of a path is that of a video."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def require_library(path: Path) -> None:
    """Check that videos can be read.

    Args:
        path: the video that needs it, for the message.

    Raises:
        DataError: PyAV is not installed.
    """
    if av is None:
        raise DataError(f'{path} is a video; to score videos: pip install "ddkeras[video]"')


def sample_frames(path: Path, *, fps: float) -> Iterator[Frame]:
    """Yield the first frame, then the first frame of each further interval of `1 / fps` seconds.

    No frame is yielded twice, so a clip of variable frame rate may yield fewer where a frame is shown for longer than
    an interval. Damaged frames are skipped. A phone's rotation is undone; colours are as stored, without tone
    mapping.

    Args:
        path: a video file.
        fps: frames per second at most.

    Raises:
        UnreadableError: it cannot be read, is not a video, contains no decodable frame, has frames of too many
            pixels, or is cut short; the last is raised after the frames that exist.
    """
    next_due, count, end, duration = 0.0, 0, 0.0, 0.0
    try:
        with _open(path) as container:
            stream = _video_stream(container)
            for seconds, frame in _timed_frames(container, stream):
                count += 1
                # Some files state their duration from the first frame, others from 0.
                end = max(seconds, frame.time or 0) + _in_seconds(frame.duration, frame.time_base)
                if seconds >= next_due - _TOLERANCE:
                    next_due = (math.floor((seconds + _TOLERANCE) * fps) + 1) / fps
                    yield Frame(seconds, _upright(frame))
            duration = _declared_duration(container, stream)
    except (av.error.FFmpegError, OSError, IndexError) as error:  # IndexError: damage that names a missing stream
        raise UnreadableError(_reason(error)) from error
    if not count:
        raise UnreadableError("a video without a frame that can be decoded")
    if duration - end > max(_MAX_MISSING * duration, 0.5):
        raise UnreadableError(f"cut short: its frames end after {end:.1f} of {duration:.1f} seconds")


def _open(path: Path) -> "av.container.InputContainer":
    if not path.is_file():
        raise OSError(f"{path} is not a file")
    options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    return av.open(f"file:{path}", container_options=options, metadata_errors="replace")


def _video_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    streams = (stream for stream in container.streams.video if not stream.disposition & _ATTACHED_PICTURE)
    stream = next(streams, None)
    if stream is None:
        raise UnreadableError("no video in it, only sound" if container.streams.audio else "no video in it")
    if stream.codec_context is None:
        raise UnreadableError("a video in a codec that cannot be decoded")
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise UnreadableError(f"frames of more than {MAX_PIXELS:,} pixels")
    stream.thread_type = "AUTO"
    return stream


def _timed_frames(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator[tuple[float, "av.VideoFrame"]]:
    """All decodable frames, with the seconds since the first; a missing timestamp is filled in by the frame rate."""
    step = 1 / float(stream.guessed_rate or _DEFAULT_FPS)
    shift: float | None = None  # from the file's timestamps to ours
    seconds = 0.0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # in this packet; others may be intact
            continue
        for frame in frames:
            if frame.is_corrupt:
                continue
            if shift is None:
                shift = -(frame.time or 0.0)
            elif frame.time is None:
                seconds += step
            elif frame.time + shift < seconds - 1:  # timestamps restart, as where recordings were joined
                seconds += step
                shift = seconds - frame.time
            else:
                seconds = max(seconds, frame.time + shift)
            yield seconds, frame


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    # FFmpeg's rotation is counter-clockwise, like NumPy's.
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _declared_duration(container: "av.container.InputContainer", stream: "av.VideoStream") -> float:
    """The duration of the video as the file states it, in seconds; 0 if it does not."""
    if (
        stream.duration or container.streams.audio
    ):  # sound may last longer, so the container's duration does not count
        return _in_seconds(stream.duration, stream.time_base)
    return _in_seconds(container.duration, Fraction(1, av.time_base))


def _in_seconds(duration: int | None, time_base: Fraction | None) -> float:
    return float(duration * time_base) if duration and time_base else 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError, IndexError)):
        return "no video in a known format, damaged, or cut short"
    return getattr(error, "strerror", "") or str(error)
