"""Checks that every label and class can be learned and measured, before and after images are left out."""

from collections import Counter
from collections.abc import Iterable

from pipelines.datasets.examples import LABELS, UNLABELLED
from pipelines.exceptions import DataError

Counts = Counter[tuple[str, int, str, str]]  # examples by split, label, category and source
_LISTED = 5  # names in a message
_PLURALS = {"label": "labels", "class": "classes"}


def check_splits(counts: Counts) -> None:
    """Check that every label and class occurs in train and in a split to measure it on.

    Images of a labelled test split alone are there to be measured, so any of them will do.

    Raises:
        DataError: naming all labels, or else all classes, that do not occur where they must.
    """
    if fault := _fault(counts):
        raise DataError(fault)


def _fault(counts: Counts) -> str:
    splits = _splits_by_name(counts)
    if set().union(*splits.values()) == {"test"}:
        return ""
    if absent := [label for label in LABELS if ("label", label) not in splits]:
        return (
            f"there are no {' and no '.join(absent)} images; a detector is trained on both real and fake ones; to "
            "measure one on these alone, put them into test/real or test/fake"
        )
    for kind, plural in _PLURALS.items():
        wrong = {
            name: sorted(of_name)
            for (each, name), of_name in sorted(splits.items())
            if each == kind and ("train" not in of_name or len(of_name) == 1)
        }
        if wrong:
            return _format_wrong(kind, plural, wrong)
    return ""


def _format_wrong(kind: str, plural: str, wrong: dict[str, list[str]]) -> str:
    by_splits: dict[str, list[str]] = {}
    for name, splits in wrong.items():
        by_splits.setdefault(" and ".join(splits), []).append(name)
    parts = [
        f"the {kind if len(names) == 1 else plural} {_enumerate(names)} "
        f"occur{'s' if len(names) == 1 else ''} in {splits} only"
        for splits, names in by_splits.items()
    ]
    remedy = "move or add images"
    if "test" in by_splits:
        remedy += ", or keep test in a folder of its own, as test/real and test/fake, and measure on it by itself"
    subject = "it" if len(wrong) == 1 else "each"
    return f"{'; '.join(parts)}; {subject} must occur in train and in validation or test: {remedy}"


def check_what_is_left(before: Counts, after: Counts, left_out: Iterable[tuple[str, str]]) -> list[str]:
    """Check that every split is left, and that `check_splits` holds, after examples were left out.

    Args:
        before, after: the examples.
        left_out: path and reason of each.

    Returns:
        A sentence for each label or class that no longer occurs in a split.

    Raises:
        DataError: a split is empty, or a label or class occurs where it must no more.
    """
    first = next(iter(left_out), None)
    if first is None or before == after:
        return []
    because = f"images were left out, such as {first[0]}: {first[1]}"
    emptied = [split for split in _splits(before) if split not in _splits(after)]
    if emptied:
        raise DataError(f"no image of {_enumerate(emptied)} is left: {because}; add other images")
    if (fault := _fault(after)) and not _fault(before):
        raise DataError(f"{because}; now {fault}")
    left = _splits_by_name(after)
    return [
        f"no image of the {kind} {name} is left in {split}: {because}"
        for (kind, name), splits in sorted(_splits_by_name(before).items())
        for split in sorted(splits - left.get((kind, name), set()))
    ]


def _splits(counts: Counts) -> list[str]:
    return sorted({split for (split, *_), number in counts.items() if number})


def _splits_by_name(counts: Counts) -> dict[tuple[str, str], set[str]]:
    """The splits in which each label and class occurs, by kind and name."""
    splits: dict[tuple[str, str], set[str]] = {}
    for (split, label, category, _), number in counts.items():
        if label != UNLABELLED and number:
            splits.setdefault(("label", LABELS[label]), set()).add(split)
            if category:
                splits.setdefault(("class", category), set()).add(split)
    return splits


def _enumerate(names: Iterable[str]) -> str:
    listed = list(names)
    if len(listed) > _LISTED:
        return f"{', '.join(listed[:_LISTED])} and {len(listed) - _LISTED} more"
    return " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1])))
