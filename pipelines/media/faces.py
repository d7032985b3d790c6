"""Faces in frames: found by a network that the user gives, and cut out as squares."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError, read_file

try:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what fails is raised as well
    import cv2
except ImportError:  # an extra
    cv2 = None

# Longer sides to which larger frames are shrunk: at one of them a face has the 10 to 300 pixels that YuNet knows.
_LOOKS = (640, 240)
_SURE = 0.8  # of YuNet's scores, that there is a face
_SAME = 0.3  # of the union of two boxes that they share: one face
_CANDIDATES = 5000  # boxes of one frame, before those of one face become one; OpenCV's default
_MARGIN = 1.3  # of a square to the longer side of its face, as in FaceForensics++ (Rössler et al. 2019)
_SMALLEST = 48  # pixels of a square, or a network that takes larger images judges how it was enlarged


class Face(NamedTuple):
    """A square of a frame with a face in it: its place in pixels, and uint8 (side, side, 3), RGB."""

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
        DataError: OpenCV is not installed, or the file is none of YuNet's.
    """

    def __init__(self, model: Path) -> None:
        if cv2 is None:
            raise DataError(f'to look for faces with {model}: pip install "ddkeras[faces]"')
        try:
            content = read_file(model)
        except (OSError, UnreadableError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError(f"{model} cannot be read, {why}; give the ONNX file of YuNet") from error
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            self._network = cv2.FaceDetectorYN.create("onnx", content, b"", (320, 320), _SURE, _SAME, _CANDIDATES)
            self._network.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise DataError(
                f"{model} is no YuNet that OpenCV {cv2.__version__} can run; see docs/video.md"
            ) from error

    def faces(self, frame: np.ndarray) -> list[Face]:
        """Cut out every face of a frame, uint8 (height, width, 3), RGB; from left to right.

        A square is larger than its face, and moved into the frame where it would reach beyond. What makes a square
        of fewer than 48 pixels is passed over.
        """
        scales = {min(1.0, longest / max(frame.shape[:2])) for longest in _LOOKS}
        found = np.concatenate([self._look(frame, scale) for scale in sorted(scales)])
        own = cv2.dnn.NMSBoxes(found[:, :4].tolist(), found[:, 4].tolist(), _SURE, _SAME)
        squares = sorted(_square(*found[index, :4], *frame.shape[:2]) for index in own)
        return [
            Face(left, top, side, np.ascontiguousarray(frame[top : top + side, left : left + side]))
            for left, top, side in squares
            if side >= _SMALLEST
        ]

    def _look(self, frame: np.ndarray, scale: float) -> np.ndarray:
        """Boxes in a frame that was shrunk: left, top, width, height in pixels of the frame, and the score."""
        height, width = (max(1, round(length * scale)) for length in frame.shape[:2])
        if min(height, width) < _SMALLEST:  # in slivers OpenCV finds what is not there
            return np.empty((0, 5))
        seen = frame if scale == 1 else cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        self._network.setInputSize((width, height))
        _, boxes = self._network.detect(cv2.cvtColor(seen, cv2.COLOR_RGB2BGR))
        if boxes is None:
            return np.empty((0, 5))
        return boxes[:, [0, 1, 2, 3, -1]].astype(np.float64) / [scale, scale, scale, scale, 1]


def _square(left: float, top: float, width: float, height: float, rows: int, columns: int) -> tuple[int, int, int]:
    side = min(round(_MARGIN * max(width, height)), rows, columns)
    middle_x, middle_y = left + width / 2, top + height / 2
    return (
        int(np.clip(round(middle_x - side / 2), 0, columns - side)),
        int(np.clip(round(middle_y - side / 2), 0, rows - side)),
        side,
    )
