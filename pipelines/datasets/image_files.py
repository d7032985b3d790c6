"""Which files of a folder are images: those with the suffix of one, and others that begin as an image does."""

import os
import stat
from pathlib import Path

from pipelines.media import video
from pipelines.media.headers import image_format

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .pjpeg .pjp .png .apng .webp .bmp .dib .gif "  # noqa: SIM905
    ".tif .tiff .avif .heic .heif .jxl".split()
)
# Of cameras' raw files: they begin as TIFF does, and what Pillow reads of them is a preview.
_RAW_SUFFIXES = frozenset([".arw", ".cr2", ".dng", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".srw"])
_BEGINNING = 64  # bytes


def is_image(folder: Path, path: str) -> bool:
    """Whether the file at `path` in `folder` is an image. It is opened only if its suffix is not that of an image."""
    suffix = _suffix(path)
    return suffix in IMAGE_SUFFIXES or (
        suffix not in _RAW_SUFFIXES and suffix not in video.SUFFIXES and _begins_as_image(os.path.join(folder, path))
    )


class LeftOut:
    """Counts the files that were left out, and keeps the first of them as an example."""

    def __init__(self) -> None:
        self._first = ""
        self._count = self._videos = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, path: str) -> None:
        """Count the file at `path`."""
        self._first = min(path, self._first or path)
        self._count += 1
        self._videos += _suffix(path) in video.SUFFIXES

    def describe(self, what: str) -> str:
        """Their number, the first, and what can be done with videos among them; `what` says what they are."""
        text = f"{what}: {self._count}, such as {self._first}"
        if not self._videos:
            return text
        number = "1 is a video" if self._videos == 1 else f"{self._videos} are videos"
        return f"{text}; {number}: ddk predict scores videos that are named, all else takes extracted frames"


def _suffix(path: str) -> str:
    return "." + path.rpartition(".")[2].lower()


def _begins_as_image(file: str) -> bool:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # O_NONBLOCK keeps a named pipe from blocking
    except OSError:
        return False
    try:
        beginning = os.read(descriptor, _BEGINNING) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return False
    finally:
        os.close(descriptor)
    # A text may begin with BM or GIF8, too, but it has neither zeros nor the first byte of a JPEG.
    is_binary = b"\0" in beginning or beginning[:1] == b"\xff"
    return is_binary and image_format(beginning) != "unknown"
