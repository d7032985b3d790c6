"""A data folder, or its metadata.csv, as Examples; and which split each of them belongs to.

Understood layouts, folder and column names in any case:

    {train,val|validation,test}/{real,fake|deepfake}/[{class}/[{source}/]]NAME
    {real,fake|deepfake}/[{class}/[{source}/]]NAME           split by a stable hash
    metadata.csv with image_path, label, class[, source]     split from the path, else by a stable hash
    test/NAME                                                a flat test folder is an unlabelled split
"""

import csv
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.datasets.examples import LABELS, UNLABELLED, Example, Examples
from pipelines.exceptions import DataError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_LABEL_WORDS = {"real": 0, "0": 0, "fake": 1, "deepfake": 1, "1": 1}
_LABEL_FOLDERS = {"real": 0, "fake": 1, "deepfake": 1}
_LAYOUT_HELP = "{train,validation,test}/{real,fake}/{class}/, the same without split or class, or a metadata.csv"


@dataclass(frozen=True)
class Layout:
    """What a data folder holds: its examples in a fixed order, and what was left out, as sentences."""

    root: Path
    examples: Examples
    notes: list[str] = field(default_factory=list)
    names: list[str] | None = None  # of the classes, where they are to be others than those that occur

    @property
    def categories(self) -> list[str]:
        """The class names, sorted; empty when the data has none."""
        return self.examples.categories() if self.names is None else self.names


def read_layout(folder: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0, split_by: str = "") -> Layout:
    """Find every image under `folder` and give it a label, category, source and split.

    Args:
        folder: a data folder in one of the layouts above.
        val_fraction: share of the images, in (0, 1), that goes to validation where the folder names no splits.
        seed: changes which images that share is made of, and the order of the examples.
        split_by: a column of metadata.csv, or `source`; images with the same value there come into one split.

    Raises:
        DataError: the folder is missing, empty or in no known layout, or a folder in it cannot be read; a
            metadata.csv lacks a column or names files that do not exist; a label or class occurs in one split
            only; there is no column `split_by`, or the folder's own splits divide its groups.
    """
    layout = _read(Path(folder), seed, split_by)
    _assign_splits(layout.examples, val_fraction, layout.notes)
    _check_splits(layout.examples)
    if divided := layout.examples.divided_group():
        group, splits = divided
        raise DataError(
            f"the {split_by} {group} occurs in {' and '.join(splits)}, which the folders decide; move its images "
            "into one split, or leave out --split-by"
        )
    return layout


def read_labelled(folder: str | os.PathLike) -> Layout:
    """Find every image under `folder` as `read_layout` does, of whatever labels and classes, in whatever splits.

    Raises:
        DataError: the folder cannot be understood, or an image in it carries no label.
    """
    layout = _read(Path(folder), seed=0, split_by="")
    if unlabelled := next((example.path for example in layout.examples if example.label == UNLABELLED), None):
        raise DataError(f"{layout.root / unlabelled} has no label; move it into real/ or fake/")
    return layout


def image_files(folder: Path) -> Iterator[Path]:
    """Every file with an image suffix under `folder`, sorted, through linked folders but never in circles."""
    return (folder / path for path in sorted(path for path, _ in _files(folder)) if _is_image(path))


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Files as they are named, and the images under folders.

    Raises:
        DataError: a path does not exist, or a folder holds no image.
    """
    return [Path(path) for path in find_image_names(paths)]


def find_image_names(paths: Iterable[Path]) -> list[str]:
    """The same as text: of a million images a tenth of a gigabyte, in a third of the time."""
    found = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; give image files or folders of images")
        before = len(found)
        found += _image_names(path) if path.is_dir() else [str(path)]
        if len(found) == before:
            raise DataError(f"{path} holds no images")
    return found


def _read(root: Path, seed: int, split_by: str) -> Layout:
    """What the folder says, and no more: the split of an example may still be empty."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the images")
    examples, table = Examples(seed), _entry(root, "metadata.csv")
    notes = _read_metadata(root, table, examples, split_by) if table else _read_folders(root, examples, split_by)
    if not examples:
        raise DataError(f"{root} holds no images; expected {_LAYOUT_HELP}")
    return Layout(root, examples, notes)


def _image_names(folder: Path) -> Iterator[str]:
    prefix = "" if folder == Path() else os.path.join(folder, "")  # as Path joins them
    return (prefix + path for path in sorted(path for path, _ in _files(folder) if _is_image(path)))


def _is_image(path: str) -> bool:
    return "." + path.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _files(folder: Path, prefix: str = "", seen: set[str] | None = None) -> Iterator[tuple[str, os.DirEntry]]:
    """Every file under `folder` as its path in it and its entry, in no order; hidden ones are passed over."""
    if seen is None:
        start = Path(os.path.realpath(folder))
        seen = {str(start), *map(str, start.parents)}
    folders = []
    for entry in _entries(folder / prefix, is_root=not prefix):
        if entry.name[0] == ".":
            continue
        if _is_folder(entry):
            folders.append(entry.name)
        else:
            yield prefix + entry.name, entry
    for name in sorted(folders):  # in one order, for the first of two links to one folder is the one that counts
        target = os.path.realpath(folder / prefix / name)
        if target not in seen:
            seen.add(target)
            yield from _files(folder, f"{prefix}{name}/", seen)


def _entries(folder: Path, *, is_root: bool) -> Iterator[os.DirEntry]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:  # deleted since it was listed itself
        if is_root:
            raise
        return
    with entries:
        yield from entries


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it as a file will say so
        return False


def _entry(folder: Path, name: str) -> Path | None:
    return min((path for path in folder.iterdir() if path.name.casefold() == name), default=None)


def _example(path: str, file: str | os.PathLike, **known) -> Example:
    try:
        status = os.stat(file)
    except OSError:  # reading it will say what is wrong
        return Example(path, **known)
    if not stat.S_ISREG(status.st_mode):
        return Example(path, **known)
    return Example(path, bytes=status.st_size, modified=status.st_mtime_ns, **known)


# --- folders ---------------------------------------------------------------------------------------------------


def _read_folders(root: Path, examples: Examples, split_by: str) -> list[str]:
    if split_by not in ("", "source"):
        raise DataError(f"{root} has no metadata.csv with a column {split_by}; without one, --split-by takes source")
    split_folders = {name: _SPLITS[name.casefold()] for name in _subfolders(root) if name.casefold() in _SPLITS}
    # Where there are no split folders, the root itself is as one.
    labelled = {
        name: not _LABEL_FOLDERS.keys().isdisjoint(map(str.casefold, _subfolders(root / name)))
        for name in split_folders or [""]
    }
    left_out = _LeftOut("files outside the layout or not images")

    def claimed() -> Iterator[Example]:
        for path, entry in _files(root):
            known = _read_path(root, path, split_folders, labelled) if _is_image(path) else None
            if known is None:
                left_out.add(path)
                continue
            yield _example(path, entry, group=known.get("source", "") if split_by else "", **known)

    examples.add(claimed())
    return left_out.notes


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry)]


def _read_path(root: Path, path: str, split_folders: dict[str, str], labelled: dict[str, bool]) -> dict | None:
    """Split, label, category and source of an image by the folders it lies in; None when they say nothing."""
    *levels, _ = path.split("/")
    split_folder = ""
    if split_folders:
        if not levels or levels[0] not in split_folders:
            return None
        split_folder, *levels = levels
    split = split_folders.get(split_folder, "")
    if not labelled[split_folder]:
        if split != "test":
            raise DataError(f"{root / split_folder} has no real/ and fake/ folders; expected {_LAYOUT_HELP}")
        return {"split": split}
    if not levels or levels[0].casefold() not in _LABEL_FOLDERS:
        return None
    category, source = (*map(_text, levels[1:]), "", "")[:2]
    label = _LABEL_FOLDERS[levels[0].casefold()]
    return {"split": split, "label": label, "category": category.casefold(), "source": source}


def _text(name: str) -> str:
    """A file system's name as proper text: what is no UTF-8 becomes a question mark."""
    return os.fsencode(name).decode(errors="replace")


class _LeftOut:
    """Counts what was passed over, and keeps the first of it in alphabetical order as an instance."""

    def __init__(self, what: str):
        self._what, self._number, self._first = what, 0, ""

    def add(self, path: str) -> None:
        self._first = min(path, self._first or path)
        self._number += 1

    @property
    def notes(self) -> list[str]:
        return [f"left out {self._number} {self._what}, such as {self._first}"] if self._number else []


# --- metadata.csv ----------------------------------------------------------------------------------------------


def _read_metadata(root: Path, table: Path, examples: Examples, split_by: str) -> list[str]:
    missing, own_name = [], root.resolve().name + "/"

    def listed() -> Iterator[Example]:
        for number, (path, label, category, source, group) in enumerate(_metadata_rows(table, split_by), start=2):
            if label.casefold() not in _LABEL_WORDS:
                raise DataError(f"{table} line {number} has the label {label!r}; use 0 or real, 1 or fake")
            found = _metadata_path(root, own_name, path)
            example = _example(
                found,
                os.path.join(root, found),
                label=_LABEL_WORDS[label.casefold()],
                category=category.casefold(),
                source=source,
                split=_SPLITS.get(found.partition("/")[0].casefold(), ""),
                group=group,
            )
            if not example.modified:
                missing.append(found)
            yield example

    try:
        examples.add(listed())
    except KeyError as error:
        raise DataError(f"{table} lists {error.args[0]} more than once; keep one row for each image") from error
    if missing:
        raise DataError(
            f"{table} names {len(missing)} of {len(examples)} files that do not exist, the first {missing[0]}; "
            f"correct image_path, which is relative to {root}"
        )
    return _add_unlisted(root, table, examples)


def _metadata_rows(table: Path, split_by: str) -> Iterator[list[str]]:
    """Path, label, class, source and group of each row, as text; empty where there is none."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [column.strip().casefold() for column in next(reader, [])]
            missing = [column for column in ("image_path", "label", "class") if column not in columns]
            if missing:
                raise DataError(
                    f"{table} has no column {' or '.join(missing)}; it needs image_path, label and class "
                    "(empty where there is none), and may have source"
                )
            if split_by and split_by.casefold() not in columns:
                raise DataError(f"{table} has no column {split_by} to split by; it has {', '.join(columns)}")
            wanted = ("image_path", "label", "class", "source", split_by.casefold())
            places = [columns.index(name) if name in columns else -1 for name in wanted]
            for row in filter(None, reader):
                yield [row[place].strip() if 0 <= place < len(row) else "" for place in places]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV file in UTF-8 ({error}); save it as one") from error


def _metadata_path(root: Path, own_name: str, path: str) -> str:
    path = path.removeprefix("./")
    # ArtiFact_240K writes some paths with the data set's own folder name in front.
    if path.startswith(own_name) and not os.path.exists(os.path.join(root, path)):
        return path.removeprefix(own_name)
    return path


def _add_unlisted(root: Path, table: Path, examples: Examples) -> list[str]:
    """Add a flat test folder, which metadata.csv need not list; say how many other images it does not list."""
    left_out = _LeftOut(f"images that {table.name} does not list")

    unlisted = examples.missing(path for path, _ in _files(root) if _is_image(path))

    def flat() -> Iterator[Example]:
        for path in unlisted:
            if path.casefold().startswith("test/") and path.count("/") == 1:
                yield _example(path, os.path.join(root, path), split="test")
            else:
                left_out.add(path)

    examples.add(flat())
    return left_out.notes


# --- splits ----------------------------------------------------------------------------------------------------


def _assign_splits(examples: Examples, val_fraction: float, notes: list[str]) -> None:
    """Fill in what the folder does not say: a hash of the path decides, so adding an image moves no other."""
    splits = set(examples.sizes())
    to_divide = {""}
    if "validation" not in splits:
        to_divide.add("train")
        if "train" in splits:
            notes.append(f"there is no validation folder: {val_fraction:.0%} of train is held out as validation")
    # Both at once: what one step calls train the next must not divide again.
    examples.hold_out(val_fraction, to_divide)


def _check_splits(examples: Examples) -> None:
    """Every label and class is learnt in train and measured elsewhere, or its numbers mean nothing."""
    found: dict[tuple[str, str], set[str]] = {("label", label): set() for label in LABELS}
    for split, label, category, _ in examples.counts():
        if label != UNLABELLED:
            found["label", LABELS[label]].add(split)
            if category:
                found.setdefault(("class", category), set()).add(split)
    for (kind, name), splits in sorted(found.items()):
        if not splits:
            raise DataError(f"there are no {name} images; a detector is trained on both real and fake ones")
        if "train" not in splits or len(splits) == 1:
            raise DataError(
                f"the {kind} {name} occurs in {' and '.join(sorted(splits))} only; it must occur in train and in "
                "validation or test: move or add images, or change --val-fraction or --seed"
            )
