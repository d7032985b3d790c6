"""A run measured: `measure`, read from top to bottom, is what happens in `ddk evaluate`."""

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from ddkeras import evaluation, report, robustness
from ddkeras.errors import ConfigError
from ddkeras.runs import Run
from pipelines import atomic, reading
from pipelines.degradations import DEGRADATIONS
from pipelines.records import Records

FOLDER = "evaluation"  # inside a run


def measure(
    run: Run,
    records: Records,
    splits: Sequence[str] = (),
    *,
    tell: Callable[[str], None],
    progress: evaluation.Progress = evaluation.silent,
    hold_out: str | None = None,
    rates: Mapping[str, float] | None = None,
    degrade: int = robustness.IMAGES,
    audit: dict | None = None,
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

    Returns:
        The numbers of each split, by the name of its folder.

    Raises:
        ConfigError: there are `rates`, and the records are not those that the run was trained on.
        DataError: as `evaluation.score` and `evaluation.held_out`.
    """
    splits = splits or [split for split in records.labelled_splits if split != "train"] or ["train"]
    is_to_fit = _is_to_fit(run, records, rates or {})
    begun = time.perf_counter()
    needed = dict.fromkeys([*splits, "validation"] if is_to_fit else splits)
    scores = evaluation.score(run, records, list(needed), progress=progress)
    seconds = (time.perf_counter() - begun) / sum(len(found.labels) for found in scores.values())
    if is_to_fit:
        run = evaluation.fit_operating_point(run, scores["validation"], **(rates or {}))
    found = {}
    for split in splits:
        chosen = evaluation.held_out(scores[split], hold_out) if hold_out else scores[split]
        made = evaluation.report(run, records, split, chosen, held_out=hold_out)
        if degrade and not hold_out:
            places = robustness.chosen(chosen, degrade)
            tell(_cost(split, len(places), seconds))
            with progress(f"{split}, degraded") as move:
                swept = robustness.sweep(run, records, split, chosen, places, move)
            made.metrics.update(_of_degraded(swept, run))
        name = f"{split}-{quote(hold_out, safe='')}" if hold_out else split
        found[name] = made.metrics
        _write(run, records, made, name, audit)
    return found


def _is_to_fit(run: Run, records: Records, rates: Mapping[str, float]) -> bool:
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


def _of_degraded(swept: robustness.Sweep, run: Run) -> dict[str, dict]:
    return {
        "robustness": robustness.robustness(swept, run.point, run.categories),
        "bias_probe": robustness.bias_probe(swept),
        "stability": robustness.stability(swept, run.point, run.categories),
    }


def _write(run: Run, records: Records, made: evaluation.Report, name: str, audit: dict | None) -> None:
    paths = report.shown(made.predictions, made.metrics)
    with atomic.folder(run.folder / FOLDER / name, marker="metrics.json") as partial:
        report.write(
            partial,
            made.metrics,
            made.predictions,
            history=run.history(),
            best_epoch=run.best_epoch()["best_epoch"],
            thumbnails=reading.thumbnails(records, made.metrics["split"], paths),
            card={"audit": audit, "cost": run.cost()},
        )
