"""Generalization to unseen generators: one training per source of fakes, with that source held out.

artifacts/cross-source/
    matrix.csv, matrix.json, matrix.png    a row per training, a column per test source
    runs/<source>/                         the run trained without that source; runs/all/ with all of them
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from ddkeras.config import Recipe, differences
from ddkeras.evaluation import results, scoring
from ddkeras.exceptions import ConfigError
from ddkeras.metrics.bootstrap import Estimate
from ddkeras.reporting import figures
from ddkeras.runs.checkpoint import CHECKPOINT
from ddkeras.runs.run import LATEST, Run, open_run, open_unfinished
from ddkeras.training import loop
from pipelines import atomic, spreadsheets
from pipelines.intervals import MIN_IMAGES
from pipelines.records import queries
from pipelines.records.store import Records

ALL = "all"  # names the training without a held-out source


def cross_source(recipe: Recipe, records: Records, folder: Path, *, tell: Callable[[str], None]) -> dict:
    """Train with each source of fakes held out in turn, and test each run on every source.

    Finished runs of the same recipe and records are reused.

    Args:
        recipe: of all trainings, except for `hold_out`.
        records: with train and validation splits whose fakes come from at least two sources.
        folder: where the matrix and the runs are written.
        tell: called with a line before and after each training.

    Returns:
        The `matrix`: by held-out source, or `all`, and test source, an `Estimate` of the AUC against the reals of its
        categories; the `sources`, their numbers of `examples`, and the `folder`.

    Raises:
        ConfigError: the fakes come from fewer than two sources.
        DataError: see `loop.fit`.
    """
    sources, counts = _sources(records)
    matrix = {}
    for held_out in (ALL, *sources):
        tell(f"held out: {'nothing' if held_out == ALL else held_out}")
        held_out_recipe = dataclasses.replace(recipe, hold_out="" if held_out == ALL else held_out)
        run = _train(held_out_recipe, records, folder / "runs" / quote(held_out, safe=""))
        scores = scoring.score(run, records, ["validation"])["validation"]
        matrix[held_out] = {source: results.subgroup_auc(scoring.source_subset(scores, source)) for source in sources}
        tell("  AUC " + ", ".join(f"{source} {_format_auc(auc)}" for source, auc in matrix[held_out].items()))
    result = {"matrix": matrix, "sources": sources, "examples": counts, "folder": str(folder)}
    _write(result, folder)
    return result


def _sources(records: Records) -> tuple[list[str], dict[str, int]]:
    """The sources of fakes with enough images to test on, and their numbers of images in validation."""
    facts = {split: pd.DataFrame(queries.metadata(records, split)) for split in ("train", "validation")}
    fakes = {split: table[(table["label"] == 1) & (table["source"] != "")] for split, table in facts.items()}
    counts = fakes["validation"]["source"].value_counts()
    sources = sorted(source for source in set(fakes["train"]["source"]) if counts.get(source, 0) >= MIN_IMAGES)
    if len(sources) < 2:
        raise ConfigError(
            f"the fakes of {records.folder} come from {len(sources) or 'no'} source with {MIN_IMAGES} images "
            "or more in validation, and two are needed; name sources in the column source of metadata.csv, "
            "or convert with --folders source"
        )
    return sources, {source: int(counts[source]) for source in sources}


def _train(recipe: Recipe, records: Records, folder: Path) -> Run:
    """Reuse the finished run of that recipe in `folder`, resume an unfinished one, or train a new one."""
    if (folder / LATEST).is_dir() and not any(folder.glob(f"*/{CHECKPOINT}")):
        run = open_run(folder / LATEST)
        if _matches(run, recipe, records):
            return run
    resume = None
    if any(folder.glob(f"*/{CHECKPOINT}")):
        unfinished = open_unfinished(folder, records)
        resume = unfinished if _matches(unfinished, recipe, records) else None
    return loop.fit(recipe, records, folder, resume=resume)


def _matches(run: Run, recipe: Recipe, records: Records) -> bool:
    names = [field.name for field in dataclasses.fields(Recipe)]
    return not differences(run.recipe, recipe, names) and run.fingerprint == records.fingerprint


def _format_auc(auc: Estimate) -> str:
    return auc.reason or f"{auc.value:.3f}"


def _write(result: dict, folder: Path) -> None:
    with atomic.file(folder / "matrix.json") as partial_file:
        partial_file.write_text(json.dumps(result, indent=2, default=Estimate.to_dict) + "\n")
    values = {row: {source: auc.value for source, auc in cells.items()} for row, cells in result["matrix"].items()}
    table = pd.DataFrame(values, dtype=float).T
    with atomic.file(folder / "matrix.csv") as partial_file:
        cells = table.rename(index=spreadsheets.harmless, columns=spreadsheets.harmless)
        cells.to_csv(partial_file, index_label="held_out", float_format="%.4f")
    with atomic.file(folder / "matrix.png") as partial_file:
        figures.write_matrix(partial_file, table, result["examples"])
