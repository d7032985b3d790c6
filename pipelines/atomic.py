"""Outputs that are either complete or absent: written beside the final name, then renamed.

They are written in a hidden folder .NAME-partial-XXXXXXXX beside the final name, locked by its process. What a killed
process left is not locked any more, and the next one that writes NAME deletes it.
"""

import errno
import fcntl  # POSIX only: this is where an import on Windows fails
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.exceptions import DataError

_REPLACED = "old"  # in a partial folder: the output that is replaced, so that a kill loses neither
_MAX_NAME_BYTES = 200  # file systems allow 255, and suffixes are added


@contextmanager
def folder(final: str | os.PathLike, *, marker: str) -> Iterator[Path]:
    """Yield an empty folder that replaces `final` if the block succeeds, and is deleted if it fails.

    Args:
        final: the folder to make or replace.
        marker: a file that every complete output of this kind contains. A non-empty `final` without it is not ours to
            replace.

    Raises:
        DataError: see `check_folder`.
    """
    final = Path(final)
    check_folder(final, marker=marker)
    with _partial_folder(final) as work:
        partial = work / "new"
        partial.mkdir()
        yield partial
        if final.exists():
            os.rename(final, work / _REPLACED)
        os.rename(partial, final)


def numbered_folder(base: str | os.PathLike, fill: Callable[[Path], None]) -> Path:
    """Make a folder in `base` that is named by the number after the highest there; two processes make two.

    Args:
        base: the parent folder, created if missing.
        fill: writes into the folder that it is given, which gets its name when all is written.

    Returns:
        The new folder.

    Raises:
        DataError: see `check_place`.
    """
    base = Path(base)
    check_place(base / "1")
    with _partial_folder(base / "version") as work:
        partial = work / "new"
        partial.mkdir()
        fill(partial)
        while True:
            numbers = [int(path.name) for path in base.iterdir() if re.fullmatch("[0-9]{1,18}", path.name)]
            final = base / str(max(numbers, default=0) + 1)
            try:
                os.rename(partial, final)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                    continue
                raise
            return final


@contextmanager
def resumable_folder(final: str | os.PathLike, *, marker: str) -> Iterator[Path]:
    """Yield a work folder, locked by this process, that is kept if the block fails.

    The next call yields it as it was left, so that finished parts need not be redone. If the block succeeds, it must
    have left a folder `final` in there, which replaces `final`; the rest is deleted.

    Args:
        final, marker: as in `folder`.

    Raises:
        DataError: see `check_folder`, or another process holds the lock.
    """
    check_folder(final, marker=marker)
    with _resumable(Path(final)) as work:
        yield work


@contextmanager
def resumable_file(final: str | os.PathLike) -> Iterator[Path]:
    """Yield a work folder as `resumable_folder` does, for a file: the block must leave a file `final` in it.

    Raises:
        DataError: another process holds the lock, or see `check_place`.
    """
    check_place(final)
    with _resumable(Path(final)) as work:
        yield work


def work_folder(final: str | os.PathLike) -> Path:
    """The hidden folder beside `final` that `resumable_folder` and `resumable_file` yield."""
    final = Path(final)
    return final.with_name(f".{final.name}-unfinished")


@contextmanager
def _resumable(final: Path) -> Iterator[Path]:
    final.parent.mkdir(parents=True, exist_ok=True)
    work = work_folder(final)
    lock = _lock(work, final)
    try:
        yield work
        # The old output is moved into the work folder, so that a kill between the two renames loses neither.
        shutil.rmtree(work / "old", ignore_errors=True)
        if final.exists():
            os.rename(final, work / "old")
        os.rename(work / "final", final)
        shutil.rmtree(work)
    finally:
        if work.is_dir() and os.listdir(work) == ["lock"]:  # nothing to resume
            shutil.rmtree(work)
        os.close(lock)  # as the system does when the process is killed


@contextmanager
def file(final: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to; the file written there replaces `final` if the block succeeds.

    Raises:
        DataError: `final` is a folder, or see `check_place`.
    """
    final = Path(final)
    check_place(final)
    if final.is_dir() and not final.is_symlink():
        raise DataError(f"{final} is a folder, where a file would be written; choose another place")
    with _partial_folder(final) as work:
        partial = work / final.name  # with the same suffix, by which writers choose the format
        yield partial
        os.replace(partial, final)


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of `path`, waiting for any other process that holds it.

    The lock file beside `path` stays: if it were deleted, two processes could hold the lock.
    """
    path = Path(path)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when the file is closed or the process killed
        yield


def check_folder(final: str | os.PathLike, *, marker: str) -> None:
    """Check that the folder `final` can be made or replaced; see `check_place`.

    Raises:
        DataError: `final` is a file, or is not empty and has no `marker`; or see `check_place`.
    """
    final = Path(final)
    check_place(final)
    if final.exists() and not final.is_dir():
        raise DataError(f"{final} is a file, where a folder would be written; choose another place")
    if final.exists() and not (final / marker).is_file() and any(final.iterdir()):
        raise DataError(f"{final} exists and was not made by this command; choose another place or move it away")


def check_place(final: str | os.PathLike) -> None:
    """Check that `final` can be written: called before the work that it will hold, which may take hours.

    Raises:
        DataError: what would be its folder is a file, or may not be written to.
    """
    nearest = next(folder for folder in Path(final).absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir():  # also a dangling link
        raise DataError(f"{nearest} is not a folder; choose another place for {final}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"no permission to write in {nearest}; choose another place for {final}")


def shorten(name: str) -> str:
    """Cut a file name to 200 bytes; a name that is cut ends with a hash that keeps it distinct."""
    encoded = os.fsencode(name)
    if len(encoded) <= _MAX_NAME_BYTES:
        return name
    return f"{encoded[: _MAX_NAME_BYTES - 9].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:8]}"


def link(final: str | os.PathLike, target: str) -> None:
    """Make `final` a symbolic link to `target`, replacing an earlier one."""
    with file(final) as partial:
        partial.symlink_to(target)


def _lock(work: Path, final: Path) -> int:
    while True:
        work.mkdir(exist_ok=True)
        try:
            lock = os.open(work / "lock", os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:  # the process that held the lock has just deleted the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise DataError(f"another process is writing {final}; wait for it, or write elsewhere") from error
        if _is_at(lock, work / "lock"):
            return lock
        os.close(lock)  # the file was deleted while we opened it, so this locks nothing


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


# --- partial folders -------------------------------------------------------------------------------------------


@contextmanager
def _partial_folder(final: Path) -> Iterator[Path]:
    """A locked, empty folder beside `final`, so that a rename stays on one file system; deleted in the end."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(final)
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}-partial-", dir=final.parent))
        with suppress(FileNotFoundError):  # taken for a leftover before it was locked
            lock = os.open(work, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, work):
                break
            os.close(lock)
    try:
        yield work
    finally:
        _clear(work, final)
        os.close(lock)


def _clear_leftovers(final: Path) -> None:
    """Delete what killed processes left beside `final`, also those of version 0.2, which named it by their id."""
    stem, suffix = re.escape(final.stem), re.escape(final.suffix)
    name = re.compile(rf"\.({re.escape(final.name)}-partial-\w{{8}}|{stem}-(partial|old)-\d+{suffix})")
    for entry in os.scandir(final.parent):
        if not name.fullmatch(entry.name):
            continue
        with suppress(OSError):  # locked by its process, gone, not ours, or on a file system without locks
            lock = os.open(entry.path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(Path(entry.path), final)
            finally:
                os.close(lock)


def _clear(partial: Path, final: Path) -> None:
    """Delete a partial output; if its process was killed between two renames, put back what it was replacing."""
    if not partial.is_dir():
        partial.unlink()
        return
    if (partial / _REPLACED).is_dir() and not os.path.lexists(final):
        os.rename(partial / _REPLACED, final)
    shutil.rmtree(partial, ignore_errors=True)
