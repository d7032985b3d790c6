"""A data folder, or its metadata.csv, as Examples with their splits.

Supported layouts, folder and column names in any case:

    {train,val|valid|validation,test}/{real,fake|deepfake}/[{class}/[{source}/]]NAME
    {real,fake|deepfake}/[{class}/[{source}/]]NAME           split by a stable hash
    metadata.csv with image_path, label[, class, source, split]
                                                             without split, it is that of the path, else by hash
    test/NAME                                                a flat test folder is an unlabelled split
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.datasets.examples import LABELS, UNLABELLED, Example, Examples
from pipelines.datasets.metadata_table import MetadataTable, Row
from pipelines.datasets.names import label_of_folder, label_of_value, split_of, valid_name
from pipelines.exceptions import DataError

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
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


def read_layout(
    folder: str | os.PathLike,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    split_by: str = "",
    columns: Mapping[str, str] | None = None,
) -> Layout:
    """Find every image under `folder` and assign it a label, category, source and split.

    Args:
        folder: a data folder in one of the layouts above.
        val_fraction: share of the images, in (0, 1), that goes to validation where the folder names no splits.
        seed: determines which images these are, and the order of the examples.
        split_by: a column of metadata.csv, or `source`; images with the same value in it go to the same split.
        columns: what metadata.csv calls the columns image_path, label, class, source and split, by these names.

    Raises:
        DataError: the folder is missing, empty or in no known layout, or a folder in it cannot be read; metadata.csv
            lacks a column, lists a file twice or only missing ones; a label or class occurs in one split only; there
            is no column `split_by`, or the data's own splits divide its groups.
    """
    layout = _read(Path(folder), seed, split_by, columns)
    _assign_splits(layout.examples, val_fraction, layout.notes)
    _check_splits(layout.examples)
    if divided := layout.examples.divided_group():
        group, splits = divided
        raise DataError(
            f"the {split_by} {group} occurs in {' and '.join(splits)}, as the data determine the splits; move its "
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


def _read(root: Path, seed: int, split_by: str, columns: Mapping[str, str] | None = None) -> Layout:
    """Read what the folder states, which may leave the split of an example empty."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the images")
    examples, file = Examples(seed), _entry(root, "metadata.csv")
    table = MetadataTable(file, columns, split_by) if file else None
    if columns and not table:
        raise DataError(f"{root} has no metadata.csv whose columns could be mapped; leave out --columns")
    if table and table.problem and (columns or not any(_split_folders(root).values())):
        raise DataError(table.problem)
    if table and not table.problem:
        notes = _read_metadata(root, table, examples)
    else:
        notes = [f"the folders decide, for {table.problem}"] if table else []
        notes += _read_folders(root, examples, split_by)
    if not examples:
        raise DataError(f"{root} holds no images; expected {_LAYOUT_HELP}")
    return Layout(root, examples, notes)


# --- files -----------------------------------------------------------------------------------------------------


def _image_names(folder: Path) -> Iterator[str]:
    prefix = "" if folder == Path() else os.path.join(folder, "")  # as Path joins them
    return (prefix + path for path in sorted(path for path, _ in _files(folder) if _is_image(path)))


def _is_image(path: str) -> bool:
    return "." + path.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _files(folder: Path, seen: dict[str, str | None] | None = None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file under `folder`, as its path in it and its entry, unsorted; hidden files are skipped.

    Linked folders come last, so that what lies in `folder` itself is listed under its own path. `seen` gets the
    prefix of the paths in each folder, by its real path, and None for the parents of `folder`.
    """
    seen = {} if seen is None else seen
    start = Path(os.path.realpath(folder))
    seen.update(dict.fromkeys(map(str, start.parents)))
    folders: list[str] = [""]
    links: list[str] = []
    while folders or links:
        prefix = folders.pop() if folders else links.pop(0)
        target = os.path.realpath(folder / prefix)
        if target in seen:
            continue
        seen[target] = prefix
        for entry in _entries(folder / prefix, is_root=not prefix):
            if entry.name[0] == ".":
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry
        folders.sort(reverse=True)
        links.sort()  # because of several links to one folder, only the first is followed


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
    has_labels = _split_folders(root)
    left_out = _LeftOut("files outside the layout or not images")

    def find() -> Iterator[Example]:
        for path, entry in _files(root):
            example = _parse_path(root, path, has_labels) if _is_image(path) else None
            if example is None:
                left_out.add(path)
                continue
            yield _with_file_status(example._replace(group=example.source if split_by else ""), entry)

    examples.add(find())
    return left_out.notes


def _split_folders(root: Path) -> dict[str, bool]:
    """The folders in `root` that are named as splits, or "" without any; and whether each has a folder of a label."""
    names = [name for name in _subfolders(root) if split_of(name)] or [""]
    return {name: any(label_of_folder(part) is not None for part in _subfolders(root / name)) for name in names}


def _parse_path(root: Path, path: str, has_labels: dict[str, bool]) -> Example | None:
    """The example that the folders of an image's path describe; None if it is outside the layout."""
    *levels, _ = path.split("/")
    split_folder = ""
    if "" not in has_labels:
        if not levels or levels[0] not in has_labels:
            return None
        split_folder, *levels = levels
    split = split_of(split_folder)
    if not has_labels[split_folder]:
        if split != "test":
            raise DataError(f"{root / split_folder} has no real/ and fake/ folders; expected {_LAYOUT_HELP}")
        return Example(path, split=split)
    label = label_of_folder(levels[0]) if levels else None
    if label is None:
        return None
    category, source = (*(valid_name(name, f"the folder of {path}") for name in levels[1:]), "", "")[:2]
    return Example(path, label, category.casefold(), source, split)


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


def _read_metadata(root: Path, table: MetadataTable, examples: Examples) -> list[str]:
    places = _Places(root)
    missing: list[str] = []

    def parse() -> Iterator[Example]:
        for row in table.rows():
            path = places.resolve(row.path)
            example = _with_file_status(_parse_row(table.path, row, path), os.path.join(root, path))
            if not example.modified:
                missing.append(path)
            yield example

    try:
        examples.add(parse())
    except KeyError as error:
        raise DataError(f"{table.path} lists {error.args[0]} more than once; keep one row for each image") from error
    if missing and len(missing) == len(examples):
        raise DataError(
            f"{table.path} names {len(missing)} files and none of them exists, the first {missing[0]}; correct "
            f"image_path, which is relative to {root}"
        )
    notes = []
    if table.unread:
        notes.append(f"columns of {table.path.name} that are not read: {', '.join(table.unread)}")
    if missing:
        notes.append(f"{table.path.name} names {len(missing)} files that do not exist, the first {missing[0]}")
    return notes + _add_unlisted(root, table, examples, places)


def _parse_row(table: Path, row: Row, path: str) -> Example:
    """The example that a row describes, of the image at `path`."""
    where = f"{table} line {row.line}"
    if not row.path:
        raise DataError(f"{where} names no image; give its path, or remove the line")
    label = label_of_value(row.label)
    if label is None:
        raise DataError(f"{where} has the label {row.label!r}; use 0 or real, 1 or fake")
    if row.split and not split_of(row.split):
        raise DataError(f"{where} has the split {row.split!r}; use train, validation or test")
    return Example(
        path,
        label=label,
        category=valid_name(row.category, f"{where}: the class").casefold(),
        source=valid_name(row.source, f"{where}: the source"),
        split=split_of(row.split or path.partition("/")[0]),
        group=valid_name(row.group, f"{where}: the group"),
    )


class _Places:
    """Finds what a table names: a path is the file that it leads to, however it is written."""

    def __init__(self, root: Path) -> None:
        self._root, self._real_root = root, os.path.realpath(root)
        self._own_name = os.path.basename(self._real_root) + "/"
        self._folders: dict[str, str | None] = {}  # prefixes of the listed paths, by the real path of their folder
        for _ in _files(root, self._folders):
            pass
        self._real_folders: dict[str, str] = {}  # by the folder as written

    def resolve(self, written: str) -> str:
        """The path under the root that the listing of the folder has for a file, else one relative to the root."""
        folder, name = os.path.split(os.path.join(self._root, self._existing(written)))
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        file = os.path.join(self._real_folders[folder], name)
        if os.path.islink(file) or name in ("", ".", ".."):
            target = os.path.realpath(file)
            if self._folders.get(os.path.dirname(target)) is not None:
                file = target
        prefix = self._folders.get(os.path.dirname(file))
        return os.path.relpath(file, self._real_root) if prefix is None else prefix + os.path.basename(file)

    def _existing(self, written: str) -> str:
        """The path as written, or else as it is meant: with backslashes, or beginning with the folder's own name."""
        if os.path.lexists(os.path.join(self._root, written)):
            return written
        path = written.replace("\\", "/").removeprefix("./")
        # ArtiFact_240K prefixes some paths with the name of its own folder.
        if path.startswith(self._own_name) and not os.path.lexists(os.path.join(self._root, path)):
            return path.removeprefix(self._own_name)
        return path


def _add_unlisted(root: Path, table: MetadataTable, examples: Examples, places: _Places) -> list[str]:
    """Add a flat test folder, which metadata.csv need not list, and count the other images that it does not list."""
    left_out = _LeftOut(f"images that {table.path.name} does not list")
    unlisted = examples.missing(
        path
        for path, entry in _files(root)
        if _is_image(path) and not (entry.is_symlink() and places.resolve(path) in examples)
    )

    def find() -> Iterator[Example]:
        for path in unlisted:
            if split_of(path.partition("/")[0]) == "test" and path.count("/") == 1:
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
            notes.append(f"there is no validation split: {val_fraction:.0%} of train is held out as validation")
    # In one step, or what was just assigned to train would be divided again.
    examples.hold_out(val_fraction, divided)


def _check_splits(examples: Examples) -> None:
    """Check that every label and class occurs in train and in a split to measure it on."""
    splits_by_name: dict[tuple[str, str], set[str]] = {("label", label): set() for label in LABELS}
    for split, label, category, _ in examples.counts():
        if label != UNLABELLED:
            splits_by_name["label", LABELS[label]].add(split)
            if category:
                splits_by_name.setdefault(("class", category), set()).add(split)
    for (kind, name), splits in sorted(splits_by_name.items()):
        if not splits:
            raise DataError(f"there are no {name} images; a detector is trained on both real and fake ones")
        if "train" not in splits or len(splits) == 1:
            raise DataError(
                f"the {kind} {name} occurs in {' and '.join(sorted(splits))} only; it must occur in train and in "
                "validation or test: move or add images, or change --val-fraction or --seed"
            )
