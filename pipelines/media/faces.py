"""Faces in frames, found by a face detection network that the user provides, and cut out as squares."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError, read_file

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]  # an extra

# Frames are searched with the longer side shrunk to each of these: at one of the two scales a face has the 10 to 300
# pixels that YuNet was trained for.
_SCALED_SIDES = (640, 240)
_MIN_SCORE = 0.8
_MAX_IOU = 0.3  # non-maximum suppression: boxes that overlap more are one face
_MAX_CANDIDATES = 5000  # boxes of one frame before non-maximum suppression; OpenCV's default
_MARGIN = 1.3  # side of the square over the longer side of the face, as in FaceForensics++ (Rössler et al. 2019)
_MIN_SIDE = 48  # pixels of a square; a smaller one would be mostly interpolation at a network's input size
_log_level_lock = threading.Lock()


class Face(NamedTuple):
    """A square of a frame with a face in it: its position in pixels, and uint8 (side, side, 3), RGB."""

    left: int
    top: int
    side: int
    image: np.ndarray


class FaceFinder:
    """YuNet (Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y), run by OpenCV.

    Args:
        model: its ONNX file.

    Attributes:
        digest: SHA-256 of the file.

    Raises:
        DataError: OpenCV is not installed, or the file is not a YuNet model.
    """

    def __init__(self, model: Path) -> None:
        if cv2 is None:
            raise DataError(f'finding faces with {model} needs OpenCV; install it with: pip install "ddkeras[faces]"')
        try:
            content = read_file(model)
        except (OSError, UnreadableError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{model} cannot be read: {reason}; give the ONNX file of YuNet") from error
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            with _silent_opencv():
                self._network = cv2.FaceDetectorYN.create(
                    "onnx",
                    np.frombuffer(content, np.uint8),
                    np.empty(0, np.uint8),
                    (320, 320),
                    _MIN_SCORE,
                    _MAX_IOU,
                    _MAX_CANDIDATES,
                )
                self._network.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise DataError(
                f"{model} is not a YuNet model that OpenCV {cv2.__version__} can run; see docs/video.md"
            ) from error

    def faces(self, frame: np.ndarray) -> list[Face]:
        """Cut out every face of a frame.

        A square is larger than its face, and shifted where it would leave the frame. Squares of fewer than 48 pixels
        a side are dropped.

        Args:
            frame: uint8 (height, width, 3), RGB.

        Returns:
            The faces from left to right.
        """
        scales = {min(1.0, side / max(frame.shape[:2])) for side in _SCALED_SIDES}
        boxes = np.concatenate([self._detect(frame, scale) for scale in sorted(scales)])
        kept = cv2.dnn.NMSBoxes(boxes[:, :4].tolist(), boxes[:, 4].tolist(), _MIN_SCORE, _MAX_IOU)
        squares = sorted(_square(*boxes[index, :4], *frame.shape[:2]) for index in kept)
        return [
            Face(left, top, side, np.ascontiguousarray(frame[top : top + side, left : left + side]))
            for left, top, side in squares
            if side >= _MIN_SIDE
        ]

    def _detect(self, frame: np.ndarray, scale: float) -> np.ndarray:
        """Search a frame at some scale: float64 (n, 5) of left, top, width, height in frame pixels, and score."""
        height, width = (max(1, round(length * scale)) for length in frame.shape[:2])
        if min(height, width) < _MIN_SIDE:  # in slivers YuNet finds faces that are not there
            return np.empty((0, 5))
        scaled = frame if scale == 1 else cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        self._network.setInputSize((width, height))
        _, boxes = self._network.detect(cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR))
        if boxes is None:
            return np.empty((0, 5))
        return boxes[:, [0, 1, 2, 3, -1]].astype(np.float64) / [scale, scale, scale, scale, 1]


@contextlib.contextmanager
def _silent_opencv() -> Iterator[None]:
    """Keep OpenCV from logging why it cannot load a model, which it raises as well."""
    with _log_level_lock:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(level)


def _square(
    left: float, top: float, width: float, height: float, frame_height: int, frame_width: int
) -> tuple[int, int, int]:
    """Left, top and side of the square around a face, within the frame."""
    side = min(round(_MARGIN * max(width, height)), frame_height, frame_width)
    centre_x, centre_y = left + width / 2, top + height / 2
    return (
        int(np.clip(round(centre_x - side / 2), 0, frame_width - side)),
        int(np.clip(round(centre_y - side / 2), 0, frame_height - side)),
        side,
    )
