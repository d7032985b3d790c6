"""Ensembles: several runs used as one detector, by the weighted mean of their calibrated logits.

artifacts/ensembles/<run>+<run>/
    ensemble.json   the members with their digests, their weights, and the operating point
    evaluation/     results of `ddk evaluate`
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict, TypeVar

from ddkeras.exceptions import ConfigError
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.runs.detector import Cost
from ddkeras.runs.json_files import of_type, read_json
from ddkeras.runs.run import ENSEMBLE, EVALUATION, Run, open_run
from pipelines import atomic

_Number = TypeVar("_Number", int, float)
_log = logging.getLogger(__name__)


class _Member(TypedDict):
    """A member as ensemble.json identifies it."""

    path: str
    digest: str
    weight: float


class _Calibrated(Protocol):
    """What runs and scorers have in common here."""

    @property
    def name(self) -> str: ...

    @property
    def categories(self) -> list[str]: ...

    @property
    def point(self) -> OperatingPoint: ...


@dataclass(frozen=True)
class Ensemble:
    """Several runs used as one detector, with the interface of a `Run`.

    Args:
        folder: where its ensemble.json is, once it is `save`d.
        members: runs with the same categories.
        weights: one per member, of sum 1.
        point: calibration and thresholds of the mean of the members' calibrated logits.
    """

    folder: Path
    members: list[Run]
    weights: list[float]
    point: OperatingPoint
    unfitted: ClassVar[str] = (
        "no operating point was fitted on the mean of the members' logits: its thresholds are the mean of theirs"
    )

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def categories(self) -> list[str]:
        """The class names of the category heads, in the order of their outputs."""
        return self.members[0].categories

    @property
    def fingerprint(self) -> str:
        """Of the records that all members were trained on; empty where they differ."""
        fingerprints = {member.fingerprint for member in self.members}
        return fingerprints.pop() if len(fingerprints) == 1 else ""

    @property
    def hold_out(self) -> str:
        """The source all members were trained without, or an empty string."""
        return self.members[0].hold_out

    @property
    def min_side(self) -> int:
        """The largest of the members'."""
        return max(member.min_side for member in self.members)

    def cost(self) -> Cost:
        """What all members together took to make."""
        costs = [member.cost() for member in self.members]
        return {
            "parameters": _total([cost["parameters"] for cost in costs]),
            "seconds_of_training": _total([cost["seconds_of_training"] for cost in costs]),
        }

    def describe(self) -> dict[str, Any]:
        """Its identity, JSON-ready, to be stored with its results."""
        members = [{"weight": weight, **member.describe()} for member, weight in self._weighted()]
        return {"run": self.name, "members": members}

    def with_operating_point(self, point: OperatingPoint) -> "Ensemble":
        """The same ensemble with another operating point, which is stored."""
        return replace(self, point=point).save()

    def save(self) -> "Ensemble":
        """Write ensemble.json, and remove evaluations of earlier versions of its members."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / ENSEMBLE).is_file() and _read(self.folder)[0] != self.identities():
            _log.info("members of %s have changed; its earlier evaluations are removed", self.folder)
            shutil.rmtree(self.folder / EVALUATION, ignore_errors=True)
        content = {"members": self.identities(), "operating_point": self.point.to_dict()}
        with atomic.file(self.folder / ENSEMBLE) as partial_file:
            partial_file.write_text(json.dumps(content, indent=2) + "\n")
        return self

    def identities(self) -> list[_Member]:
        """The `path`, `digest` and `weight` of each member."""
        return [
            {"path": str(member.folder.resolve()), "digest": member.digest(), "weight": weight}
            for member, weight in self._weighted()
        ]

    def _weighted(self) -> list[tuple[Run, float]]:
        return list(zip(self.members, self.weights, strict=True))


def compose(paths: Sequence[Path], weights: Sequence[float] | None, ensembles: Path) -> Ensemble:
    """Combine runs into an ensemble, with its stored operating point if it was composed before.

    Args:
        paths: run folders, or their model.keras.
        weights: one per run, in any proportion; None for equal weights.
        ensembles: the parent of its folder.

    Raises:
        ConfigError: there are fewer than two runs, one cannot be opened, they or their weights do not fit together,
            or the folder belongs to other runs of the same names.
    """
    if len(paths) < 2:
        raise ConfigError("an ensemble needs at least two members; give --run for each")
    members = [open_run(path) for path in paths]
    shares, point = combine(members, weights)
    if len({member.hold_out for member in members}) > 1:
        raise ConfigError("the members were trained with different --hold-out; give runs with the same")
    name = "+".join(member.name for member in members)
    if weights and len(set(shares)) > 1:
        name += "-" + "to".join(f"{weight:g}" for weight in weights)
    ensemble = Ensemble(ensembles / atomic.shorten(name), members, shares, point)
    if not (ensemble.folder / ENSEMBLE).is_file():
        return ensemble
    stored, stored_point = _read(ensemble.folder)
    identities = ensemble.identities()
    if [member["path"] for member in stored] != [member["path"] for member in identities]:
        raise ConfigError(f"{ensemble.folder} belongs to other runs of the same names; move it away, or rename a run")
    return replace(ensemble, point=stored_point) if stored == identities else ensemble


def open_ensemble(folder: Path) -> Ensemble:
    """Open an ensemble that was `save`d.

    Raises:
        ConfigError: it is damaged, or a member is missing or has changed since.
    """
    identities, point = _read(folder)
    members = [open_run(identity["path"]) for identity in identities]
    for member, identity in zip(members, identities, strict=True):
        if member.digest() != identity["digest"]:
            raise ConfigError(
                f"{member.folder} has changed since {folder} was made from it; make it again: ddk evaluate --run"
            )
    return Ensemble(folder, members, [identity["weight"] for identity in identities], point)


def combine(members: Sequence[_Calibrated], weights: Sequence[float] | None) -> tuple[list[float], OperatingPoint]:
    """The normalized weights of an ensemble's members, and its operating point until one is fitted.

    Args:
        members: runs or scorers.
        weights: one per member, in any proportion; None for equal weights.

    Raises:
        ConfigError: the members have different categories, or the weights do not fit them.
    """
    shares = _normalized(weights, len(members))
    _check_categories(members)
    return shares, _mean_point([member.point for member in members], shares, members[0].categories)


def _total(values: list[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _normalized(weights: Sequence[float] | None, number: int) -> list[float]:
    weights = [1.0] * number if weights is None else list(weights)
    if len(weights) != number:
        raise ConfigError(f"--ensemble-weights has {len(weights)} for {number} members; give one for each --run")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ConfigError("--ensemble-weights must be above 0; leave out a member that should not count")
    return [weight / sum(weights) for weight in weights]


def _check_categories(members: Sequence[_Calibrated]) -> None:
    first, *others = members
    for other in others:
        if other.categories != first.categories:  # in the same order, too
            raise ConfigError(
                f"{other.name} has the categories {', '.join(other.categories) or 'none'}, but {first.name} has "
                f"{', '.join(first.categories) or 'none'}; all members of an ensemble need the same"
            )


def _mean_point(points: Sequence[OperatingPoint], weights: Sequence[float], categories: list[str]) -> OperatingPoint:
    """An operating point for the weighted mean of calibrated logits, logit / temperature.

    Its thresholds are the weighted means of the members' calibrated ones, also for categories of which a member has
    thresholds of its own.
    """

    def mean(limits: Sequence[Limits]) -> Limits:
        scaled = list(zip(weights, limits, points, strict=True))
        low = sum(weight * limit.real_below / point.temperature for weight, limit, point in scaled)
        high = sum(weight * limit.fake_from / point.temperature for weight, limit, point in scaled)
        return Limits(low, high)

    by_category = {
        name: mean([point.by_category.get(name, point.limits) for point in points])
        for name in categories
        if any(name in point.by_category for point in points)
    }
    return OperatingPoint(1.0, mean([point.limits for point in points]), by_category)


def _read(folder: Path) -> tuple[list[_Member], OperatingPoint]:
    def parse(content: dict[str, Any]) -> tuple[list[_Member], OperatingPoint]:
        members = [
            _Member(
                path=of_type(member["path"], str),
                digest=of_type(member["digest"], str),
                weight=of_type(member["weight"], float),
            )
            for member in content["members"]
        ]
        if not members:
            raise ValueError("an ensemble has members")
        return members, OperatingPoint.from_dict(content["operating_point"])

    return read_json(folder / ENSEMBLE, parse, remedy="remove it, then make it again: ddk evaluate --run")
