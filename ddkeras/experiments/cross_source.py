"""How a detector does on a generator it has not seen: one training for each source of fakes, without it.

artifacts/cross-source/
    matrix.csv, matrix.json, matrix.png    a row for each training, a column for each source that it was tested on
    runs/<source>/                         the run that was trained without it; runs/all/ with all of them
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from ddkeras.config import Recipe
from ddkeras.evaluation import results, scoring
from ddkeras.exceptions import ConfigError
from ddkeras.metrics.bootstrap import Estimate
from ddkeras.reporting import figures
from ddkeras.runs.checkpoint import NAME
from ddkeras.runs.run import LATEST, Run, open_run, open_unfinished
from ddkeras.training import loop
from pipelines import atomic
from pipelines.records import queries
from pipelines.records.store import Records

ALL = "all"  # the training that no source is held out of


def cross_source(recipe: Recipe, records: Records, folder: Path, *, tell: Callable[[str], None]) -> dict:
    """Train without each source of fakes in turn, and test each run on all of them.

    Runs that are there already, of the same recipe and records, are not trained again.

    Args:
        recipe: of all trainings, but for `hold_out`.
        records: with a train and a validation split whose fakes come from two sources at least.
        folder: where the matrix and the runs go.
        tell: is given a line before each training and after it.

    Returns:
        The `matrix`: for each source, or `all`, that was held out, and each that was tested, an `Estimate`
        of the AUC against the reals of its categories; the `sources`, their `examples`, and `folder`.

    Raises:
        ConfigError: the fakes come from fewer than two sources.
        DataError: as `training.fit`.
    """
    sources, counts = _sources(records)
    matrix = {}
    for held_out in (ALL, *sources):
        tell(f"held out: {'nothing' if held_out == ALL else held_out}")
        own = dataclasses.replace(recipe, hold_out="" if held_out == ALL else held_out)
        run = _run(own, records, folder / "runs" / quote(held_out, safe=""))
        scores = scoring.score(run, records, ["validation"])["validation"]
        matrix[held_out] = {source: results.subgroup_auc(scoring.source_subset(scores, source)) for source in sources}
        tell("  AUC " + ", ".join(f"{source} {_told(found)}" for source, found in matrix[held_out].items()))
    result = {"matrix": matrix, "sources": sources, "examples": counts, "folder": str(folder)}
    _write(result, folder)
    return result


def _sources(records: Records) -> tuple[list[str], dict[str, int]]:
    """The sources of fakes that can be held out and tested on, and how many images of each validation has."""
    facts = {split: pd.DataFrame(queries.facts(records, split)) for split in ("train", "validation")}
    fakes = {split: table[(table["label"] == 1) & (table["source"] != "")] for split, table in facts.items()}
    counts = fakes["validation"]["source"].value_counts()
    found = sorted(source for source in set(fakes["train"]["source"]) if counts.get(source, 0) >= results.MIN_IMAGES)
    if len(found) < 2:
        raise ConfigError(
            f"the fakes of {records.folder} come from {len(found) or 'no'} source with {results.MIN_IMAGES} images "
            "or more in validation, and two are needed; say where images come from in "
            "the column source of metadata.csv"
        )
    return found, {source: int(counts[source]) for source in found}


def _run(recipe: Recipe, records: Records, folder: Path) -> Run:
    """The finished run of that recipe in `folder`, or one that is trained now, or to its end."""
    if (folder / LATEST).is_dir() and not any(folder.glob(f"*/{NAME}")):
        run = open_run(folder / LATEST)
        if _is_same(run, recipe, records):
            return run
    resume = None
    if any(folder.glob(f"*/{NAME}")):
        found = open_unfinished(folder, records)
        resume = found if _is_same(found, recipe, records) else None
    return loop.fit(recipe, records, folder, resume=resume)


def _is_same(run: Run, recipe: Recipe, records: Records) -> bool:
    settled = {name: getattr(run.recipe, name) for name in ("precision", "xla")}  # by a trial on this machine
    same = dataclasses.replace(recipe, **{n: v for n, v in settled.items() if getattr(recipe, n) == "auto"})
    return run.recipe == same and run.fingerprint == records.fingerprint


def _told(auc: Estimate) -> str:
    return auc.reason or f"{auc.value:.3f}"


def _write(result: dict, folder: Path) -> None:
    with atomic.file(folder / "matrix.json") as partial_file:
        partial_file.write_text(json.dumps(result, indent=2, default=Estimate.to_dict) + "\n")
    values = {
        row: {source: found.value for source, found in cells.items()} for row, cells in result["matrix"].items()
    }
    table = pd.DataFrame(values, dtype=float).T
    with atomic.file(folder / "matrix.csv") as partial_file:
        table.to_csv(partial_file, index_label="held_out", float_format="%.4f")
    with atomic.file(folder / "matrix.png") as partial_file:
        figures.write_matrix(partial_file, table, result["examples"])
