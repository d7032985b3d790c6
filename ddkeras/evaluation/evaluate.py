"""A run, or an ensemble of some, measured: `measure`, read from top to bottom, is what happens in `ddk evaluate`."""

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

import numpy as np
import pandas as pd

from ddkeras.evaluation import results, robustness, scoring
from ddkeras.exceptions import ConfigError
from ddkeras.reporting import evaluation_report
from ddkeras.runs.detector import Detector
from ddkeras.runs.run import EVALUATION, Run
from pipelines import atomic
from pipelines.datasets.examples import LABELS, REGRESSION
from pipelines.records import queries
from pipelines.records.store import Records
from pipelines.transforms.perturbations import DEGRADATIONS


def measure(
    run: Detector,
    records: Records,
    splits: Sequence[str] = (),
    *,
    tell: Callable[[str], None],
    progress: scoring.Progress = scoring.silent,
    hold_out: str | None = None,
    rates: Mapping[str, float] | None = None,
    degrade: int = robustness.IMAGES,
    audit: dict | None = None,
    regression: Records | None = None,
) -> dict[str, dict]:
    """Score splits, fit the operating point where it is to be fitted, degrade some images, and write what is found.

    Args:
        run: which gets a folder `evaluation/<split>` for each split; see `report.write`.
        records: on what.
        splits: labelled ones; none for all of these but `train`, and for that where there is no other.
        tell: is given a line before images are degraded.
        progress: as `evaluation.score` takes it.
        hold_out: a source; of all sources only this one is measured, and not degraded.
        rates: `false_alarms`, `misses`; with any the operating point is fitted anew.
        degrade: how many images of each split.
        audit: what is said of the data in the model card; see `report.write`.
        regression: an opened regression set, measured too; see `pipelines.records.regression_set`. Nothing is fitted
            on it, and it is not degraded. With it, `splits` may be its name alone.

    Returns:
        The numbers of each split, by the name of its folder. Those of the regression set also have `feedback`: how
        many verdicts are `right`; `still_wrong` and `still_unsure`, the other images as `path`, `label`, `verdict`
        and `fake_probability`, those that seem most fake first; and `in_train`, the paths of those that are in train
        as well.

    Raises:
        ConfigError: there are `rates`, and the records are not those that the run was trained on.
        DataError: as `evaluation.score` and `evaluation.held_out`.
    """
    splits = _named(splits, records)
    is_to_fit = _is_to_fit(run, records, rates or {})
    begun = time.perf_counter()
    needed = dict.fromkeys([*splits, "validation"] if is_to_fit else splits)
    scores = scoring.score(run, records, list(needed), progress=progress) if needed else {}
    seconds = (time.perf_counter() - begun) / max(1, sum(len(found.labels) for found in scores.values()))
    if is_to_fit:
        run = scoring.calibrate(run, scores["validation"], **(rates or {}))
    found = {}
    for split in splits:
        chosen = scoring.held_out(scores[split], hold_out) if hold_out else scores[split]
        made = results.report(run, records, split, chosen, held_out=hold_out)
        if degrade and not hold_out:
            places = robustness.chosen(chosen, degrade)
            tell(_cost(split, len(places), seconds))
            with progress(f"{split}, degraded") as move:
                swept = robustness.sweep(run, records, split, chosen, places, move)
            made.metrics.update(_of_degraded(swept, run))
        name = f"{split}-{quote(hold_out, safe='')}" if hold_out else split
        found[name] = made.metrics
        _write(run, records, made, name, audit)
    if regression is not None:
        made = _of_regression(run, regression, records, progress)
        found[REGRESSION] = made.metrics
        _write(run, regression, made, REGRESSION, audit)
    return found


def _named(splits: Sequence[str], records: Records) -> list[str]:
    """The splits of the records that are asked for."""
    if splits:
        return [split for split in splits if split != REGRESSION]
    return [split for split in records.labelled_splits if split != "train"] or ["train"]


def _is_to_fit(run: Detector, records: Records, rates: Mapping[str, float]) -> bool:
    is_known = run.fingerprint == records.fingerprint
    if rates and not is_known:
        raise ConfigError("limits are fitted on the records that the run was trained on; give these: --records")
    return bool(rates) or (is_known and not run.point.fitted)


def _cost(split: str, images: int, seconds: float) -> str:
    """What degrading so many images means, at so many seconds for each to score."""
    ways = len(DEGRADATIONS)
    return (
        f"{split}: {images} images in {ways} ways are {images * ways:,} more to score, some "
        f"{images * ways * seconds:.0f} s; --degrade 0 does without"
    )


def _of_degraded(swept: robustness.Sweep, run: Detector) -> dict[str, dict]:
    return {
        "robustness": robustness.robustness(swept, run.point, run.categories),
        "bias_probe": robustness.bias_probe(swept),
        "stability": robustness.stability(swept, run.point, run.categories),
    }


def _of_regression(
    run: Detector, regression: Records, records: Records, progress: scoring.Progress
) -> results.Report:
    """The report on a regression set; `records` say which of its images were in training."""
    scores = scoring.score(run, regression, [REGRESSION], progress=progress)[REGRESSION]
    made = results.report(run, regression, REGRESSION, scores)
    learnt = _in_both(records, "train", regression) if "train" in records.splits else set()
    made.metrics["feedback"] = _feedback(made.predictions, learnt)
    if learnt:
        made.metrics["notes"].append(f"in train, too, and so no test: {len(learnt)} of these images")
    if run.fingerprint != records.fingerprint:
        made.metrics["notes"].append(
            "these records are not those that the run was trained on: what it was trained on of these is not known"
        )
    return made


def _in_both(records: Records, split: str, regression: Records) -> set[str]:
    """The paths in the regression set of what is in a split, too."""
    own = dict(queries.digests(regression, REGRESSION))
    return {own[digest] for digest, _ in queries.digests(records, split) if digest in own}


def _feedback(predictions: pd.DataFrame, learnt: set[str]) -> dict:
    names = np.array(LABELS)[predictions["label"]]
    table = predictions.assign(label=names).sort_values("fake_probability", ascending=False, kind="stable")
    is_unsure, is_right = table["verdict"] == "unsure", table["verdict"] == table["label"]
    columns = ["path", "label", "verdict", "fake_probability"]
    return {
        "right": int(is_right.sum()),
        "still_wrong": table.loc[~is_right & ~is_unsure, columns].to_dict("records"),
        "still_unsure": table.loc[is_unsure, columns].to_dict("records"),
        "in_train": sorted(learnt),
    }


def _write(run: Detector, records: Records, made: results.Report, name: str, audit: dict | None) -> None:
    paths = evaluation_report.shown(made.predictions, made.metrics)
    is_trained = isinstance(run, Run)  # at once, not its members each on its own
    with atomic.folder(run.folder / EVALUATION / name, marker="metrics.json") as partial:
        evaluation_report.write(
            partial,
            made.metrics,
            made.predictions,
            history=run.history() if is_trained else None,
            best_epoch=run.best_epoch()["best_epoch"] if is_trained else None,
            thumbnails=queries.thumbnails(records, made.metrics["split"], paths),
            card={"audit": audit, "cost": run.cost()},
        )
