"""The Python API, `import ddkeras as ddk`: each function is one step from a folder of images to an exported detector.

Heavy imports wait for the call. No function configures logging, sets an environment variable or shows progress unless
asked; notes are logged under `ddkeras` as INFO, warnings as WARNING. TF_CPP_MIN_LOG_LEVEL=3 in the environment keeps
most messages of TensorFlow's C++ code from standard error.
"""

import dataclasses
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ddkeras.exceptions import ConfigError
from ddkeras.progress import Progress, progress_bar, silent

PathLike = str | os.PathLike[str]

if TYPE_CHECKING:
    import pandas as pd

    from ddkeras.config import Recipe
    from ddkeras.explanation.explainer import ExplainedFile, Explainer
    from ddkeras.inference.prediction import Prediction
    from ddkeras.inference.scorers import ImageScorer
    from ddkeras.inference.views import Views
    from ddkeras.reporting.evaluation_report import EvaluationReport
    from ddkeras.runs.ensemble import Ensemble
    from ddkeras.runs.run import Run
    from pipelines.datasets.folders import FolderKind
    from pipelines.records.store import Records

    AnyDetector = Run | Ensemble | ImageScorer | PathLike
    AnyRecipe = Recipe | PathLike  # a path, or the name of a recipe
    AnyRecords = Records | PathLike

BadFiles = Literal["quarantine", "fail"]
Cache = Literal["auto", "memory", "disk", "none"]
Equalisation = Literal["resize", "crop"]
ExplanationMethod = Literal["gradcam", "gradcam++", "occlusion"]
ExplainedHead = Literal["authenticity", "category"]
ExportFormat = Literal["savedmodel", "litert", "litert-float16", "litert-int8", "onnx"]

RECORDS = "artifacts/records"
RUNS = "artifacts/runs"
EXPORTS = "artifacts/export"

MAX_VIEWS = 10  # of `ddkeras.inference.tta`

_log = logging.getLogger(__name__)


# --- data ------------------------------------------------------------------------------------------------------


def convert(
    data: PathLike,
    output: PathLike = RECORDS,
    *,
    val_fraction: float = 0.2,
    split_by: str = "",
    columns: Mapping[str, str] | None = None,
    real: Sequence[str] = (),
    fake: Sequence[str] = (),
    folders: "FolderKind | None" = None,
    seed: int = 0,
    balance: bool = False,
    drop_duplicates: bool = False,
    equalise: bool | Equalisation = False,
    verify: bool = True,
    on_bad: BadFiles = "quarantine",
    max_bad: float = 0.05,
    max_pixels: int = 100_000_000,
    workers: int | None = None,
    progress: bool | Progress = False,
    note: Callable[[str], None] = _log.info,
    warn: Callable[[str], None] = _log.warning,
) -> "Records":
    """Convert a folder of images to sharded TFRecords, and open them.

        records = ddk.convert("data/")
        records = ddk.convert("photos/", "artifacts/photos", split_by="person", equalise="crop")

    Records already in `output` are replaced once the new ones are complete. An interrupted conversion continues when
    it is called again with the same arguments.

    Args:
        data: a folder such as {train,validation,test}/{real,fake}/; see `pipelines.datasets.layouts`.
        output: the folder of the records.
        val_fraction: share of the images, in (0, 1), held out for validation where `data` names no validation split.
        split_by: a column of metadata.csv, or `source`; images with the same value stay in one split.
        columns: what metadata.csv calls the columns image_path, label, class, source and split:
            {"image_path": "file", "label": "target"}.
        real, fake: name of the folders, or value in metadata.csv, of a label, or several, in place of the usual ones.
        folders: what the folders beside those of splits and labels are: `class`, `source`, or `group`, which is kept
            in one split; by default decided by their names.
        seed: decides which images are held out, and the order.
        balance: drop images of the more frequent label, in each split.
        drop_duplicates: drop copies of a file and, of near-duplicates in two splits, the one in train.
        equalise: give every image one treatment, so that files do not give away the label. `crop`: a crop of a common
            size, never scaled, and a JPEG compression; images that are too small for the crop are left out. `resize`,
            or True: a crop, a resize to a common size and a JPEG compression, which suits images of any size.
        verify: decode every image. Without it, a damaged image stops the training that reads it.
        on_bad: `quarantine` lists unreadable files in quarantine.csv and leaves them out; `fail` raises.
        max_bad: share of unreadable files, in [0, 1], above which the conversion fails.
        max_pixels: larger images are left out, before they are decoded.
        workers: number of processes; one per core by default.
        progress: True for progress bars on standard error.
        note, warn: called with each note, and with each warning: that the files alone give away
            the labels, or that a split has few images of a label.

    Raises:
        DataError: `data` is missing, empty or in no known layout, too many files are unreadable, all images of a
            split, or of a label or class in train, are left out, or `output` holds something other than records.
        ConfigError: an argument has a value that it cannot have.
    """
    from pipelines.audit.duplicates import duplicates_to_drop
    from pipelines.audit.report import quick_warnings
    from pipelines.datasets.layouts import read_layout
    from pipelines.datasets.split_checks import check_what_is_left
    from pipelines.records import store
    from pipelines.records.conversion import start_workers, write_records
    from pipelines.records.equalization import Equaliser, crop_equaliser, resize_equaliser

    method = "resize" if equalise is True else equalise or ""
    if method:
        _check_choice("equalise", method, get_args(Equalisation))
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction must be above 0 and below 1, not {val_fraction}")
    _check_choice("on_bad", on_bad, get_args(BadFiles))
    _check_range("max_bad", max_bad, 0, 1)
    _check_range("max_pixels", max_pixels, 1)
    _check_reading(folders, workers)
    show = _progress(progress)
    start_workers()
    layout = read_layout(
        data,
        val_fraction=val_fraction,
        seed=seed,
        split_by=split_by,
        columns=columns,
        real=_names(real),
        fake=_names(fake),
        folders=folders,
    )
    before = layout.examples.counts()
    if drop_duplicates:
        with show("looking for duplicates") as update:
            layout.examples.leave_out(duplicates_to_drop(layout, workers=workers, progress=update))
    equaliser: Equaliser | None = None
    if method == "crop":
        with show("measuring") as update:
            equaliser = crop_equaliser(layout, seed, max_pixels=max_pixels, workers=workers, progress=update)
    if balance:  # what is left when small images are gone
        layout.examples.balance()
    layout.notes.extend(check_what_is_left(before, layout.examples.counts(), layout.examples.left_out()))
    if method == "resize":
        equaliser = resize_equaliser(layout, seed)
    with show("converting") as update:
        write_records(
            layout,
            output,
            workers=workers,
            verify=verify,
            max_pixels=max_pixels,
            on_bad=on_bad,
            max_bad=max_bad,
            equaliser=equaliser,
            progress=update,
            note=layout.notes.append,
        )
    for text in layout.notes:
        note(text)
    # Equalised images no longer have the properties of their files.
    for text in [] if equaliser else quick_warnings(layout, workers=workers):
        warn(text)
    records = store.open_records(output)
    for text in records.few_images:
        warn(text)
    return records


def open_records(folder: PathLike = RECORDS) -> "Records":
    """Open the records that `convert` or `ddk make-tfrecords` wrote.

        records = ddk.open_records("artifacts/records")
        print(records.categories, records.splits["train"].examples)

    Raises:
        DataError: there are no records in `folder`, or they were written by an incompatible version.
    """
    from pipelines.records import store

    return store.open_records(folder)


@dataclass(frozen=True)
class AuditReport:
    """Shortcuts, leaks and imbalance in a data set; see `audit`.

    Args:
        result: all numbers, JSON-ready; see `pipelines.audit.report.judge`.
        thumbnails: JPEGs of duplicates, by path, for the report.
    """

    result: dict[str, Any]
    thumbnails: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def verdict(self) -> str:
        """`ok`, `warn` or `fail`."""
        return self.result["verdict"]

    @property
    def findings(self) -> list[dict[str, str]]:
        """The worst first, each with its `verdict`, a `text` and a `remedy`."""
        return self.result["findings"]

    def __str__(self) -> str:
        lines = [f"{self.verdict.upper()}: {self.result['meaning']}"]
        return "\n".join(lines + [f"  {finding['text']}; {finding['remedy']}" for finding in self.findings])

    def report(self, folder: PathLike) -> None:
        """Write audit.html and audit.json, with all numbers, to `folder`, which is created if missing."""
        from ddkeras.reporting.audit_report import page

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.json").write_text(json.dumps(self.result, indent=2) + "\n")
        html = page(self.result, self.thumbnails)
        (folder / "audit.html").write_text(html, encoding="utf-8", errors="replace")


def audit(
    data: "AnyRecords",
    *,
    image_size: int = 224,
    warn: float = 0.6,
    fail: float = 0.75,
    columns: Mapping[str, str] | None = None,
    real: Sequence[str] = (),
    fake: Sequence[str] = (),
    folders: "FolderKind | None" = None,
    workers: int | None = None,
    progress: bool | Progress = False,
) -> AuditReport:
    """Look for shortcuts, leaks between splits and imbalance, in a data folder or in records.

    It also suggests a view of the images, `squash` or `windows`, by how far `squash` would shrink them.

        report = ddk.audit("data/")
        if report.verdict != "ok":
            print(report)
        report.report("audit/")

    Args:
        data: a folder of images or of records, or opened records.
        image_size: height and width in pixels of the network's input that you intend, as in `fit`.
        warn, fail: AUC, in [0.5, 1], of a classifier that sees no pixels, above which a shortcut is a warning or a
            failure.
        columns, real, fake, folders: as in `convert`, for a folder of images.
        workers: number of processes; one per core by default.
        progress: True for progress bars on standard error.

    Raises:
        DataError: the folder is missing, empty or in no known layout.
        ConfigError: `data` are records, and an option for a folder of images is given; or an argument has a value
            that it cannot have.
    """
    from ddkeras.config import checked_field
    from pipelines.audit.report import judge, scan_folder, scan_records, thumbnails
    from pipelines.datasets.layouts import read_layout
    from pipelines.records import store

    _check_range("warn", warn, 0.5, 1)
    _check_range("fail", fail, 0.5, 1)
    _check_reading(folders, workers)
    image_size = checked_field("image_size", image_size)
    show = _progress(progress)
    if not isinstance(data, store.Records) and (Path(data) / store.MANIFEST).is_file():
        data = store.open_records(data)
    with show("reading") as update:
        if isinstance(data, store.Records):
            given = {"columns": columns, "real": real, "fake": fake, "folders": folders}
            if name := next((name for name, value in given.items() if value), None):
                raise ConfigError(f"--{name} is for a folder of images, and these are records; leave it out")
            seen = scan_records(data, workers=workers, progress=update)
        else:
            layout = read_layout(data, columns=columns, real=_names(real), fake=_names(fake), folders=folders)
            seen = scan_folder(layout, workers=workers, progress=update)
    with show("fitting classifiers") as update:
        result = judge(seen, image_size=image_size, warn=warn, fail=fail, progress=update)
    return AuditReport(result, thumbnails(seen, result))


# --- training --------------------------------------------------------------------------------------------------


def fit(
    records: "AnyRecords" = RECORDS,
    recipe: "AnyRecipe | None" = None,
    *,
    runs: PathLike = RUNS,
    resume: bool | PathLike = False,
    cache: Cache = "auto",
    data_service: str = "",
    progress: bool = False,
    **recipe_fields: Any,
) -> "Run":
    """Train a detector, keep its best epoch on validation, and calibrate it there.

        run = ddk.fit(records)
        run = ddk.fit(records, backbone="small-cnn", epochs=3)
        run = ddk.fit(records, "efficientnet-b4", batch=4, accumulate=8, progress=True)

    Args:
        records: opened records, or their folder.
        recipe: a `Recipe`, the name of one that comes with ddkeras, or a YAML file; the defaults without it.
        runs: the folder that gets a folder for the run, and `latest`, a link to it.
        resume: True to continue the newest unfinished run in `runs`, or the folder of the run to continue.
        cache: where decoded images are kept between epochs; `auto` where they take at most a quarter of what is free.
        data_service: address of a tf.data service that reads and decodes.
        progress: True for a progress bar on standard error, or a line per epoch where that is not a terminal.
        recipe_fields: fields of `Recipe`, which take precedence over `recipe`.

    Returns:
        The run. Of several workers that train together, only the first one's is calibrated and kept.

    Raises:
        ConfigError: the recipe or `cache` is invalid, a run to continue has another recipe or other records, or the
            loss became NaN.
        DataError: the records lack a labelled train or validation split, or are damaged.
    """
    import sys

    from ddkeras.config import Recipe, differences
    from ddkeras.evaluation import scoring
    from ddkeras.runs.run import copy_run, open_unfinished
    from ddkeras.training import distribution, loop

    _check_choice("cache", cache, get_args(Cache))
    records = _open(records)
    fields = _recipe_fields(recipe) | recipe_fields
    chosen, folder, unfinished = Recipe(**fields), distribution.runs_folder(Path(runs)), None
    if resume:
        unfinished = open_unfinished(runs if resume is True else resume, records)
        if changed := differences(unfinished.recipe, chosen, fields):
            raise ConfigError(
                f"{unfinished.folder} was started with {'; '.join(changed)}: leave these out, or start a new run"
            )
        if distribution.worker_index():
            unfinished = copy_run(unfinished, folder)
    verbose = 0 if not progress else 1 if sys.stderr.isatty() else 2
    run = loop.fit(chosen, records, folder, resume=unfinished, cache=cache, service=data_service, verbose=verbose)
    if distribution.worker_index():
        return run
    return scoring.calibrate(run, scoring.score(run, records, ["validation"])["validation"])


def load(path: PathLike = f"{RUNS}/latest") -> "Run | Ensemble | ImageScorer":
    """Open a detector from disk. Code in a model file is never run.

        run = ddk.load()                                        # the newest run
        model = ddk.load("artifacts/export/xception-20260131-120000")

    Args:
        path: the folder of a run or of an ensemble, a run's model.keras, or an export: its folder, the folder of its
            versions, or its model file.

    Returns:
        A `Run` or an `Ensemble`; for an export a scorer, which only `predict` takes.

    Raises:
        ConfigError: there is no detector in `path`, it was modified since it was exported, or a package that it needs
            is not installed.
    """
    from ddkeras.inference import scorers
    from ddkeras.runs.ensemble import open_ensemble
    from ddkeras.runs.run import ENSEMBLE, MODEL, open_run

    path = Path(path)
    if (path / ENSEMBLE).is_file():
        return open_ensemble(path)
    if path.name == MODEL or (path / MODEL).is_file():
        return open_run(path)
    return scorers.open_scorer(path)


# --- measuring -------------------------------------------------------------------------------------------------


def evaluate(
    detector: "AnyDetector",
    records: "AnyRecords" = RECORDS,
    splits: str | Sequence[str] | None = None,
    *,
    hold_out: str | None = None,
    false_alarms: float | None = None,
    misses: float | None = None,
    degrade: int = 400,
    regression: PathLike | None = None,
    audit: AuditReport | None = None,
    progress: bool | Progress = False,
    note: Callable[[str], None] = _log.info,
) -> "dict[str, EvaluationReport]":
    """Evaluate a run or an ensemble on the labelled splits of records.

        report = ddk.evaluate(run, records)["test"]
        print(report.auc)
        report.report("report/")

    Each split gets a folder `evaluation/<split>` in that of the detector, with the report, all numbers, a table of
    the images and the figures. All are written before images are perturbed, and extended afterwards.

    Args:
        detector: a run or an ensemble, or its folder.
        records: opened records, or their folder.
        splits: name of a split, or several; all labelled ones but train by default.
        hold_out: evaluate only this source, against images of the other label in its categories.
        false_alarms: maximum share of real images, in [0, 0.5], to call fake; together with `misses`, refits the
            operating point.
        misses: maximum share of fake images, in [0, 0.5], to call real.
        degrade: number of images of each split to perturb and score again, half of each label, for robustness, the
            bias probe and stability; 0 for none.
        regression: folder of a regression set to evaluate as well, as split `regression`.
        audit: of this data, for the model card in the report.
        progress: True for progress bars on standard error.
        note: called with a line before images are perturbed.

    Returns:
        A report on each split, by its name; with `hold_out` by <split>-<source>.

    Raises:
        ConfigError: the detector is an export, rates are given with records that it was not trained on, or a number
            is out of range.
        DataError: a split is missing, unlabelled or damaged.
    """
    from ddkeras.evaluation.evaluate import measure
    from ddkeras.reporting.model_card import AuditSummary
    from ddkeras.runs.ensemble import Ensemble
    from ddkeras.runs.run import Run
    from pipelines.records import regression_set

    _check_range("degrade", degrade, 0)
    _check_range("false_alarms", false_alarms, 0, 0.5)
    _check_range("misses", misses, 0, 0.5)
    measured = load(detector) if isinstance(detector, str | os.PathLike) else detector
    if not isinstance(measured, (Run, Ensemble)):
        raise ConfigError(f"{measured.name} is an export; evaluate the run that it was made from")
    rates = {name: rate for name, rate in (("false_alarms", false_alarms), ("misses", misses)) if rate is not None}
    records = _open(records)
    opened = regression_set.open_as_records(regression, measured.categories) if regression else nullcontext()
    with opened as regression_records:
        if isinstance(measured, Ensemble):
            measured = measured.save()  # only now: nothing is written when the records are refused
        return measure(
            measured,
            records,
            _names(splits or ()),
            tell=note,
            progress=_progress(progress),
            hold_out=hold_out,
            rates=rates,
            degrade=degrade,
            audit=AuditSummary(audit.result["verdict"], audit.result["meaning"]) if audit else None,
            regression=regression_records,
        )


# --- using -----------------------------------------------------------------------------------------------------


class Predictions(Iterable["Prediction"]):
    """Scores of images, in the order of their paths; see `predict`.

    Images are scored during iteration, in constant memory, and again in each iteration.
    """

    def __init__(self, scorer: "ImageScorer", paths: Sequence[str], views: "Views", progress: Progress):
        self.scorer, self.paths, self.views, self._progress = scorer, paths, views, progress

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator["Prediction"]:
        from ddkeras.inference import prediction

        with self._progress("scoring") as update:
            for done, row in enumerate(prediction.predict(self.scorer, self.paths, views=self.views), start=1):
                update(done, len(self))
                yield row

    def to_frame(self) -> "pd.DataFrame":
        """Score all images; one row per image, with the columns that `ddk predict` writes to Parquet."""
        from ddkeras.inference import prediction

        return prediction.to_frame(self, self.scorer.categories)


def predict(
    detector: "AnyDetector",
    paths: PathLike | Iterable[PathLike],
    *,
    stability: bool = False,
    tta: int | None = None,
    progress: bool | Progress = False,
) -> Predictions:
    """Score image files and all images in folders.

        for row in ddk.predict(run, "inbox/"):
            print(row.path, row.verdict, row.fake_probability)
        table = ddk.predict("artifacts/export/xception-20260131-120000", ["a.jpg", "b.png"]).to_frame()

    The network is loaded by each call: pass all images at once. Files in folders that are not images are counted in a
    warning. An image that cannot be read is a row with an `error`, and None for its scores.

    Args:
        detector: a run, an ensemble, an export, or the path of one.
        paths: a file or folder, or several.
        stability: score each image also after mild re-encoding; a verdict that flips becomes unsure.
        tta: number of views of each image, 2 to 10, over which the logit is averaged.
        progress: True for a progress bar on standard error.

    Raises:
        ConfigError: there is no detector, `stability` and `tta` are both given, or an argument has a value that it
            cannot have.
        DataError: a path does not exist, or a folder holds no images.
    """
    from pipelines.datasets.layouts import find_image_names

    check_views(stability=stability, tta=tta)
    files = find_image_names(_paths(paths))
    return predict_files(_scorer(detector), files, stability=stability, tta=tta, progress=progress)


def predict_files(
    scorer: "ImageScorer",
    files: Sequence[str],
    *,
    stability: bool = False,
    tta: int | None = None,
    progress: bool | Progress = False,
) -> Predictions:
    """As `predict`, of files that have been listed: one that is gone by now is a row with its error."""
    from ddkeras.inference import scorers
    from ddkeras.inference.stability import RE_ENCODED
    from ddkeras.inference.tta import augmented_views
    from ddkeras.inference.views import ORIGINAL

    if isinstance(scorer, scorers.Scorer) and not scorer.point.fitted:
        _log.warning("%s has no operating point: probabilities are not calibrated, the threshold is 0.5", scorer.name)
    views = augmented_views(tta) if tta else RE_ENCODED if stability else ORIGINAL
    return Predictions(scorer, files, views, _progress(progress))


def check_views(*, stability: bool, tta: int | None) -> None:
    """Check these arguments of `predict`, before anything is loaded.

    Raises:
        ConfigError: both are given, or `tta` is out of range.
    """
    _check_range("tta", tta, 2, MAX_VIEWS)
    if stability and tta:
        raise ConfigError("stability and test-time augmentation are both asked for; leave out one")


class Explanations(Iterable["ExplainedFile"]):
    """What the scores of images depend on, in the order of their paths; see `explain`.

    Images are explained during iteration, in constant memory, and again in each iteration.
    """

    def __init__(self, explainer: "Explainer", paths: Sequence[Path], method: str, head: str, category: str | None):
        self.explainer, self.paths = explainer, paths
        self._method, self._head, self._category = method, head, category

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator["ExplainedFile"]:
        from ddkeras.explanation.explainer import explain_files

        return explain_files(self.explainer, self.paths, self._method, head=self._head, category=self._category)

    def save(self, folder: PathLike, *, overwrite: bool = False, progress: bool | Progress = False) -> dict[str, Any]:
        """Write a picture of each image, explanations.csv and, of several images, sheet.png.

        Args:
            folder: which appears when it is complete.
            overwrite: replace existing explanations.
            progress: True for a progress bar on standard error.

        Returns:
            As `ddkeras.explanation.overlays.write`.

        Raises:
            ConfigError: there are explanations in `folder`.
            DataError: there is something else in it.
        """
        from ddkeras.explanation import overlays
        from pipelines import atomic

        folder = Path(folder)
        if (folder / overlays.TABLE).is_file() and not overwrite:
            raise ConfigError(f"{folder} holds explanations; give another --output, or --overwrite to replace them")
        title = f"What the scores of {self.explainer.scorer.name} depend on, by {self._method}"
        with atomic.folder(folder, marker=overlays.TABLE) as partial, _progress(progress)("explaining") as update:
            return overlays.write(partial, self, title, total=len(self), progress=update)


def explain(
    detector: "AnyDetector",
    paths: PathLike | Iterable[PathLike],
    method: ExplanationMethod = "gradcam",
    *,
    head: ExplainedHead = "authenticity",
    category: str | None = None,
) -> Explanations:
    """Show which parts of images the score of a run depends on.

        for row in ddk.explain(run, "inbox/"):
            print(row.path, row.explanation.verdict, row.explanation.heatmap.shape)
        ddk.explain(run, "inbox/", "occlusion").save("artifacts/explanations")

    Args:
        detector: a run, or its folder.
        paths: an image file or a folder of images, or several.
        method: Grad-CAM, Grad-CAM++ or occlusion, which is slow and works with any network.
        head: what to explain: the verdict or the category.
        category: with `head="category"`, which one; the predicted one by default.

    Raises:
        ConfigError: the detector is not a run, or has no such category; or an argument has a value that it cannot
            have.
        DataError: a path does not exist, or a folder holds no images.
    """
    from ddkeras.explanation.explainer import load_explainer
    from pipelines.datasets.layouts import find_images

    check_explanation(method, head, category)
    files = find_images(_paths(paths))
    return Explanations(load_explainer(_run(detector)), files, method, head, category)


def check_explanation(method: str, head: str, category: str | None) -> None:
    """Check these arguments of `explain`, before anything is loaded.

    Raises:
        ConfigError: there is no such method or head, or a category is given for another head.
    """
    _check_choice("method", method, get_args(ExplanationMethod))
    _check_choice("head", head, get_args(ExplainedHead))
    if category and head != "category":
        raise ConfigError(f"{category} is of the category head; give head category as well, or leave it out")


def export(
    detector: "AnyDetector",
    format: ExportFormat = "savedmodel",
    *,
    output: PathLike = EXPORTS,
    records: "AnyRecords" = RECORDS,
    progress: bool | Progress = False,
) -> Path:
    """Export a run for TensorFlow Serving or `ddk serve`, for LiteRT or for ONNX.

        folder = ddk.export(run)
        folder = ddk.export(run, "onnx", output="models/")

    Args:
        detector: a run, or its folder.
        format: of the model.
        output: the folder that gets <run>/<version>, or <run>-<format>/<version>.
        records: for litert-int8, whose training images the rounding is learned on.
        progress: True for a progress bar on standard error, for litert-int8.

    Returns:
        The folder of the new version. Its parent is the base path for TensorFlow Serving.

    Raises:
        ConfigError: the detector is not a run, there is no such format, or a package that it needs is not installed.
    """
    from ddkeras.exporting import litert, onnx, saved_model

    _check_choice("format", format, get_args(ExportFormat))
    run = _run(detector)
    if format == "savedmodel":
        return saved_model.export_saved_model(run, output)
    if format == "onnx":
        return onnx.export_onnx(run, output)
    precision = format.partition("-")[2] or "float32"
    if precision != "int8":
        return litert.export_litert(run, output, precision=precision)
    with _progress(progress)("rounding") as update:
        return litert.export_litert(run, output, precision=precision, records=_open(records), progress=update)


# --- arguments -------------------------------------------------------------------------------------------------


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value}; it can be {', '.join(choices[:-1])} or {choices[-1]}")


def _check_range(name: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Check a number, if it is given."""
    if value is not None and not low <= value <= high:
        limits = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise ConfigError(f"{name} must be {limits}, not {value}")


def _check_reading(folders: "FolderKind | None", workers: int | None) -> None:
    from pipelines.datasets.folders import FolderKind

    if folders:
        _check_choice("folders", folders, get_args(FolderKind))
    _check_range("workers", workers, 1)


def _progress(progress: bool | Progress) -> Progress:
    if callable(progress):
        return progress
    return progress_bar if progress else silent


def _open(records: "AnyRecords") -> "Records":
    return open_records(records) if isinstance(records, str | os.PathLike) else records


def _names(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _paths(paths: PathLike | Iterable[PathLike]) -> list[Path]:
    each: list[Any] = [paths]
    if isinstance(paths, Iterable) and not isinstance(paths, str | bytes | os.PathLike):
        each = list(paths)
    if others := {type(path).__name__ for path in each if not isinstance(path, str | os.PathLike)}:
        raise ConfigError(f"paths of files or folders are needed, not {min(others)}; save images to files first")
    return [Path(path) for path in each]


def _recipe_fields(recipe: "AnyRecipe | None") -> dict[str, Any]:
    from ddkeras.config import recipe_fields

    if recipe is None:
        return {}
    if isinstance(recipe, str | os.PathLike):
        return recipe_fields(os.fspath(recipe))
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}


def _scorer(detector: "AnyDetector") -> "ImageScorer":
    from ddkeras.inference import scorers
    from ddkeras.runs.ensemble import Ensemble
    from ddkeras.runs.run import Run

    opened = load(detector) if isinstance(detector, str | os.PathLike) else detector
    return scorers.scorer_for(opened) if isinstance(opened, (Run, Ensemble)) else opened


def _run(detector: "AnyDetector") -> "Run":
    from ddkeras.runs.run import Run, open_run

    if isinstance(detector, str | os.PathLike):
        return open_run(Path(detector))
    if not isinstance(detector, Run):
        raise ConfigError(f"{detector.name} is not a run; give one of the runs that it was made from")
    return detector
