"""The common interface of runs and ensembles of runs."""

from pathlib import Path
from typing import Any, Protocol, Self, TypedDict

from ddkeras.metrics.calibration import OperatingPoint


class Cost(TypedDict):
    """Number of parameters, and seconds of training since it was last started or resumed; None where unknown."""

    parameters: int | None
    seconds_of_training: float | None


class Detector(Protocol):
    """A trained detector in a folder of its own; implemented by `Run` and `Ensemble`."""

    @property
    def folder(self) -> Path:
        """Where it is stored; evaluations are written to `evaluation/<split>` there."""

    @property
    def name(self) -> str:
        """The name of the folder."""

    @property
    def categories(self) -> list[str]:
        """Class names of the category head, in the order of its outputs; empty without that head."""

    @property
    def point(self) -> OperatingPoint:
        """Calibration and thresholds."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the records it was trained on; empty where members of an ensemble differ in it."""

    @property
    def hold_out(self) -> str:
        """The source it was trained without, or an empty string."""

    @property
    def min_side(self) -> int:
        """Images with fewer pixels on their shorter side get the verdict unsure."""

    @property
    def unfitted(self) -> str:
        """A note for reports while the operating point is not fitted."""

    def cost(self) -> Cost:
        """What it took to make."""

    def describe(self) -> dict[str, Any]:
        """Its identity, JSON-ready, to be stored with its results."""

    def with_operating_point(self, point: OperatingPoint) -> Self:
        """The same detector with another operating point, which is stored."""
