"""The audit: what would make a detector's numbers good for a wrong reason.

Three questions to a data folder or to records: can the label be told without a look at the pixels (`shortcuts`), do
images occur in two splits or under two labels (`leaks`), is there enough of everything (balance). `read_folder` or
`read_records` looks at every image once, `judge` answers.
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
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipelines.audit.duplicates import CHUNK, Duplicates, Fingerprint, fingerprint
from pipelines.audit.shortcuts import FAIL, WARN, describe, file_features, shortcuts
from pipelines.datasets.examples import LABELS, SPLITS, UNLABELLED, Example
from pipelines.datasets.layouts import Layout
from pipelines.media.headers import DAMAGED, UnreadableError, read_file
from pipelines.media.thumbnails import thumbnail
from pipelines.parallel import in_parallel, worker_count

if TYPE_CHECKING:
    from pipelines.records.store import Records  # which loads TFDS

VERDICTS = {  # from good to bad
    "ok": "nothing was found that would make a detector good for a wrong reason",
    "warn": "usable with care; read the warnings before you believe a number",
    "fail": "do not train on this as it is; what a detector learns from it need not be what fakes look like",
}
_SAMPLE, _QUICK_SAMPLE = 20_000, 4_000  # images a classifier of the files is trained on
_TINY = 20  # images of a label and class in a split; what is measured on fewer has no second digit
_LEAK_FAILS = 0.05  # of a split; with more its numbers are about memory
_CHUNK_BYTES = 16 * 2**20  # of records, sent to a worker at once
_BINS = 24
_HISTOGRAMS = ("height", "width", "jpeg_quality", "bytes_per_pixel")
_EQUALISED = (
    "the images were equalised, each by a crop of its own: look for near-duplicates in the data folder instead"
)
_REMEDIES = {  # of shortcuts, by group of features
    "file": "give all images one treatment with: ddk make-tfrecords DATA --equalise",
    "name": "no model is shown names, but see whether real and fake were collected alike",
}
_DROP = "leave them out with: ddk make-tfrecords DATA --drop-duplicates"


@dataclass
class Seen:
    """What one look at every image of a data set found; for `judge`."""

    about: dict  # what was looked at: `data`, `kind`, and of records their `fingerprint`
    read: Callable[[set[str]], Iterator[tuple[str, bytes]]]  # the encoded images of some paths, in any order
    counts: Counter = field(default_factory=Counter)  # of (split, label, category, source)
    duplicates: Duplicates = field(default_factory=Duplicates)
    features: list[dict] = field(default_factory=list)  # of a sample of the labelled images
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # path and reason
    notes: list[str] = field(default_factory=list)  # sentences


@dataclass
class _Task:
    """An image to look at. Without `encoded` it is read from its file, by the worker."""

    example: Example
    encoded: bytes | None = None
    equalised_from: bytes = b""  # SHA-256 of the file as found, where that is not what is stored
    is_sampled: bool = False


# --- looking at every image ------------------------------------------------------------------------------------


def read_folder(
    layout: Layout, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Seen:
    """Look at every image of a data folder.

    Args:
        layout: its examples, with their splits.
        workers: processes; None for one per core.
        progress: called with (images done, images in all).
    """

    def read(paths: set[str]) -> Iterator[tuple[str, bytes]]:
        return ((path, read_file(layout.root / path)) for path in sorted(paths))

    seen = Seen({"data": str(layout.root), "kind": "folder"}, read, notes=layout.notes)
    labelled = sum(number for (_, label, _, _), number in layout.examples.counts().items() if label != UNLABELLED)
    images = map(_Task, layout.examples)
    _look(seen, images, len(layout.examples), labelled, layout.root, workers, progress)
    return seen


def read_records(
    records: "Records", *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Seen:
    """Look at every image of opened records, as it is stored.

    Args:
        records: as `records.open_records` gives them.
        workers, progress: as in `read_folder`.
    """

    def read(paths: set[str]) -> Iterator[tuple[str, bytes]]:
        stored = _stored(records) if paths else ()
        return ((task.example.path, task.encoded) for task in stored if task.example.path in paths)

    about = {"data": str(records.folder), "kind": "records", "fingerprint": records.fingerprint}
    seen = Seen(about, read)
    total = sum(split.examples for split in records.splits.values())
    labelled = sum(sum(split.labels.values()) for split in records.splits.values())
    _look(seen, _stored(records), total, labelled, records.folder, workers, progress)
    return seen


def _stored(records: "Records") -> Iterator[_Task]:
    import tensorflow as tf  # noqa: PLC0415  seconds, which a data folder needs not wait

    for name, split in records.splits.items():
        for serialised in tf.data.TFRecordDataset(split.files).as_numpy_iterator():
            fields = tf.train.Example.FromString(serialised).features.feature
            category = fields["category"].int64_list.value[0] if records.categories else -1
            example = Example(
                path=os.fsdecode(fields["path"].bytes_list.value[0]),
                label=fields["label"].int64_list.value[0],
                category=records.categories[category] if category >= 0 else "",
                source=fields["source"].bytes_list.value[0].decode(),
                split=name,
            )
            task = _Task(example, fields["image"].bytes_list.value[0])
            if fields["stored"].bytes_list.value[0] == b"equalised":
                task.equalised_from = bytes.fromhex(fields["sha256"].bytes_list.value[0].decode())
            yield task


def _look(
    seen: Seen,
    images: Iterable[_Task],
    total: int,
    labelled: int,
    root: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    done = 0
    chunks = _chunks(images, labelled, min(labelled, _SAMPLE))
    for chunk, answers in in_parallel(partial(_look_at_all, root), chunks, worker_count(workers, total)):
        for task, (found, features, reason) in zip(chunk, answers, strict=True):
            example = task.example
            if task.equalised_from:
                seen.notes = [_EQUALISED]
            seen.counts[example.split, example.label, example.category, example.source] += 1
            if found is None:
                seen.unreadable.append((example.path, reason))
            if features:
                seen.features.append(features)
        known = zip(chunk, answers, strict=True)
        seen.duplicates.add((task.example, found) for task, (found, _, _) in known if found)
        done += len(chunk)
        if progress:
            progress(done, total)


def _chunks(images: Iterable[_Task], labelled: int, sample: int) -> Iterator[list[_Task]]:
    """The images in chunks for a worker; `sample` of the labelled ones, evenly over all, are marked."""
    chunk, size, index = [], 0, 0
    for task in images:
        if task.example.label != UNLABELLED:
            task.is_sampled = (index + 1) * sample // labelled > index * sample // labelled
            index += 1
        chunk.append(task)
        size += len(task.encoded or b"")
        if len(chunk) == CHUNK or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _look_at_all(root: Path, tasks: list[_Task]) -> list[tuple[Fingerprint | None, dict | None, str]]:
    return [_look_at(root, task) for task in tasks]


def _look_at(root: Path, task: _Task) -> tuple[Fingerprint | None, dict | None, str]:
    """Fingerprint, features when they are asked for, and why there is neither."""
    try:
        encoded = read_file(root / task.example.path) if task.encoded is None else task.encoded
        found = fingerprint(encoded)
        if task.equalised_from:  # each copy by a crop of its own
            found = found._replace(sha256=task.equalised_from)
        return found, _features(encoded, task) if task.is_sampled else None, ""
    except (OSError, UnreadableError) as error:
        return None, None, getattr(error, "strerror", None) or str(error)


def _features(encoded: bytes, task: _Task) -> dict:
    features = file_features(encoded, task.example.path)
    if task.equalised_from:  # by one encoder at qualities drawn alike: how many bytes it took is about the picture
        features["bytes_per_pixel"] = None
    return {"label": task.example.label, "category": task.example.category} | features


# --- the quick part --------------------------------------------------------------------------------------------


def quick_warnings(layout: Layout, *, workers: int | None = None) -> list[str]:
    """Whether the labels or classes of a data folder can be told from its files, asked of 4,000 images at most.

    Args:
        layout: the examples.
        workers: processes; None for one per core.

    Returns:
        A sentence for each shortcut above the usual bounds, worst first; none when all is well.
    """
    labelled = sum(number for (_, label, _, _), number in layout.examples.counts().items() if label != UNLABELLED)
    chunks = _chunks(map(_Task, layout.examples), labelled, min(labelled, _QUICK_SAMPLE))
    sampled = ([task for task in chunk if task.is_sampled] for chunk in chunks)
    answers = in_parallel(partial(_features_of_all, layout.root), sampled, worker_count(workers, labelled))
    table = pd.DataFrame([row for _, rows in answers for row in rows])
    if table.empty:
        return []
    found = _shortcut_findings(shortcuts(table, groups=("file", "name")))
    return [f"{finding['text']}; {finding['remedy']}" for finding in sorted(found, key=_badness, reverse=True)]


def _features_of_all(root: Path, tasks: list[_Task]) -> list[dict]:
    rows = []
    for task in tasks:
        with contextlib.suppress(OSError, UnreadableError):
            rows.append(_features(read_file(root / task.example.path), task))
    return rows


# --- judging ---------------------------------------------------------------------------------------------------


def judge(
    seen: Seen,
    *,
    warn: float = WARN,
    fail: float = FAIL,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Find shortcuts, leaks and want of balance in what was seen.

    Args:
        seen: what `read_folder` or `read_records` returned.
        warn, fail: areas under the ROC curve above which a shortcut is a warning or a failure.
        seed: of the classifiers that look for shortcuts.
        progress: called with (classifiers done, classifiers in all).

    Returns:
        JSON-ready: `data`, `kind`, `notes`, `images`, `sampled`, `unreadable`, `warn`, `fail`, `seed`, `versions`;
        `shortcuts` as in `shortcuts.shortcuts`; `leaks` as in `leaks.Duplicates.report`; `balance` with `counts`,
        `empty`, `tiny`, `formats` and `histograms`; `findings`, the worst first, each with `verdict` (warn or fail),
        `text` and `remedy`; `verdict`, the worst of them, else ok, and its `meaning` in words. Beside shortcuts, a
        file under two labels fails, and a split of which more than 5 percent leak from another.
    """
    images = seen.counts.total()
    table = pd.DataFrame(seen.features)
    result = {
        **seen.about,
        "notes": seen.notes,
        "images": images,
        "sampled": len(table),
        "unreadable": {
            "images": len(seen.unreadable),
            "first": [{"path": path, "reason": reason} for path, reason in seen.unreadable[:5]],
        },
        **{"warn": warn, "fail": fail, "seed": seed},
        "versions": {name: version(name) for name in ("Pillow", "scikit-learn", "numpy", "pandas")},
        "shortcuts": [] if table.empty else shortcuts(table, warn=warn, fail=fail, seed=seed, progress=progress),
        "leaks": seen.duplicates.report(),
        "balance": _balance(seen.counts, table),
    }
    found = [*_shortcut_findings(result["shortcuts"]), *_leak_findings(result), *_balance_findings(result)]
    result["findings"] = sorted(found, key=_badness, reverse=True)
    verdict = result["findings"][0]["verdict"] if found else "ok"
    return result | {"verdict": verdict, "meaning": VERDICTS[verdict]}


def _badness(found: dict) -> int:
    return list(VERDICTS).index(found["verdict"])


def _balance(counts: Counter, table: pd.DataFrame) -> dict:
    categories = sorted({category for _, _, category, _ in counts} - {""}) or [""]
    cells = Counter()
    for (split, label, category, _), number in counts.items():
        if label != UNLABELLED:
            cells[split, LABELS[label], category] += number
    splits = sorted({split for split, _, _ in cells}, key=SPLITS.index)
    rows = [
        {"split": split, "label": label, "category": category, "images": cells[split, label, category]}
        for split, label, category in product(splits, LABELS, categories)
    ]
    return {
        "counts": [
            {"split": split, "label": _label(label), "category": category, "source": source, "images": number}
            for (split, label, category, source), number in sorted(
                counts.items(), key=lambda item: (SPLITS.index(item[0][0]), *item[0][1:])
            )
        ],
        "empty": [row for row in rows if not row["images"]],
        "tiny": [row for row in rows if 0 < row["images"] < _TINY],
        "formats": {} if table.empty else _formats(table),
        "histograms": {} if table.empty else {name: _histogram(table, name) for name in _HISTOGRAMS},
    }


def _label(label: int) -> str:
    return "unlabelled" if label == UNLABELLED else LABELS[label]


def _formats(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {
        name: {kind: int(number) for kind, number in table["format"][table["label"] == label].value_counts().items()}
        for label, name in enumerate(LABELS)
    }


def _histogram(table: pd.DataFrame, name: str) -> dict | None:
    """Counts by label in at most 24 bins, the first and last with all beyond them; None where there is nothing."""
    values = pd.to_numeric(table[name]).astype(float)
    known = values.dropna()
    if known.empty:
        return None
    low, high = known.quantile([0.005, 0.995])
    if (known % 1 == 0).all():  # bins of as many whole numbers each
        low, high = np.floor(low), np.ceil(high)
        step = np.ceil((high - low + 1) / _BINS)
        edges = np.arange(low - 0.5, high + 0.5 + step, step)
    else:
        edges = np.linspace(low, high, _BINS + 1) if low < high else np.array([low - 0.5, low + 0.5])
    inside = values.clip(edges[0], edges[-1])
    by_label = {
        label: np.histogram(inside[(table["label"] == index) & inside.notna()], edges)[0].tolist()
        for index, label in enumerate(LABELS)
    }
    return {"low": float(low), "high": float(high), "edges": edges.tolist(), **by_label}


# --- in words --------------------------------------------------------------------------------------------------


def _shortcut_findings(rows: list[dict]) -> Iterator[dict]:
    """One for each question that fails or warns, whether overall or within some categories."""
    for target, group in product(("label", "category"), ("file", "name")):
        asked = [row for row in rows if (row["target"], row["group"]) == (target, group) and row["verdict"] != "ok"]
        if not asked:
            continue
        worst, *others = sorted(asked, key=_badness, reverse=True)  # of equals the overall one, which comes first
        where = [f"in {row['within']}" if row["within"] else "overall" for row in others]
        more = ", ".join(f"{place} {row['auc']:.3f}" for place, row in zip(where, others, strict=True))
        text = describe(worst) + (f"; {more}" if more else "")
        yield {"verdict": worst["verdict"], "text": text, "remedy": _REMEDIES[group]}


def _leak_findings(result: dict) -> Iterator[dict]:
    leaks, sizes = result["leaks"], Counter()
    for row in result["balance"]["counts"]:
        sizes[row["split"]] += row["images"]
    twice = leaks["exact_across_labels"]
    if twice["images"]:
        text = f"{_many(sum(twice['images'].values()), 'file')} labelled both real and fake, {_such_as(twice)}"
        yield {"verdict": "fail", "text": text, "remedy": f"correct the labels, or {_DROP}"}
    for kind, how in (("exact", "byte for byte"), ("near", "nearly the same")):
        found = leaks[f"{kind}_across_splits"]
        if not found["images"]:
            continue
        shares = {split: number / sizes[split] for split, number in found["images"].items()}
        named = " and ".join(
            f"{_many(number, 'image')} of {split} ({shares[split]:.1%})" for split, number in found["images"].items()
        )
        verdict = "fail" if max(shares.values()) > _LEAK_FAILS else "warn"
        yield {
            "verdict": verdict,
            "text": f"{named} found in another split as well, {how}, {_such_as(found)}",
            "remedy": _DROP,
        }


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _such_as(found: dict) -> str:
    worst = found["pairs"][0]
    return f"such as {_shown(worst['a']['path'])} and {_shown(worst['b']['path'])}"


def _shown(path: str) -> str:
    """A path that can be printed: what is no UTF-8 becomes a question mark."""
    return os.fsencode(path).decode(errors="replace")


def _balance_findings(result: dict) -> Iterator[dict]:
    balance, unreadable = result["balance"], result["unreadable"]
    if balance["empty"]:
        text = f"there is not one image {_cells(balance['empty'])}"
        yield {"verdict": "warn", "text": text, "remedy": "add images, or take the class out"}
    if balance["tiny"]:
        text = f"there are fewer than {_TINY} images {_cells(balance['tiny'])}"
        yield {"verdict": "warn", "text": text, "remedy": "add images, or do not trust numbers on these"}
    if unreadable["images"]:
        first = unreadable["first"][0]
        text = f"{_many(unreadable['images'], 'file')} that cannot be read, such as {_shown(first['path'])}"
        text += f": {first['reason']}"
        yield {"verdict": "warn", "text": text, "remedy": "mend them; ddk make-tfrecords leaves them out"}


def _cells(cells: list[dict]) -> str:
    named = [" ".join(filter(None, (cell["split"], cell["label"], cell["category"]))) for cell in cells]
    more = f", and {len(named) - 3} more" if len(named) > 3 else ""
    return f"in {', '.join(named[:3])}{more}"


# --- thumbnails ------------------------------------------------------------------------------------------------


def thumbnails(seen: Seen, result: dict) -> dict[str, bytes]:
    """Small JPEGs of the images that the pairs in `result` name, by path; those that can be read."""
    kinds = [kind for kind in result["leaks"].values() if isinstance(kind, dict)]
    paths = {pair[side]["path"] for kind in kinds for pair in kind["pairs"] for side in "ab"}
    made = {}
    for path, encoded in seen.read(paths):
        try:
            made[path] = thumbnail(encoded)
        except DAMAGED:
            continue
    return made
