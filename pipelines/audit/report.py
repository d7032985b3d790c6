"""The audit of a data set: what lets a detector score well for the wrong reason.

It asks four questions of a data folder or of records: can the label be told without looking at the pixels
(`shortcuts`), do images occur in two splits or under two labels (`duplicates`), are there enough of each kind
(balance), and would scaling them to the network's input tell the label (`views`)? `scan_folder` or `scan_records`
reads every image once, `judge` answers.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pandas as pd

from pipelines.audit.duplicates import CHUNK, Duplicates, Fingerprint, fingerprint
from pipelines.audit.shortcuts import FAIL, WARN, file_features, format_auc, format_shortcut, shortcuts
from pipelines.audit.views import compare_views, format_shrinking
from pipelines.datasets.examples import LABELS, SPLITS, UNLABELLED, Example
from pipelines.datasets.layouts import Layout
from pipelines.intervals import MIN_IMAGES
from pipelines.media import pillow
from pipelines.media.headers import UnreadableError, read_file, read_header
from pipelines.media.thumbnails import thumbnail
from pipelines.parallel import in_parallel, worker_count

if TYPE_CHECKING:
    from pipelines.records.store import Records  # which loads TFDS

VERDICTS = {  # from good to bad
    "ok": "nothing was found that lets a detector score well for the wrong reason",
    "warn": "usable with care; read the warnings before you believe a number",
    "fail": "do not train on this data unchanged; a detector may learn something other than what makes an image fake",
}
_SAMPLE, _QUICK_SAMPLE = 20_000, 4_000  # images on which the shortcut classifiers are trained
_MAX_LEAK = 0.05  # of a split; with more its numbers measure memorization
_CHUNK_BYTES = 16 * 2**20  # of records, sent to a worker at once
_BINS = 24
_HISTOGRAMS = ("height", "width", "jpeg_quality", "bytes_per_pixel")
_EQUALISED = (
    "the images were equalised, each with a crop of its own: search the data folder for near-duplicates instead"
)
_REMEDIES = {  # of shortcuts, by group of features
    "file": "give all images the same treatment, without scaling, with: ddk make-tfrecords DATA --equalise crop "
    "(or resize, for small images)",
    "name": "no detector sees names, but check that real and fake images were collected alike",
}
_WINDOWS = "train on windows, which are not scaled, with: ddk fit --view windows"
_DROP = "leave them out with: ddk make-tfrecords DATA --drop-duplicates"


class Finding(TypedDict):
    """One sentence of the audit."""

    verdict: str  # warn or fail
    text: str
    remedy: str


@dataclass
class Scan:
    """The result of reading every image of a data set once, for `judge`."""

    about: dict[str, str]  # `data`, `kind`, and for records their `fingerprint`
    read: Callable[[set[str]], Iterator[tuple[str, bytes]]]  # the encoded images of some paths, in any order
    counts: Counter[tuple[str, int, str, str]] = field(default_factory=Counter)  # split, label, category, source
    sides: Counter[tuple[int, int]] = field(default_factory=Counter)  # training images: label, shorter side
    duplicates: Duplicates = field(default_factory=Duplicates)
    features: list[dict] = field(default_factory=list)  # of a sample of the labelled images
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # path and reason
    notes: list[str] = field(default_factory=list)  # sentences


@dataclass
class _Task:
    """An image to examine. Without `encoded`, the worker reads it from its file."""

    example: Example
    encoded: bytes | None = None
    original_sha256: bytes = b""  # of the file as found, if the image was equalised
    is_sampled: bool = False


@dataclass
class _Examined:
    """The result of a worker: what it found, with features if the image is sampled; or why it is unreadable."""

    fingerprint: Fingerprint | None = None
    shorter_side: int = 0  # of the upright image, in pixels
    features: dict | None = None
    reason: str = ""


# --- reading every image ---------------------------------------------------------------------------------------


def scan_folder(
    layout: Layout, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Scan:
    """Read every image of a data folder.

    Args:
        layout: its examples, with their splits.
        workers: processes; None for one per core.
        progress: called with (images done, images in all).
    """

    def read(paths: set[str]) -> Iterator[tuple[str, bytes]]:
        return ((path, read_file(layout.root / path)) for path in sorted(paths))

    scan = Scan({"data": str(layout.root), "kind": "folder"}, read, notes=layout.notes)
    tasks = map(_Task, layout.examples)
    _examine(scan, tasks, len(layout.examples), _count_labelled(layout), layout.root, workers, progress)
    return scan


def scan_records(
    records: "Records", *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Scan:
    """Read every image of opened records, as it is stored.

    Args:
        records: from `store.open_records`.
        workers, progress: as in `scan_folder`.
    """

    def read(paths: set[str]) -> Iterator[tuple[str, bytes]]:
        for task in _stored(records) if paths else ():
            if task.example.path in paths and task.encoded is not None:
                yield task.example.path, task.encoded

    about = {"data": str(records.folder), "kind": "records", "fingerprint": records.fingerprint}
    scan = Scan(about, read)
    total = sum(split.examples for split in records.splits.values())
    labelled = sum(sum(split.labels.values()) for split in records.splits.values())
    _examine(scan, _stored(records), total, labelled, records.folder, workers, progress)
    return scan


def _stored(records: "Records") -> Iterator[_Task]:
    from pipelines.records.queries import iterate_records  # noqa: PLC0415  loads TensorFlow, which folders do not need
    from pipelines.records.schema import NO_CATEGORY, Stored  # noqa: PLC0415

    for name, split in records.splits.items():
        for record in iterate_records(split):
            example = Example(
                path=record.path,
                label=record.label,
                category="" if record.category == NO_CATEGORY else records.categories[record.category],
                source=record.source,
                split=name,
            )
            task = _Task(example, record.image)
            if record.stored is Stored.EQUALISED:
                task.original_sha256 = bytes.fromhex(record.sha256)
            yield task


def _count_labelled(layout: Layout) -> int:
    return sum(number for (_, label, _, _), number in layout.examples.counts().items() if label != UNLABELLED)


def _examine(
    scan: Scan,
    tasks: Iterable[_Task],
    total: int,
    labelled: int,
    root: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    done = 0
    chunks = _chunks(tasks, labelled, min(labelled, _SAMPLE))
    job = partial(_examine_chunk, root)
    for chunk, results in in_parallel(job, chunks, worker_count(workers, total), pillow.silence):
        for task, result in zip(chunk, results, strict=True):
            example = task.example
            scan.counts[example.split, example.label, example.category, example.source] += 1
            if task.original_sha256:
                scan.notes = [_EQUALISED]
            if result.fingerprint is None:
                scan.unreadable.append((example.path, result.reason))
            elif example.split == "train" and example.label != UNLABELLED:
                scan.sides[example.label, result.shorter_side] += 1
            if result.features:
                scan.features.append(result.features)
        scan.duplicates.add(
            (task.example, result.fingerprint)
            for task, result in zip(chunk, results, strict=True)
            if result.fingerprint
        )
        done += len(chunk)
        if progress:
            progress(done, total)


def _chunks(tasks: Iterable[_Task], labelled: int, sample: int) -> Iterator[list[_Task]]:
    """Split the tasks into chunks for a worker, marking `sample` of the labelled ones, evenly spread, as sampled."""
    chunk: list[_Task] = []
    size, index = 0, 0
    for task in tasks:
        if task.example.label != UNLABELLED:
            task.is_sampled = (index + 1) * sample // labelled > index * sample // labelled
            index += 1
        chunk.append(task)
        size += len(task.encoded or b"")
        if len(chunk) == CHUNK or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _examine_chunk(root: Path, tasks: list[_Task]) -> list[_Examined]:
    return [_examine_image(root, task) for task in tasks]


def _examine_image(root: Path, task: _Task) -> _Examined:
    try:
        encoded = read_file(root / task.example.path) if task.encoded is None else task.encoded
        identity = fingerprint(encoded)
        if task.original_sha256:  # copies of one file were cropped differently
            identity = identity._replace(sha256=task.original_sha256)
        header = read_header(encoded)
        features = _features(encoded, task) if task.is_sampled else None
        return _Examined(identity, min(header.height, header.width), features)
    except (OSError, UnreadableError) as error:
        return _Examined(reason=getattr(error, "strerror", None) or str(error))


def _features(encoded: bytes, task: _Task) -> dict:
    features = file_features(encoded, task.example.path)
    if task.original_sha256:  # all went through one encoder, so the size depends on the content alone
        features["bytes_per_pixel"] = None
    example = task.example
    return {"split": example.split, "label": example.label, "category": example.category} | features


# --- the quick part --------------------------------------------------------------------------------------------


def quick_warnings(layout: Layout, *, workers: int | None = None) -> list[str]:
    """Find shortcuts in a data folder from a sample of at most 4,000 images.

    Args:
        layout: the examples.
        workers: processes; None for one per core.

    Returns:
        A sentence for each shortcut above the default thresholds, worst first.
    """
    labelled = _count_labelled(layout)
    chunks = _chunks(map(_Task, layout.examples), labelled, min(labelled, _QUICK_SAMPLE))
    sampled = ([task for task in chunk if task.is_sampled] for chunk in chunks)
    job = partial(_features_of_chunk, layout.root)
    results = in_parallel(job, sampled, worker_count(workers, labelled), pillow.silence)
    table = pd.DataFrame([features for _, rows in results for features in rows])
    if table.empty:
        return []
    findings = _shortcut_findings(shortcuts(table, groups=("file", "name")))
    return [f"{finding['text']}; {finding['remedy']}" for finding in sorted(findings, key=_severity, reverse=True)]


def _features_of_chunk(root: Path, tasks: list[_Task]) -> list[dict]:
    rows = []
    for task in tasks:
        with contextlib.suppress(OSError, UnreadableError):
            rows.append(_features(read_file(root / task.example.path), task))
    return rows


# --- judging ---------------------------------------------------------------------------------------------------


def judge(
    scan: Scan,
    *,
    image_size: int = 224,
    warn: float = WARN,
    fail: float = FAIL,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Find shortcuts, leaks and imbalance, and the view that suits the images.

    A file under two labels fails, as does a split of which more than 5 percent leaks from another.

    Args:
        scan: from `scan_folder` or `scan_records`.
        image_size: height and width of the network's input that is intended, in pixels.
        warn, fail: AUC above which a shortcut is a warning or a failure.
        seed: of the classifiers that look for shortcuts.
        progress: called with (classifiers done, classifiers in all).

    Returns:
        JSON-ready: `data`, `kind`, `notes`, `images`, `sampled`, `unreadable`, `warn`, `fail`, `seed`, `versions`;
        `shortcuts` as in `shortcuts.shortcuts`; `views` as in `views.compare_views`; `leaks` as in
        `duplicates.Duplicates.report`; `balance` with `counts`, `empty`, `tiny`, `formats` and `histograms`;
        `findings`, the worst first, each with `verdict` (warn or fail), `text` and `remedy`; `verdict`, the worst of
        these or ok, and its `meaning` in words.
    """
    table = pd.DataFrame(scan.features)
    results = [] if table.empty else shortcuts(table, warn=warn, fail=fail, seed=seed, progress=progress)
    result: dict = {
        **scan.about,
        "notes": scan.notes,
        "images": scan.counts.total(),
        "sampled": len(table),
        "unreadable": {
            "images": len(scan.unreadable),
            "first": [{"path": path, "reason": reason} for path, reason in scan.unreadable[:5]],
        },
        "warn": warn,
        "fail": fail,
        "seed": seed,
        "versions": {name: version(name) for name in ("Pillow", "scikit-learn", "numpy", "pandas")},
        "shortcuts": results,
        "views": compare_views(scan.sides, table, image_size, warn=warn, seed=seed),
        "leaks": scan.duplicates.report(),
        "balance": _balance(scan.counts, table),
    }
    findings = [
        *_shortcut_findings(results),
        *_view_findings(result["views"]),
        *_leak_findings(result),
        *_balance_findings(result),
    ]
    findings.sort(key=_severity, reverse=True)
    verdict = findings[0]["verdict"] if findings else "ok"
    return result | {"findings": findings, "verdict": verdict, "meaning": VERDICTS[verdict]}


def _verdict_rank(verdict: str) -> int:
    return list(VERDICTS).index(verdict)


def _severity(finding: Finding) -> int:
    return _verdict_rank(finding["verdict"])


def _balance(counts: Counter[tuple[str, int, str, str]], table: pd.DataFrame) -> dict:
    categories = sorted({category for _, _, category, _ in counts} - {""}) or [""]
    cells: Counter[tuple[str, str, str]] = Counter()
    for (split, label, category, _), number in counts.items():
        if label != UNLABELLED:
            cells[split, LABELS[label], category] += number
    splits = sorted({split for split, _, _ in cells}, key=SPLITS.index)
    rows: list[dict] = [
        {"split": split, "label": label, "category": category, "images": cells[split, label, category]}
        for split, label, category in product(splits, LABELS, categories)
    ]
    in_order = sorted(counts.items(), key=lambda item: (SPLITS.index(item[0][0]), *item[0][1:]))
    return {
        "counts": [
            {"split": split, "label": _label_name(label), "category": category, "source": source, "images": number}
            for (split, label, category, source), number in in_order
        ],
        "empty": [row for row in rows if not row["images"]],
        "tiny": [row for row in rows if 0 < row["images"] < MIN_IMAGES],
        "formats": {} if table.empty else _formats(table),
        "histograms": {} if table.empty else {name: _histogram(table, name) for name in _HISTOGRAMS},
    }


def _label_name(label: int) -> str:
    return "unlabelled" if label == UNLABELLED else LABELS[label]


def _formats(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {
        name: {
            str(kind): int(count) for kind, count in table["format"][table["label"] == label].value_counts().items()
        }
        for label, name in enumerate(LABELS)
    }


def _histogram(table: pd.DataFrame, name: str) -> dict | None:
    """Count values by label in at most 24 bins, of which the first and last include outliers; None without values."""
    values = pd.to_numeric(table[name]).astype(float)
    present = values.dropna()
    if present.empty:
        return None
    low, high = present.quantile([0.005, 0.995])
    if (present % 1 == 0).all():  # bins with the same number of integers each
        low, high = np.floor(low), np.ceil(high)
        step = np.ceil((high - low + 1) / _BINS)
        edges = np.arange(low - 0.5, high + 0.5 + step, step)
    else:
        edges = np.linspace(low, high, _BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])
    clipped = values.clip(edges[0], edges[-1])
    by_label = {
        label: np.histogram(clipped[(table["label"] == index) & clipped.notna()], edges)[0].tolist()
        for index, label in enumerate(LABELS)
    }
    return {"low": float(low), "high": float(high), "edges": edges.tolist(), **by_label}


# --- findings in words -----------------------------------------------------------------------------------------


def _shortcut_findings(results: list[dict]) -> Iterator[Finding]:
    """One for each target and group that warns or fails, overall or within some categories."""
    for target, group in product(("label", "category"), ("file", "name")):
        bad = [
            result
            for result in results
            if (result["target"], result["group"]) == (target, group) and result["verdict"] != "ok"
        ]
        if not bad:
            continue
        # Sorting is stable: among equals the overall result stays first.
        worst, *others = sorted(bad, key=lambda result: _verdict_rank(result["verdict"]), reverse=True)
        places = [f"in {result['within']}" if result["within"] else "overall" for result in others]
        more = ", ".join(f"{place} {result['auc']:.3f}" for place, result in zip(places, others, strict=True))
        text = format_shortcut(worst) + (f"; {more}" if more else "")
        yield {"verdict": worst["verdict"], "text": text, "remedy": _REMEDIES[group]}


def _view_findings(views: dict) -> Iterator[Finding]:
    """A warning where shrinking tells the labels apart; it never fails, as sizes are among the shortcuts already."""
    if views["verdict"] != "ok":
        text = (
            f"squash would make {format_shrinking(views)}, and this alone tells fake from real: {format_auc(views)}"
        )
        remedy = _WINDOWS if views["suggestion"] == "windows" else _REMEDIES["file"]
        yield {"verdict": views["verdict"], "text": text, "remedy": remedy}


def _leak_findings(result: dict) -> Iterator[Finding]:
    leaks = result["leaks"]
    sizes: Counter[str] = Counter()
    for row in result["balance"]["counts"]:
        sizes[row["split"]] += row["images"]
    contradictory = leaks["exact_across_labels"]
    if contradictory["images"]:
        number = _format_count(sum(contradictory["images"].values()), "file")
        text = f"{number} labelled both real and fake, {_format_example(contradictory)}"
        yield {"verdict": "fail", "text": text, "remedy": f"correct the labels, or {_DROP}"}
    for kind, manner in (("exact", "byte for byte"), ("near", "nearly the same")):
        leak = leaks[f"{kind}_across_splits"]
        if not leak["images"]:
            continue
        shares = {split: number / sizes[split] for split, number in leak["images"].items()}
        counts = " and ".join(
            f"{_format_count(number, 'image')} of {split} ({shares[split]:.1%})"
            for split, number in leak["images"].items()
        )
        yield {
            "verdict": "fail" if max(shares.values()) > _MAX_LEAK else "warn",
            "text": f"{counts} also found in another split, {manner}, {_format_example(leak)}",
            "remedy": _DROP,
        }


def _balance_findings(result: dict) -> Iterator[Finding]:
    balance, unreadable = result["balance"], result["unreadable"]
    if balance["empty"]:
        text = f"there are no images {_format_cells(balance['empty'])}"
        yield {"verdict": "warn", "text": text, "remedy": "add images, or remove the class"}
    if balance["tiny"]:
        text = f"there are fewer than {MIN_IMAGES} images {_format_cells(balance['tiny'])}"
        yield {"verdict": "warn", "text": text, "remedy": "add images, or do not trust numbers on these"}
    if unreadable["images"]:
        first = unreadable["first"][0]
        number = _format_count(unreadable["images"], "file")
        text = f"{number} that cannot be read, such as {_format_path(first['path'])}: {first['reason']}"
        yield {"verdict": "warn", "text": text, "remedy": "repair them; ddk make-tfrecords leaves them out"}


def _format_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _format_example(duplicates: dict) -> str:
    worst = duplicates["pairs"][0]
    return f"such as {_format_path(worst['a']['path'])} and {_format_path(worst['b']['path'])}"


def _format_path(path: str) -> str:
    """A path that can be printed: bytes that are not UTF-8 become question marks."""
    return os.fsencode(path).decode(errors="replace")


def _format_cells(cells: list[dict]) -> str:
    names = [" ".join(filter(None, (cell["split"], cell["label"], cell["category"]))) for cell in cells]
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return f"in {', '.join(names[:3])}{more}"


# --- thumbnails ------------------------------------------------------------------------------------------------


def thumbnails(scan: Scan, result: dict) -> dict[str, bytes]:
    """Make thumbnails, by path, of the images in the pairs of `result`; unreadable ones are skipped."""
    kinds = [kind for kind in result["leaks"].values() if isinstance(kind, dict)]
    paths = {pair[side]["path"] for kind in kinds for pair in kind["pairs"] for side in "ab"}
    previews = {}
    for path, encoded in scan.read(paths):
        with contextlib.suppress(*pillow.PILLOW_ERRORS):
            previews[path] = thumbnail(encoded)
    return previews
