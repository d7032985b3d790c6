"""Ensembles: several runs measured and used as one detector, by the weighted mean of their calibrated logits.

artifacts/ensembles/<run>+<run>/
    ensemble.json   the members with their digests, their weights, and the operating point
    evaluation/     what `ddk evaluate` measured
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ddkeras.exceptions import ConfigError
from ddkeras.metrics.calibration import Limits, OperatingPoint
from ddkeras.runs.run import ENSEMBLE, EVALUATION, Run, intact, run_at
from pipelines import atomic

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ensemble:
    """Runs that answer together; to whoever measures, what a `Run` is.

    Args:
        folder: which holds its ensemble.json once it is `save`d.
        members: of the same categories.
        weights: one for each, of sum 1.
        point: of the mean of the members' calibrated logits.
    """

    folder: Path
    members: list[Run]
    weights: list[float]
    point: OperatingPoint
    unfitted: ClassVar[str] = (  # what to know of it as long as its point is not fitted
        "no operating point was fitted on what the members say together: its limits are the mean of theirs"
    )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def categories(self) -> list[str]:
        """Those of each member."""
        return self.members[0].categories

    @property
    def fingerprint(self) -> str:
        """That of the records that all were trained on; empty where they are not the same."""
        found = {member.fingerprint for member in self.members}
        return found.pop() if len(found) == 1 else ""

    @property
    def hold_out(self) -> str | None:
        """The source that all were trained without."""
        return self.members[0].hold_out

    def cost(self) -> dict:
        """As of a run; of all members together."""
        costs = [member.cost() for member in self.members]
        each = {name: [cost[name] for cost in costs] for name in costs[0]}
        return {name: None if None in values else sum(values) for name, values in each.items()}

    def described(self) -> dict:
        """What numbers are to be kept with."""
        told = [{"weight": weight, **member.described()} for member, weight in self._weighted()]
        return {"run": self.name, "members": told}

    def with_operating_point(self, point: OperatingPoint) -> "Ensemble":
        """The ensemble with that operating point, from now on."""
        return replace(self, point=point).save()

    def save(self) -> "Ensemble":
        """The same, which can be opened from then on. What was measured of other weights of its members goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / ENSEMBLE).is_file() and _read(self.folder)["members"] != self.identities():
            _log.info("members of %s were changed since; what was measured of it before is removed", self.folder)
            shutil.rmtree(self.folder / EVALUATION, ignore_errors=True)
        told = {"members": self.identities(), "operating_point": self.point.to_dict()}
        with atomic.file(self.folder / ENSEMBLE) as partial:
            partial.write_text(json.dumps(told, indent=2) + "\n")
        return self

    def identities(self) -> list[dict]:
        """Which runs they are: of each the `path`, the `digest` and the `weight`."""
        return [
            {"path": str(member.folder.resolve()), "digest": member.digest(), "weight": weight}
            for member, weight in self._weighted()
        ]

    def _weighted(self) -> list[tuple[Run, float]]:
        return list(zip(self.members, self.weights, strict=True))


def compose(paths: Sequence[Path], weights: Sequence[float] | None, ensembles: Path) -> Ensemble:
    """Runs as an ensemble, whose folder is in `ensembles`; where it is there already, with what was fitted.

    Args:
        paths: folders of runs, or their model.keras.
        weights: one for each, in any proportion; None for the same of all.

    Raises:
        ConfigError: there are fewer than two, one is no run, they do not go together, the weights do not, or its
            folder is of other runs of the same names.
    """
    if len(paths) < 2:
        raise ConfigError("an ensemble has two members or more; give --model for each, or a run alone with --run")
    members = [run_at(path) for path in paths]
    shares, point = agreed(members, weights)
    if len({member.hold_out for member in members}) > 1:
        raise ConfigError("the members were trained without different sources; give those of one --hold-out")
    name = "+".join(member.name for member in members)
    if len(set(shares)) > 1:
        name += "-" + "to".join(f"{weight:g}" for weight in weights)
    made = Ensemble(ensembles / atomic.shorten(name), members, shares, point)
    if not (made.folder / ENSEMBLE).is_file():
        return made
    known, identities = _read(made.folder), made.identities()
    if [one["path"] for one in known["members"]] != [one["path"] for one in identities]:
        raise ConfigError(f"{made.folder} is of other runs of the same names; move it away, or rename a run")
    is_same = known["members"] == identities
    return replace(made, point=OperatingPoint.from_dict(known["operating_point"])) if is_same else made


def open_ensemble(folder: Path) -> Ensemble:
    """What was `save`d.

    Raises:
        ConfigError: it is damaged, or a member is gone, or another than then.
    """
    known = _read(folder)
    members = []
    for one in known["members"]:
        member = run_at(Path(one["path"]))
        if member.digest() != one["digest"]:
            raise ConfigError(
                f"{member.folder} was changed since {folder} was made of it; make it anew with: ddk evaluate --model"
            )
        members.append(member)
    weights = [one["weight"] for one in known["members"]]
    return Ensemble(folder, members, weights, OperatingPoint.from_dict(known["operating_point"]))


def agreed(members: Sequence[Any], weights: Sequence[float] | None) -> tuple[list[float], OperatingPoint]:
    """What members count for, with a sum of 1, and the operating point of them all as long as none was fitted.

    Args:
        members: with `name`, `categories` and `point`, as runs have and scorers.
        weights: one for each, in any proportion; None for the same of all.

    Raises:
        ConfigError: they have different categories, or the weights do not go with them.
    """
    shares = _shared(weights, len(members))
    _check_categories(members)
    return shares, _mean_point([member.point for member in members], shares, members[0].categories)


def _shared(weights: Sequence[float] | None, number: int) -> list[float]:
    weights = [1.0] * number if weights is None else list(weights)
    if len(weights) != number:
        raise ConfigError(f"--weights has {len(weights)} for {number} models; give one for each --model")
    if not all(0 < weight < float("inf") for weight in weights):
        raise ConfigError("--weights must be above 0; leave out a model that is to count for nothing")
    return [weight / sum(weights) for weight in weights]


def _check_categories(members: Sequence[Any]) -> None:
    first, *others = members
    for other in others:
        if other.categories != first.categories:  # in the same order, too
            raise ConfigError(
                f"{other.name} has the categories {', '.join(other.categories) or 'none'}, but {first.name} has "
                f"{', '.join(first.categories) or 'none'}; an ensemble needs the same of all"
            )


def _mean_point(points: Sequence[OperatingPoint], weights: Sequence[float], categories: list[str]) -> OperatingPoint:
    """That of the weighted mean of calibrated logits, logit / temperature, as long as none was fitted.

    Its limits are the means of the members' calibrated ones, for the categories, too, where a member has its own.
    """

    def mean(each: Sequence[Limits]) -> Limits:
        scaled = [(point.temperature, limits) for point, limits in zip(points, each, strict=True)]
        low, high = (
            sum(weight * getattr(limits, name) / by for weight, (by, limits) in zip(weights, scaled, strict=True))
            for name in ("real_below", "fake_from")
        )
        return Limits(low, high)

    own = [name for name in categories if any(name in point.by_category for point in points)]
    by_category = {name: mean([point.by_category.get(name, point.limits) for point in points]) for name in own}
    return OperatingPoint(1.0, mean([point.limits for point in points]), by_category)


def _read(folder: Path) -> dict:
    with intact(folder / ENSEMBLE, "remove it, then make it anew: ddk evaluate --model"):
        known = json.loads((folder / ENSEMBLE).read_text())
        OperatingPoint.from_dict(known["operating_point"])
        if not all({"path", "digest", "weight"} <= set(one) for one in known["members"]):
            raise KeyError("of a member")
    return known
