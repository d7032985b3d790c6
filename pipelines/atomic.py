"""Outputs that are either whole or not there: write beside the final name, then rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import DataError


@contextmanager
def folder(final: str | os.PathLike, *, marker: str) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `final` when the block ends well, and vanishes when it does not.

    Args:
        final: the folder to make or replace.
        marker: a file that every complete output of this kind holds. A `final` that holds other things is not
            ours to replace.

    Raises:
        DataError: `final` exists, is not empty and has no `marker`.
    """
    final = Path(final)
    if final.exists() and not (final / marker).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise DataError(f"{final} exists and was not made by this command; give another place or move it away")
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(final, "partial")
    partial.mkdir()
    try:
        yield partial
        _replace_folder(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def file(final: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to; the file written there takes the name `final` when the block ends well."""
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(final, "partial")
    try:
        yield partial
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def link(final: str | os.PathLike, target: str) -> None:
    """Point the symbolic link `final` at `target`, whether or not it was there before."""
    with file(final) as partial:
        partial.symlink_to(target)


def _beside(final: Path, role: str) -> Path:
    # Same folder, so that the rename stays on one file system; the suffix stays last, as writers look at it.
    return final.with_name(f".{final.stem}-{role}-{os.getpid()}{final.suffix}")


def _replace_folder(partial: Path, final: Path) -> None:
    old = _beside(final, "old")
    if final.exists():
        os.rename(final, old)
    os.rename(partial, final)
    shutil.rmtree(old, ignore_errors=True)
