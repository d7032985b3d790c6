"""What the folders of a data folder say about the images in them: label, class, source, split and group.

The folders of the labels may lie at any depth. Where the user names several for a label, as one for each generator,
each is a source. Folders above them are splits or classes, and sources where a split lies below them; folders below
them are classes where most of them occur under both labels, else sources, or videos where they hold frames.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.datasets.examples import LABELS
from pipelines.datasets.names import LabelNames, folded, split_of, valid_name
from pipelines.exceptions import DataError
from pipelines.wording import count_of

FolderKind = Literal["class", "source", "group"]  # of the folders beside those of splits and labels
_CONTAINERS = frozenset(["frames", "images", "imgs", "videos", "raw", "c0", "c23", "c40"])  # which say nothing
_NUMBERED = re.compile(r"(.*?)\d+$")
_VIDEO_NAME = re.compile(r"(id)?\d+([_-]+(id)?\d+)*$")  # 000_003, id0_id1_0000
_VIDEO_WORD = re.compile(r"(video|vid|clip|frame)s?([_-]|\d|$)")
_MANY = 20  # folders below a label; with more, folders that hold numbered files are videos, whatever their names


class Meaning(NamedTuple):
    """What a folder says about the images in it; the fields are those of `examples.Example`."""

    label: int = -1
    category: str = ""
    source: str = ""
    split: str = ""
    group: str = ""


@dataclass
class _Files:
    """The images directly in a folder: the first of their names, and what precedes the number in all, or None."""

    first: str
    prefix: str | None


class _LabelFolder(NamedTuple):
    """A folder of a label: its path, its label, the source if it names one, and what the folders above it say."""

    path: str
    label: int
    source: str
    split: str
    split_folder: str
    above: list[str]  # between the split, or the root, and the label
    outer: list[str]  # above the split


@dataclass
class _Leaf:
    """A folder that holds images of a label, and the names of the folders between the label and the images."""

    path: str
    of: _LabelFolder
    names: list[str]
    files: _Files
    group: str = ""

    def valid(self, names: Iterable[str]) -> list[str]:
        """Names of folders around its images in the form in which they are stored; see `names.valid_name`."""
        return [valid_name(name, f"the folder of {self.path}{self.files.first}:") for name in names]


@dataclass
class FolderLayout:
    """The meaning of each folder with images, by its path with a final slash, and sentences on what was decided."""

    meanings: dict[str, Meaning] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_folders(root: Path, paths: Iterable[str], names: LabelNames, kind: FolderKind | None = None) -> FolderLayout:
    """Decide what the folders say.

    Args:
        root: the data folder, for messages.
        paths: of all images, relative to it.
        names: of the labels.
        kind: of the folders beside those of splits and labels; by default as the module says.

    Raises:
        DataError: no folder names a label, or one names a label but no split, beside others that name splits.
    """
    tree = _Tree(root, paths, names)
    found = {of.path: of for of in _label_folders(tree, kind)}
    if not found and tree.files:
        raise DataError(tree.describe_missing(""))
    leaves = list(_leaves(tree, found))
    layout = FolderLayout({leaf.path: Meaning(split=leaf.of.split) for leaf in leaves if leaf.of.label < 0})
    leaves = [leaf for leaf in leaves if leaf.of.label >= 0]
    _find_splits(leaves)
    _find_groups(leaves, kind, layout.notes)
    is_class = _is_class(leaves, kind, layout.notes)
    inner_is_class = not is_class and _mostly_shared(leaves, 1) and not _are_numbers(leaves, 1)
    for leaf in leaves:
        layout.meanings[leaf.path] = _meaning(leaf, kind, is_class, inner_is_class)
    return layout


# --- the tree --------------------------------------------------------------------------------------------------


class _Tree:
    """The folders that hold images, directly or below; paths have a final slash, and the root is empty."""

    def __init__(self, root: Path, paths: Iterable[str], names: LabelNames) -> None:
        self.root, self.names = root, names
        self.files: dict[str, _Files] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            self._add(folder + "/" if folder else "", name)
        self._children: dict[str, set[str]] = {}
        for folder in self.files:
            for parent, name in zip(_prefixes(folder), folder.split("/")[:-1], strict=False):
                self._children.setdefault(parent, set()).add(name)

    def _add(self, folder: str, name: str) -> None:
        match = _NUMBERED.match(name.rpartition(".")[0])
        prefix = match[1] if match else None
        known = self.files.setdefault(folder, _Files(name, prefix))
        known.first = min(known.first, name)
        if prefix != known.prefix:
            known.prefix = None

    def children(self, path: str) -> list[str]:
        return sorted(self._children.get(path, ()))

    def labels(self, path: str) -> dict[str, int]:
        """The folders in `path` that name a label; not one in which real and fake lie side by side."""
        found = self.names.of_folders(self.children(path))
        return {
            name: label
            for name, label in found.items()
            if len(set(self.names.of_folders(self.children(f"{path}{name}/")).values())) < len(LABELS)
        }

    def has_labels(self, path: str) -> bool:
        return bool(self.labels(path)) or any(self.has_labels(f"{path}{name}/") for name in self.children(path))

    def describe_missing(self, path: str) -> str:
        listed = ", ".join(f"{name}/" for name in self.children(path)[:10]) or "no folders with images"
        more = " and more" if len(self.children(path)) > 10 else ""
        return (
            f"{self.root / path} has no real/ and fake/ folders; it has {listed}{more}: name those of real "
            "and fake images with --real NAME --fake NAME"
        )


def _label_folders(tree: _Tree, kind: FolderKind | None) -> Iterator[_LabelFolder]:
    """Find the folders of labels, from the root down; an unlabelled test folder has the label -1."""
    path, inner = "", tree.children("")
    while len(inner) == 1 and not tree.labels(path) and not split_of(inner[0]):  # a folder around everything
        path += f"{inner[0]}/"
        inner = tree.children(path)
    return _descend(tree, _LabelFolder(path, -1, "", "", "", [], []), kind)


def _descend(tree: _Tree, at: _LabelFolder, kind: FolderKind | None) -> Iterator[_LabelFolder]:
    labels = tree.labels(at.path)
    for name, label in labels.items():
        source = name if tree.names.is_source(name) else ""
        yield at._replace(path=f"{at.path}{name}/", label=label, source=source)
    others = [name for name in tree.children(at.path) if name not in labels]
    splits = [] if at.split else [name for name in others if split_of(name)]
    if splits and not labels and not _are_splits(tree, at.path, splits, others, kind):
        splits = []
    for name in splits:
        path = f"{at.path}{name}/"
        below = _LabelFolder(path, -1, "", split_of(name), path, [], at.above)
        if tree.has_labels(path):
            yield from _descend(tree, below, kind)
        elif below.split == "test":
            yield below
        else:
            raise DataError(tree.describe_missing(path))
    if not labels and not splits:
        for name in others:
            yield from _descend(tree, at._replace(path=f"{at.path}{name}/", above=[*at.above, name]), kind)


def _are_splits(tree: _Tree, path: str, splits: list[str], others: list[str], kind: FolderKind | None) -> bool:
    """Whether folders that have names of splits are splits: not if others beside them have real and fake images."""
    beside = [name for name in others if name not in splits and tree.has_labels(f"{path}{name}/")]
    if beside and not kind:
        raise DataError(
            f"{path}{beside[0]}/ has folders of real or fake images, but names no split, as {path}{splits[0]}/ "
            "beside it does; rename it to train, validation or test, move it away, or take these for classes with "
            "--folders class"
        )
    return not beside


def _leaves(tree: _Tree, found: dict[str, _LabelFolder]) -> Iterator[_Leaf]:
    """Every folder with images in or below one of `found`, by its path."""
    for path, files in tree.files.items():
        for of in filter(None, map(found.get, _prefixes(path))):
            leaf = _Leaf(path, of, [], files)
            names = leaf.valid(path.removeprefix(of.path).split("/")[:-1])
            leaf.names = [name for name in names if folded(name) not in _CONTAINERS]
            yield leaf


def _prefixes(path: str) -> list[str]:
    """The folders above and including one, from the root down: those of `a/b/` are ``, `a/` and `a/b/`."""
    return [path[:at] for at in range(len(path) + 1) if not at or path[at - 1] == "/"]


# --- decisions -------------------------------------------------------------------------------------------------


def _find_splits(leaves: list[_Leaf]) -> None:
    """Take the outermost folders out of the names of `leaves`, if they name splits: {real,fake}/{train,test}."""
    splits = {split_of(leaf.names[0]) if leaf.names and not leaf.of.split else "" for leaf in leaves}
    if len(splits) > 1 and "" not in splits:
        for leaf in leaves:
            name = leaf.names.pop(0)
            leaf.of = leaf.of._replace(split=split_of(name), split_folder=f"{name}/")


def _find_groups(leaves: list[_Leaf], kind: FolderKind | None, notes: list[str]) -> None:
    """Take the innermost folders out of the names of `leaves` and make them groups, if they are videos."""
    inner = [leaf for leaf in leaves if leaf.names]
    if kind not in (None, "group") or not inner or (not kind and not _are_videos(inner)):
        return
    for leaf in inner:
        leaf.group = leaf.of.split_folder + leaf.names.pop()
    if not kind:
        groups = sorted({leaf.group for leaf in inner})
        examples = " and ".join(sorted({groups[0], groups[-1]}))
        notes.append(
            f"{count_of(len(groups), 'folder')} such as {examples} "
            "taken for frames of a video, which stay in one split; --folders class or --folders source says otherwise"
        )


def _are_videos(leaves: list[_Leaf]) -> bool:
    """Whether all folders hold numbered files, and their names, or those of the files, are as of videos."""
    if any(leaf.files.prefix is None for leaf in leaves):
        return False
    if all(
        _VIDEO_WORD.match(folded(leaf.files.first)) or _VIDEO_WORD.match(folded(leaf.names[-1])) for leaf in leaves
    ):
        return True
    real, fake = ({leaf.names[-1] for leaf in leaves if leaf.of.label == label} for label in range(len(LABELS)))
    are_named_so = all(_VIDEO_NAME.match(name.casefold()) for name in real | fake)
    return not real & fake and (are_named_so or min(len(real), len(fake)) > _MANY)


def _is_class(leaves: list[_Leaf], kind: FolderKind | None, notes: list[str]) -> bool:
    """Whether the outermost folders below the labels are classes."""
    if kind:
        return kind != "source"
    if any(leaf.of.above for leaf in leaves):  # which are the classes
        return False
    real, fake = _names_by_label(leaves, 0)
    alone = sorted(real ^ fake)
    has_both_labels = len({leaf.of.label for leaf in leaves}) == len(LABELS)
    if not alone or not has_both_labels:
        return True
    is_class = _mostly_shared(leaves, 0)
    taken, other = ("classes", "source") if is_class else ("sources", "class")
    share = "most occur" if is_class else "few occur" if real & fake else "none occurs"
    notes.append(
        f"the folders below real and fake are taken for {taken}, as {share} under both: {', '.join(alone[:3])}"
        f"{' and others' if len(alone) > 3 else ''} under one alone; --folders {other} says otherwise"
    )
    return is_class


def _mostly_shared(leaves: list[_Leaf], depth: int) -> bool:
    """Whether at least half of the folders at a depth below the labels occur under both labels."""
    real, fake = _names_by_label(leaves, depth)
    return bool(real and fake) and 2 * len(real & fake) >= len(real | fake)


def _are_numbers(leaves: list[_Leaf], depth: int) -> bool:
    """Whether the folders at a depth below the labels are only numbered, as FFHQ's 00000, 01000, ..."""
    return all(name.isdigit() for names in _names_by_label(leaves, depth) for name in names)


def _names_by_label(leaves: list[_Leaf], depth: int) -> list[set[str]]:
    return [
        {folded(leaf.names[depth]) for leaf in leaves if leaf.of.label == label and len(leaf.names) > depth}
        for label in range(len(LABELS))
    ]


def _meaning(leaf: _Leaf, kind: FolderKind | None, is_class: bool, inner_is_class: bool) -> Meaning:
    of = leaf.of
    above, outer, of_label = leaf.valid(of.above), leaf.valid(of.outer), leaf.valid(filter(None, [of.source]))
    first, second = [*leaf.names, "", ""][:2]
    category, source = (first, second) if is_class else (second if inner_is_class else "", first)
    group = leaf.group
    if above and kind == "source":
        outer += above
    elif above and kind == "group":
        group = group or of.split_folder + above[-1]
    elif above:
        outer, category, source = outer + above[:-1], above[-1], first
    return Meaning(
        of.label, category.casefold(), "/".join(filter(None, [*outer, *of_label, source])), of.split, group
    )
