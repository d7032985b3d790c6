"""A data folder, or its metadata.csv, as Examples with their splits.

Supported layouts, folder and column names in any case:

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
from typing import NamedTuple

from pipelines.datasets.examples import LABELS, UNLABELLED, Example, Examples
from pipelines.datasets.split_checks import check_splits
from pipelines.exceptions import DataError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_LABEL_FOLDERS = {name: label for label, name in enumerate(LABELS)} | {"deepfake": LABELS.index("fake")}
_LABEL_VALUES = _LABEL_FOLDERS | {str(label): label for label in range(len(LABELS))}  # in metadata.csv
_LAYOUT_HELP = "{train,validation,test}/{real,fake}/{class}/, the same without split or class, or a metadata.csv"


@dataclass(frozen=True)
class Layout:
    """The contents of a data folder: its examples in a fixed order, and sentences on what was left out."""

    root: Path
    examples: Examples
    notes: list[str] = field(default_factory=list)
    names: list[str] | None = None  # of the classes, if they are to differ from those that occur

    @property
    def categories(self) -> list[str]:
        """The class names, sorted; empty if the data has none."""
        return self.examples.categories() if self.names is None else self.names


def read_layout(folder: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0, split_by: str = "") -> Layout:
    """Find every image under `folder` and assign it a label, category, source and split.

    Args:
        folder: a data folder in one of the layouts above.
        val_fraction: share of the images, in (0, 1), that goes to validation where the folder names no splits.
        seed: determines which images these are, and the order of the examples.
        split_by: a column of metadata.csv, or `source`; images with the same value in it go to the same split.

    Raises:
        DataError: the folder is missing, empty or in no known layout, or a folder in it cannot be read; metadata.csv
            lacks a column or names missing files; a label or class occurs in one split only; there is no column
            `split_by`, or the folder's own splits divide its groups.
    """
    layout = _read(Path(folder), seed, split_by)
    _assign_splits(layout.examples, val_fraction, layout.notes)
    check_splits(layout.examples.counts())
    if divided := layout.examples.divided_group():
        group, splits = divided
        raise DataError(
            f"the {split_by} {group} occurs in {' and '.join(splits)}, as the folders determine the splits; move its "
            "images into one split, or leave out --split-by"
        )
    return layout


def read_labelled(folder: str | os.PathLike) -> Layout:
    """Find every image under `folder` as `read_layout` does, with any labels and classes, in any splits.

    Raises:
        DataError: the folder is in no known layout, or an image in it has no label.
    """
    layout = _read(Path(folder), seed=0, split_by="")
    if unlabelled := next((example.path for example in layout.examples if example.label == UNLABELLED), None):
        raise DataError(f"{layout.root / unlabelled} has no label; move it into real/ or fake/")
    return layout


def image_files(folder: Path) -> Iterator[Path]:
    """Yield every file with an image suffix under `folder`, sorted. Linked folders are followed, but no cycles."""
    return (folder / path for path in sorted(path for path, _ in _files(folder)) if _is_image(path))


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List the given files, and the images under the given folders.

    Raises:
        DataError: a path does not exist, or a folder holds no images.
    """
    return [Path(path) for path in find_image_names(paths)]


def find_image_names(paths: Iterable[Path]) -> list[str]:
    """As `find_images`, but strings: a million of them take a tenth of a gigabyte, and a third of the time."""
    names: list[str] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; give image files or folders of images")
        before = len(names)
        names += _image_names(path) if path.is_dir() else [str(path)]
        if len(names) == before:
            raise DataError(f"{path} holds no images")
    return names


def _read(root: Path, seed: int, split_by: str) -> Layout:
    """Read what the folder states, which may leave the split of an example empty."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the images")
    examples, table = Examples(seed), _entry(root, "metadata.csv")
    notes = _read_metadata(root, table, examples, split_by) if table else _read_folders(root, examples, split_by)
    if not examples:
        raise DataError(f"{root} holds no images; expected {_LAYOUT_HELP}")
    return Layout(root, examples, notes)


# --- files -----------------------------------------------------------------------------------------------------


def _image_names(folder: Path) -> Iterator[str]:
    prefix = "" if folder == Path() else os.path.join(folder, "")  # as Path joins them
    return (prefix + path for path in sorted(path for path, _ in _files(folder) if _is_image(path)))


def _is_image(path: str) -> bool:
    return "." + path.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _files(folder: Path, prefix: str = "", seen: set[str] | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file under `folder`, as its path in it and its entry, unsorted; hidden files are skipped."""
    if seen is None:
        start = Path(os.path.realpath(folder))
        seen = {str(start), *map(str, start.parents)}
    subfolders = []
    for entry in _entries(folder / prefix, is_root=not prefix):
        if entry.name[0] == ".":
            continue
        if _is_folder(entry):
            subfolders.append(entry.name)
        else:
            yield prefix + entry.name, entry
    for name in sorted(subfolders):  # sorted because of several links to one folder, only the first is followed
        target = os.path.realpath(folder / prefix / name)
        if target not in seen:
            seen.add(target)
            yield from _files(folder, f"{prefix}{name}/", seen)


def _entries(folder: Path, *, is_root: bool) -> Iterator[os.DirEntry[str]]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:  # deleted since its parent was listed
        if is_root:
            raise
        return
    with entries:
        yield from entries


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it as a file will report that
        return False


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry)]


def _entry(folder: Path, name: str) -> Path | None:
    return min((path for path in folder.iterdir() if path.name.casefold() == name), default=None)


def _with_file_status(example: Example, file: str | os.PathLike) -> Example:
    """Add size and modification time, if the file is a regular one; otherwise reading it will report the problem."""
    try:
        status = os.stat(file)
    except OSError:
        return example
    if not stat.S_ISREG(status.st_mode):
        return example
    return example._replace(bytes=status.st_size, modified=status.st_mtime_ns)


# --- folders ---------------------------------------------------------------------------------------------------


def _read_folders(root: Path, examples: Examples, split_by: str) -> list[str]:
    if split_by not in ("", "source"):
        raise DataError(f"{root} has no metadata.csv with a column {split_by}; without one, --split-by takes source")
    split_folders = {name: _SPLITS[name.casefold()] for name in _subfolders(root) if name.casefold() in _SPLITS}
    has_labels = {
        name: not _LABEL_FOLDERS.keys().isdisjoint(map(str.casefold, _subfolders(root / name)))
        for name in split_folders or [""]  # without split folders, the root plays the part of one
    }
    left_out = _LeftOut("files outside the layout or not images")

    def find() -> Iterator[Example]:
        for path, entry in _files(root):
            example = _parse_path(root, path, split_folders, has_labels) if _is_image(path) else None
            if example is None:
                left_out.add(path)
                continue
            yield _with_file_status(example._replace(group=example.source if split_by else ""), entry)

    examples.add(find())
    return left_out.notes


def _parse_path(root: Path, path: str, split_folders: dict[str, str], has_labels: dict[str, bool]) -> Example | None:
    """The example that the folders of an image's path describe; None if it is outside the layout."""
    *levels, _ = path.split("/")
    split_folder = ""
    if split_folders:
        if not levels or levels[0] not in split_folders:
            return None
        split_folder, *levels = levels
    split = split_folders.get(split_folder, "")
    if not has_labels[split_folder]:
        if split != "test":
            raise DataError(f"{root / split_folder} has no real/ and fake/ folders; expected {_LAYOUT_HELP}")
        return Example(path, split=split)
    if not levels or levels[0].casefold() not in _LABEL_FOLDERS:
        return None
    category, source = (*map(_valid_text, levels[1:]), "", "")[:2]
    return Example(path, _LABEL_FOLDERS[levels[0].casefold()], category.casefold(), source, split)


def _valid_text(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become question marks."""
    return os.fsencode(name).decode(errors="replace")


class _LeftOut:
    """Counts the files that were left out, and keeps the first of them as an example."""

    def __init__(self, what: str) -> None:
        self._what, self._count, self._first = what, 0, ""

    def add(self, path: str) -> None:
        self._first = min(path, self._first or path)
        self._count += 1

    @property
    def notes(self) -> list[str]:
        return [f"left out {self._count} {self._what}, such as {self._first}"] if self._count else []


# --- metadata.csv ----------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """A row of metadata.csv, as text; empty where it has no value."""

    path: str
    label: str
    category: str
    source: str
    group: str


def _read_metadata(root: Path, table: Path, examples: Examples, split_by: str) -> list[str]:
    missing, own_name = [], root.resolve().name + "/"

    def parse() -> Iterator[Example]:
        for number, row in enumerate(_metadata_rows(table, split_by), start=2):
            if row.label.casefold() not in _LABEL_VALUES:
                raise DataError(f"{table} line {number} has the label {row.label!r}; use 0 or real, 1 or fake")
            path = _metadata_path(root, own_name, row.path)
            example = Example(
                path,
                label=_LABEL_VALUES[row.label.casefold()],
                category=row.category.casefold(),
                source=row.source,
                split=_SPLITS.get(path.partition("/")[0].casefold(), ""),
                group=row.group,
            )
            example = _with_file_status(example, os.path.join(root, path))
            if not example.modified:
                missing.append(path)
            yield example

    try:
        examples.add(parse())
    except KeyError as error:
        raise DataError(f"{table} lists {error.args[0]} more than once; keep one row for each image") from error
    if missing:
        raise DataError(
            f"{table} names {len(missing)} of {len(examples)} files that do not exist, the first {missing[0]}; "
            f"correct image_path, which is relative to {root}"
        )
    return _add_unlisted(root, table, examples)


def _metadata_rows(table: Path, split_by: str) -> Iterator[_Row]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [column.strip().casefold() for column in next(reader, [])]
            missing = [column for column in ("image_path", "label", "class") if column not in columns]
            if missing:
                raise DataError(
                    f"{table} has no column {' or '.join(missing)}; it needs image_path, label and class "
                    "(may be empty), and may have source"
                )
            if split_by and split_by.casefold() not in columns:
                raise DataError(f"{table} has no column {split_by} to split by; it has {', '.join(columns)}")
            names = ("image_path", "label", "class", "source", split_by.casefold())
            indices = [columns.index(name) if name in columns else -1 for name in names]
            for cells in filter(None, reader):
                yield _Row(*(cells[index].strip() if 0 <= index < len(cells) else "" for index in indices))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV file in UTF-8 ({error}); save it as one") from error


def _metadata_path(root: Path, own_name: str, path: str) -> str:
    path = path.removeprefix("./")
    # ArtiFact_240K prefixes some paths with the name of its own folder.
    if path.startswith(own_name) and not os.path.exists(os.path.join(root, path)):
        return path.removeprefix(own_name)
    return path


def _add_unlisted(root: Path, table: Path, examples: Examples) -> list[str]:
    """Add a flat test folder, which metadata.csv need not list, and count the other images that it does not list."""
    left_out = _LeftOut(f"images that {table.name} does not list")
    unlisted = examples.missing(path for path, _ in _files(root) if _is_image(path))

    def find() -> Iterator[Example]:
        for path in unlisted:
            if path.casefold().startswith("test/") and path.count("/") == 1:
                yield _with_file_status(Example(path, split="test"), os.path.join(root, path))
            else:
                left_out.add(path)

    examples.add(find())
    return left_out.notes


# --- splits ----------------------------------------------------------------------------------------------------


def _assign_splits(examples: Examples, val_fraction: float, notes: list[str]) -> None:
    """Assign missing splits by a hash of the path, so that adding an image moves no other."""
    splits = set(examples.sizes())
    divided = {""}
    if "validation" not in splits:
        divided.add("train")
        if "train" in splits:
            notes.append(f"there is no validation folder: {val_fraction:.0%} of train is held out as validation")
    # In one step, or what was just assigned to train would be divided again.
    examples.hold_out(val_fraction, divided)
