"""A data folder, or its metadata.csv, as Examples with their splits.

Supported layouts, folder and column names in any case:

    {train,val|valid|validation,test}/{real,fake|deepfake}/[{class}/[{source}/]]NAME
    {real,fake|deepfake}/[{class}/[{source}/]]NAME           split by a stable hash
    metadata.csv with image_path, label[, class, source, split]
                                                             without split, it is that of the path, else by hash
    test/NAME                                                a flat test folder is an unlabelled split
"""

import logging
import os
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.datasets.examples import UNLABELLED, Example, Examples
from pipelines.datasets.folders import FolderKind, read_folders
from pipelines.datasets.image_files import LeftOut, is_image
from pipelines.datasets.metadata_table import MetadataTable, Row
from pipelines.datasets.names import LabelNames, split_of, valid_name
from pipelines.datasets.split_checks import check_splits
from pipelines.exceptions import DataError
from pipelines.wording import count_of

_log = logging.getLogger(__name__)
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
    real: Collection[str] = (),
    fake: Collection[str] = (),
    folders: FolderKind | None = None,
) -> Layout:
    """Find every image under `folder` and assign it a label, category, source and split.

    Args:
        folder: a data folder in one of the layouts above.
        val_fraction: share of the images, in (0, 1), that goes to validation where the folder names no splits.
        seed: determines which images these are, and the order of the examples.
        split_by: a column of metadata.csv, or `source`; images with the same value in it go to the same split.
        columns: what metadata.csv calls the columns image_path, label, class, source and split, by these names.
        real, fake: names of the folders of a label, and values in metadata.csv, in place of the usual ones.
        folders: what the folders beside those of splits and labels are: `class`, `source` or `group`, which is kept
            in one split; by default as `folders` decides.

    Raises:
        DataError: the folder is missing, empty or in no known layout, or a folder in it cannot be read; metadata.csv
            lacks a column, lists a file twice or only missing ones; a label or class occurs in one split only; there
            is no column `split_by`, or the data's own splits divide its groups.
    """
    layout = _read(Path(folder), seed, split_by, columns, LabelNames(real, fake), folders)
    _assign_splits(layout.examples, val_fraction, layout.notes)
    _clear_untrained(layout.examples, layout.notes)
    check_splits(layout.examples.counts())
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
    root = Path(folder)
    has_table = root.is_dir() and _entry(root, "metadata.csv")
    layout = _read(root, kind=None if has_table else "class")  # corrections are too few to tell classes from sources
    if unlabelled := next((example.path for example in layout.examples if example.label == UNLABELLED), None):
        raise DataError(f"{layout.root / unlabelled} has no label; move it into real/ or fake/")
    return layout


def image_files(folder: Path) -> Iterator[Path]:
    """Yield every image under `folder`, sorted. Linked folders are followed, but no cycles."""
    return (folder / path for path in sorted(path for path, _ in _files(folder) if is_image(folder, path)))


def find_images(paths: Iterable[Path]) -> list[Path]:
    """List the given files, and the images under the given folders.

    What else is in a folder is counted in a warning, which names the first.

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
        names += _image_names(path) if path.is_dir() else [str(path)]
    return names


def _read(
    root: Path,
    seed: int = 0,
    split_by: str = "",
    columns: Mapping[str, str] | None = None,
    names: LabelNames | None = None,
    kind: FolderKind | None = None,
) -> Layout:
    """Read what the folder states, which may leave the split of an example empty."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the images")
    examples, file, names = Examples(seed), _entry(root, "metadata.csv"), names or LabelNames()
    table = MetadataTable(file, columns, split_by) if file else None
    if columns and not table:
        raise DataError(f"{root} has no metadata.csv whose columns could be mapped; leave out --columns")
    if table and table.problem and (columns or not _has_labels(root, names)):
        raise DataError(table.problem)
    if table and not table.problem:
        if kind:
            raise DataError(f"{table.path} decides, not the folders; leave out --folders")
        notes = _read_metadata(root, table, examples, names)
    else:
        notes = [f"the folders decide, for {table.problem}"] if table else []
        notes += _read_folders(root, examples, split_by, names, kind)
    if not examples:
        raise DataError(f"{root} holds no images; expected {_LAYOUT_HELP}")
    return Layout(root, examples, notes)


# --- files -----------------------------------------------------------------------------------------------------


def _image_names(folder: Path) -> list[str]:
    prefix = "" if folder == Path() else os.path.join(folder, "")  # as Path joins them
    names: list[str] = []
    left_out = LeftOut()
    for path, _ in _files(folder):
        if is_image(folder, path):
            names.append(prefix + path)
        else:
            left_out.add(path)
    if not names:
        others = left_out.describe("other files") if left_out else "no files at all"
        raise DataError(f"{folder} holds no images; it has {others}")
    if left_out:
        _log.warning("%s: left out %s", folder, left_out.describe("files that are not images"))
    return sorted(names)


def _files(
    folder: Path, seen: dict[str, str | None] | None = None, skipped: dict[str, str] | None = None
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield every file under `folder`, as its path in it and its entry, unsorted; hidden files are skipped.

    Linked folders come last, so that what lies in `folder` itself is listed under its own path. `seen` gets the
    prefix of the paths in each folder, by its real path, and None for the parents of `folder`; `skipped` the folder
    that is listed instead, by the path of each link that leads to one, except where it leads to a parent of its own.
    """
    seen = {} if seen is None else seen
    start = Path(os.path.realpath(folder))
    seen.update(dict.fromkeys(map(str, start.parents)))
    folders: list[str] = [""]
    links: list[str] = []
    while folders or links:
        if not folders:  # sorted, because of several links to one folder only the first is followed
            folders, links = sorted(links, reverse=True), []
        prefix = folders.pop()
        target = os.path.realpath(folder / prefix)
        if target in seen:
            listed = seen[target]
            if skipped is not None and listed and not prefix.startswith(listed):
                skipped[prefix] = listed
            continue
        seen[target] = prefix
        subfolders: list[str] = []
        for entry in _entries(folder / prefix, is_root=not prefix):
            if entry.name[0] == ".":
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else subfolders).append(f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry
        folders += sorted(subfolders, reverse=True)


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


def _read_folders(
    root: Path, examples: Examples, split_by: str, names: LabelNames, kind: FolderKind | None
) -> list[str]:
    if split_by not in ("", "source"):
        raise DataError(f"{root} has no metadata.csv with a column {split_by}; without one, --split-by takes source")
    layout = read_folders(root, (path for path, _ in _files(root) if is_image(root, path)), names, kind)
    left_out, skipped = LeftOut(), dict[str, str]()

    def find() -> Iterator[Example]:
        for path, entry in _files(root, skipped=skipped):
            folder = path[: path.rfind("/") + 1]
            meaning = layout.meanings.get(folder)
            if meaning is None or not is_image(root, path):
                left_out.add(path)
                continue
            example = Example(path, **meaning._asdict())
            yield _with_file_status(example._replace(group=example.source) if split_by else example, entry)

    examples.add(find())
    links = LeftOut()
    for link, listed in skipped.items():
        links.add(f"{link[:-1]} to {listed[:-1]}")
    if links:  # at once, as they may be why a label or a split is missing
        _log.warning("%s: left out %s", root, links.describe("links to folders that are read themselves"))
    if not left_out:
        return layout.notes
    if not examples:
        raise DataError(f"{root} holds no images; it has {left_out.describe('other files')}")
    return [*layout.notes, f"left out {left_out.describe('files outside the layout or not images')}"]


def _has_labels(root: Path, names: LabelNames) -> bool:
    """Whether folders in `root`, or in its subfolders, name labels."""
    subfolders = _subfolders(root)
    parts = [subfolders, *(_subfolders(root / name) for name in subfolders)]
    return any(names.of_folders(part) for part in parts)


# --- metadata.csv ----------------------------------------------------------------------------------------------


def _read_metadata(root: Path, table: MetadataTable, examples: Examples, names: LabelNames) -> list[str]:
    places = _Places(root)
    missing: list[str] = []

    def parse() -> Iterator[Example]:
        for row in table.rows():
            path = places.resolve(row.path)
            example = _with_file_status(_parse_row(table.path, row, path, names), os.path.join(root, path))
            if not example.modified:
                missing.append(path)
            yield example

    try:
        examples.add(parse())
    except KeyError as error:
        raise DataError(f"{table.path} lists {error.args[0]} more than once; keep one row for each image") from error
    if missing and len(missing) == len(examples):
        raise DataError(
            f"{table.path} names {count_of(len(missing), 'file')}, of which none exists, the first {missing[0]}; "
            f"correct image_path, which is relative to {root}"
        )
    notes = []
    if table.unread:
        notes.append(f"columns of {table.path.name} that are not read: {', '.join(table.unread)}")
    if missing:
        notes.append(f"{table.path.name} names {count_of(len(missing), 'file')} not found, the first {missing[0]}")
    return notes + _add_unlisted(root, table, examples, places)


def _parse_row(table: Path, row: Row, path: str, names: LabelNames) -> Example:
    """The example that a row describes, of the image at `path`."""
    where = f"{table} line {row.line}"
    if not row.path:
        raise DataError(f"{where} names no image; give its path, or remove the line")
    label = names.of_value(row.label)
    if label is None:
        raise DataError(
            f"{where} has the label {row.label!r}; use 0 or real, 1 or fake, or name "
            "yours with --real NAME --fake NAME"
        )
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
        """The path as written, or else as it is meant.

        Meant are backslashes as slashes, a beginning with the folder's own name as relative to the folder, and either
        form of Unicode, as names from a Mac are decomposed.
        """
        path = written.replace("\\", "/").removeprefix("./")
        # ArtiFact_240K prefixes some paths with the name of its own folder.
        meant = [written, path, path.removeprefix(self._own_name)]
        forms = (form for path in meant for form in _unicode_forms(path))
        return next((form for form in forms if os.path.lexists(os.path.join(self._root, form))), meant[-1])


def _unicode_forms(path: str) -> Iterator[str]:
    yield path
    if not path.isascii():
        yield unicodedata.normalize("NFC", path)
        yield unicodedata.normalize("NFD", path)


def _add_unlisted(root: Path, table: MetadataTable, examples: Examples, places: _Places) -> list[str]:
    """Add a flat test folder, which metadata.csv need not list, and count the other files that it does not list."""
    images, others = LeftOut(), LeftOut()
    unlisted = examples.missing(
        path
        for path, entry in _files(root)
        if path != table.path.name and not (entry.is_symlink() and places.resolve(path) in examples)
    )

    def find() -> Iterator[Example]:
        for path in unlisted:
            if not is_image(root, path):
                others.add(path)
            elif split_of(path.partition("/")[0]) == "test" and path.count("/") == 1:
                yield _with_file_status(Example(path, split="test"), os.path.join(root, path))
            else:
                images.add(path)

    examples.add(find())
    kinds = (images, f"images that {table.path.name} does not list"), (others, "files that are not images")
    return [f"left out {left_out.describe(what)}" for left_out, what in kinds if left_out]


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


def _clear_untrained(examples: Examples, notes: list[str]) -> None:
    """Take the class from examples of classes that do not occur in train: they still tell real from fake."""
    trained = {category for split, _, category, _ in examples.counts() if split == "train"}
    if trained and (untrained := [name for name in examples.categories() if name not in trained]):
        examples.clear_categories(untrained)
        notes.append(
            f"classes that do not occur in train: {', '.join(untrained)}; their images are kept, without a class, to "
            "measure authenticity"
        )
