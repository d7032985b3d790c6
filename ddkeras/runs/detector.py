"""What a run and an ensemble of runs have in common for whoever measures or explains them."""

from pathlib import Path
from typing import Protocol, Self

from ddkeras.metrics.calibration import OperatingPoint


class Detector(Protocol):
    """A trained detector in a folder of its own; implemented by `Run` and `Ensemble`."""

    @property
    def folder(self) -> Path:
        """Where it is stored; evaluations are written to `evaluation/<split>` in it."""

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
        """Of the records that it was trained on; empty where members of an ensemble differ in it."""

    @property
    def hold_out(self) -> str | None:
        """The source that it was trained without, if any."""

    @property
    def unfitted(self) -> str:
        """A sentence for reports, for as long as the operating point is not fitted."""

    def cost(self) -> dict:
        """Number of parameters and seconds of training; None where unknown."""

    def described(self) -> dict:
        """What identifies it, JSON-ready, to be stored beside its numbers."""

    def with_operating_point(self, point: OperatingPoint) -> Self:
        """The same detector with another operating point, which is stored."""
