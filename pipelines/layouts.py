"""A data folder, or its metadata.csv, as a sorted list of Examples; and which split each of them belongs to.

Understood layouts, folder and column names in any case:

    {train,val|validation,test}/{real,fake|deepfake}/[{class}/[{source}/]]NAME
    {real,fake|deepfake}/[{class}/[{source}/]]NAME           split by a stable hash
    metadata.csv with image_path, label, class[, source]     split from the path, else by a stable hash
    test/NAME                                                a flat test folder is an unlabelled split
"""

import csv
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.errors import DataError

LABELS = ("real", "fake")
UNLABELLED = -1
IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_LABEL_WORDS = {"real": 0, "0": 0, "fake": 1, "deepfake": 1, "1": 1}
_LABEL_FOLDERS = ("real", "fake", "deepfake")
_LAYOUT_HELP = "{train,validation,test}/{real,fake}/{class}/, the same without split or class, or a metadata.csv"


@dataclass(frozen=True, slots=True)
class Example:
    """One image and what is known of it. `path` is relative to the data folder, with forward slashes."""

    path: str
    label: int = UNLABELLED  # 0 real, 1 fake, -1 unlabelled
    category: str = ""
    source: str = ""
    split: str = ""  # train, validation or test


@dataclass(frozen=True)
class Layout:
    """What a data folder holds: its examples in a fixed order, and what was left out, as sentences."""

    root: Path
    examples: list[Example]
    notes: list[str] = field(default_factory=list)

    @property
    def categories(self) -> list[str]:
        """The class names, sorted; empty when the data has none."""
        return sorted({example.category for example in self.examples} - {""})


def read_layout(folder: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0) -> Layout:
    """Find every image under `folder` and give it a label, category, source and split.

    Args:
        folder: a data folder in one of the layouts above.
        val_fraction: share of the images, in (0, 1), that goes to validation where the folder names no splits.
        seed: changes which images that share is made of, and the order of the examples.

    Raises:
        DataError: the folder is missing, empty or in no known layout; a metadata.csv lacks a column or names
            files that do not exist; a label or class occurs in one split only.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the images")
    table = _entry(root, "metadata.csv")
    examples, notes = _read_metadata(root, table) if table else _read_folders(root)
    if not examples:
        raise DataError(f"{root} holds no images; expected {_LAYOUT_HELP}")
    splits = {example.split for example in examples}
    if "train" in splits and "validation" not in splits:
        notes.append(f"there is no validation folder: {val_fraction:.0%} of train is held out as validation")
    examples = _assign_splits(examples, val_fraction, seed)
    _check_splits(examples)
    examples.sort(key=lambda example: (example.split, _hash(seed, "order", example.path)))
    return Layout(root, examples, notes)


def image_files(folder: Path) -> Iterator[Path]:
    """Every file with an image suffix under `folder`, sorted, through linked folders but never in circles."""
    return (path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Files as they are named, and the images under folders.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; give image files or folders of images")
        files = list(image_files(path)) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} holds no images")
        found += files
    return found


def _files(folder: Path) -> Iterator[Path]:
    start = Path(os.path.realpath(folder))
    seen = {str(start), *map(str, start.parents)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        kept = {name: os.path.realpath(os.path.join(parent, name)) for name in sorted(folders) if name[0] != "."}
        folders[:] = [name for name, target in kept.items() if target not in seen]
        seen.update(kept.values())
        yield from (Path(parent, name) for name in sorted(names) if name[0] != ".")


def _entry(folder: Path, name: str) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if path.name.casefold() == name), None)


def _subfolders(folder: Path) -> dict[str, list[Path]]:
    """Sub-folders by their name in lower case: `Real` and `real` are one label."""
    found = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name[0] != ".":
            found[path.name.casefold()].append(path)
    return found


# --- folders ---------------------------------------------------------------------------------------------------


def _read_folders(root: Path) -> tuple[list[Example], list[str]]:
    folders = _subfolders(root)
    split_folders = [(split, path) for name, split in _SPLITS.items() for path in folders.get(name, [])]
    if not split_folders:
        examples, claimed = _read_labels(root, root, split="")
        return examples, _unclaimed_notes(root, claimed)
    examples, claimed = [], set()
    for split, path in split_folders:
        found, files = _read_labels(root, path, split)
        examples += found
        claimed |= files
    return examples, _unclaimed_notes(root, claimed)


def _read_labels(root: Path, folder: Path, split: str) -> tuple[list[Example], set[Path]]:
    """The examples under `folder`'s label folders, and the files they are; a flat `test/` has no labels."""
    subfolders = _subfolders(folder)
    labelled = [(name, path) for name in _LABEL_FOLDERS for path in subfolders.get(name, [])]
    if not labelled:
        files = list(image_files(folder))
        if not files:
            return [], set()
        if split != "test":
            raise DataError(f"{folder} has no real/ and fake/ folders; expected {_LAYOUT_HELP}")
        return [Example(_relative(path, root), split=split) for path in files], set(files)
    examples, claimed = [], set()
    for name, label_folder in labelled:
        for path in image_files(label_folder):
            levels = path.relative_to(label_folder).parts[:-1]
            category, source = (*levels, "", "")[:2]
            label = _LABEL_WORDS[name]
            examples.append(Example(_relative(path, root), label, category.casefold(), source, split))
            claimed.add(path)
    return examples, claimed


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _unclaimed_notes(root: Path, claimed: set[Path]) -> list[str]:
    left = [_relative(path, root) for path in _files(root) if path not in claimed]
    return [f"left out {len(left)} files outside the layout or not images, such as {left[0]}"] if left else []


# --- metadata.csv ----------------------------------------------------------------------------------------------


def _read_metadata(root: Path, table: Path) -> tuple[list[Example], list[str]]:
    rows = _metadata_rows(table)
    examples = [_metadata_example(root, table, number, row) for number, row in enumerate(rows, start=2)]
    missing = [example.path for example in examples if not (root / example.path).is_file()]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} of {len(examples)} files that do not exist, the first {missing[0]}; "
            f"correct image_path, which is relative to {root}"
        )
    repeated = [path for path, times in Counter(example.path for example in examples).items() if times > 1]
    if repeated:
        raise DataError(f"{table} lists {repeated[0]} more than once; keep one row for each image")
    return _with_unlisted(root, table, examples)


def _metadata_rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [(column or "").strip().casefold() for column in reader.fieldnames or []]
            missing = [column for column in ("image_path", "label", "class") if column not in columns]
            if missing:
                raise DataError(
                    f"{table} has no column {' or '.join(missing)}; it needs image_path, label and class "
                    "(empty where there is none), and may have source"
                )
            reader.fieldnames = columns
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV file in UTF-8 ({error}); save it as one") from error


def _metadata_example(root: Path, table: Path, number: int, row: dict[str, str]) -> Example:
    def value(column: str) -> str:
        return (row.get(column) or "").strip()

    word = value("label").casefold()
    if word not in _LABEL_WORDS:
        raise DataError(f"{table} line {number} has the label {word!r}; use 0 or real, 1 or fake")
    path = value("image_path").removeprefix("./")
    inside = path.partition("/")[2]
    # ArtiFact_240K writes some paths with the data set's own folder name in front.
    if inside and path.partition("/")[0] == root.resolve().name and not (root / path).exists():
        path = inside
    split = _SPLITS.get(path.partition("/")[0].casefold(), "")
    return Example(path, _LABEL_WORDS[word], value("class").casefold(), value("source"), split)


def _with_unlisted(root: Path, table: Path, examples: list[Example]) -> tuple[list[Example], list[str]]:
    """Add a flat test folder, which metadata.csv need not list; say how many other images it does not list."""
    listed = {example.path for example in examples}
    unlisted = [path for path in (_relative(path, root) for path in image_files(root)) if path not in listed]
    flat = [path for path in unlisted if path.casefold().startswith("test/") and path.count("/") == 1]
    left = sorted(set(unlisted) - set(flat))
    notes = [f"left out {len(left)} images that {table.name} does not list, such as {left[0]}"] if left else []
    return examples + [Example(path, split="test") for path in flat], notes


# --- splits ----------------------------------------------------------------------------------------------------


def _hash(seed: int, purpose: str, path: str) -> bytes:
    return hashlib.sha256(f"{seed}/{purpose}/".encode() + os.fsencode(path)).digest()


def _assign_splits(examples: list[Example], val_fraction: float, seed: int) -> list[Example]:
    """Fill in what the folder does not say: a hash of the path decides, so adding an image moves no other."""

    def held_out(example: Example) -> bool:
        return int.from_bytes(_hash(seed, "split", example.path)[:8]) < val_fraction * 2**64

    # A folder with train/ but no validation/ gives up a part of train/; one without train/ is caught below.
    to_divide = {"", "train"} if all(example.split != "validation" for example in examples) else {""}
    return [
        replace(example, split="validation" if held_out(example) else "train")
        if example.split in to_divide
        else example
        for example in examples
    ]


def _check_splits(examples: list[Example]) -> None:
    """Every label and class is learnt in train and measured elsewhere, or its numbers mean nothing."""
    found: dict[tuple[str, str], set[str]] = {("label", label): set() for label in LABELS}
    for example in examples:
        if example.label != UNLABELLED:
            found["label", LABELS[example.label]].add(example.split)
            if example.category:
                found.setdefault(("class", example.category), set()).add(example.split)
    for (kind, name), splits in sorted(found.items()):
        if not splits:
            raise DataError(f"there are no {name} images; a detector is trained on both real and fake ones")
        if "train" not in splits or len(splits) == 1:
            raise DataError(
                f"the {kind} {name} occurs in {' and '.join(sorted(splits))} only; it must occur in train and in "
                "validation or test: move or add images, or change --val-fraction or --seed"
            )
