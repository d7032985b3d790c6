"""Outputs that are either whole or not there: write beside the final name, then rename."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.exceptions import DataError

_LONGEST = 200  # bytes of a name


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
    _refuse_anothers(final, marker)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(final, "partial")
    partial.mkdir()
    try:
        yield partial
        old = _beside(final, "old")
        if final.exists():
            os.rename(final, old)
        os.rename(partial, final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumable_folder(final: str | os.PathLike, *, marker: str) -> Iterator[Path]:
    """Yield a folder to work in, this process alone, which stays when the block does not end well.

    The next call yields it again as it was left, so that what is finished in it need not be done again. When
    the block ends well it must hold a folder `final`, which takes the place of `final`; the rest is deleted.

    Args:
        final, marker: as in `folder`.

    Raises:
        DataError: as in `folder`, or another process is in such a block for the same `final`.
    """
    _refuse_anothers(Path(final), marker)
    with _resumable(Path(final)) as work:
        yield work


@contextmanager
def resumable_file(final: str | os.PathLike) -> Iterator[Path]:
    """The same for a file: the block must leave a file `final`, which takes the place of whatever was there.

    Raises:
        DataError: another process is in such a block for the same `final`.
    """
    with _resumable(Path(final)) as work:
        yield work


def unfinished(final: str | os.PathLike) -> Path:
    """The folder that `resumable_folder` and `resumable_file` yield, beside `final` and hidden."""
    final = Path(final)
    return final.with_name(f".{final.name}-unfinished")


@contextmanager
def _resumable(final: Path) -> Iterator[Path]:
    final.parent.mkdir(parents=True, exist_ok=True)
    work = unfinished(final)
    lock = _lock(work, final)
    try:
        yield work
        # What was there goes into the work folder, so that being killed between the two renames loses neither.
        shutil.rmtree(work / "old", ignore_errors=True)
        if final.exists():
            os.rename(final, work / "old")
        os.rename(work / "final", final)
        shutil.rmtree(work)
    finally:
        if work.is_dir() and os.listdir(work) == ["lock"]:  # nothing to go on with
            shutil.rmtree(work)
        os.close(lock)  # which the system does, too, when the process is killed


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


@contextmanager
def alone(path: str | os.PathLike) -> Iterator[None]:
    """Wait until no other process is in such a block for the same `path`; then be alone in it.

    A lock file stays beside `path`: to delete it is to let two in.
    """
    path = Path(path)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system gives it back, too, when the process is killed
        yield


def short(name: str) -> str:
    """A name with room for a suffix, where file systems take 255 bytes: of a longer one the beginning and a hash."""
    as_bytes = os.fsencode(name)
    if len(as_bytes) <= _LONGEST:
        return name
    return f"{as_bytes[: _LONGEST - 9].decode(errors='ignore')}-{hashlib.sha256(as_bytes).hexdigest()[:8]}"


def link(final: str | os.PathLike, target: str) -> None:
    """Point the symbolic link `final` at `target`, whether or not it was there before."""
    with file(final) as partial:
        partial.symlink_to(target)


def _refuse_anothers(final: Path, marker: str) -> None:
    if final.exists() and not (final / marker).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise DataError(f"{final} exists and was not made by this command; give another place or move it away")


def _lock(work: Path, final: Path) -> int:
    while True:
        work.mkdir(exist_ok=True)
        try:
            lock = os.open(work / "lock", os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:  # the process that held it has just finished and deleted the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise DataError(f"another process is writing {final}; wait for it, or write elsewhere") from error
        if _is_at(lock, work / "lock"):
            return lock
        os.close(lock)  # we hold a file that was deleted while we opened it: a lock on nothing


def _is_at(opened: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened), os.stat(path))
    except FileNotFoundError:
        return False


def _beside(final: Path, role: str) -> Path:
    # Same folder, so that the rename stays on one file system; the suffix stays last, as writers look at it.
    return final.with_name(f".{final.stem}-{role}-{os.getpid()}{final.suffix}")
