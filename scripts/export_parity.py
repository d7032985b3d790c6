"""Differences between the scores of each export format and those of the run, on the validation images.

python scripts/export_parity.py artifacts/runs/latest artifacts/records
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from ddkeras.exporting.litert import export_litert
from ddkeras.exporting.onnx import export_onnx
from ddkeras.exporting.saved_model import export_saved_model
from ddkeras.inference.scorers import Scorer, open_scorer, scorer_for_run
from ddkeras.runs.run import open_run
from pipelines.loading.batches import inference_batches
from pipelines.records.store import Records, open_records
from pipelines.views import Squash


def scores_of(scorer: Scorer, records: Records) -> tuple[dict[str, np.ndarray], float]:
    """All scores, and images per second; the first batch, which builds the graphs, is not timed."""
    batches = inference_batches(records, "validation", view=Squash(scorer.image_size), batch_size=scorer.batch)
    found, seconds, images = [], 0.0, 0
    for batch, *_ in batches.as_numpy_iterator():
        start = time.perf_counter()
        found.append(scorer.score(batch))
        if len(found) > 1:
            seconds, images = seconds + time.perf_counter() - start, images + len(batch)
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}, images / seconds


def main(run_folder: str, records_folder: str) -> None:
    """Export, score and compare."""
    run, records = open_run(run_folder), open_records(records_folder)
    expected, speed = scores_of(scorer_for_run(run), records)
    print(f"{run.recipe.backbone}, {len(expected['logit'])} images; the run itself: {speed:.0f} images/s")
    with tempfile.TemporaryDirectory() as exports:
        folders = {"savedmodel": export_saved_model(run, exports), "onnx": export_onnx(run, exports)}
        for precision in ("float32", "float16", "int8"):
            folders[f"litert {precision}"] = export_litert(run, exports, precision=precision, records=records)
        print("format           | MB   | largest difference of fake_probability | of logit | same verdict | images/s")
        for form, folder in folders.items():
            found, speed = scores_of(open_scorer(folder), records)
            bytes_ = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            probability, logit = (np.abs(found[n] - expected[n]).max() for n in ("fake_probability", "logit"))
            same = np.mean(found["verdict"] == expected["verdict"])
            print(f"{form:16} | {bytes_ / 1e6:4.1f} | {probability:.1e} | {logit:.1e} | {same:.2%} | {speed:.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
