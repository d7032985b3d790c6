"""Outputs are complete or absent."""

import os
import subprocess
import sys

import pytest

from pipelines import atomic
from pipelines.exceptions import DataError


def test_a_folder_appears_when_it_is_complete(tmp_path):
    final = tmp_path / "deep" / "final"
    with atomic.folder(final, marker="done") as partial:
        (partial / "done").write_text("1")
        assert not final.exists()
    assert (final / "done").read_text() == "1"
    assert [path.name for path in final.parent.iterdir()] == ["final"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    final = tmp_path / "final"
    final.mkdir()
    (final / "done").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic.folder(final, marker="done") as partial:  # noqa: PT012
        (partial / "half").write_text("new")
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
    assert [path.name for path in final.iterdir()] == ["done"]


def test_our_own_folder_is_replaced_and_an_empty_one_is_filled(tmp_path):
    final = tmp_path / "final"
    final.mkdir()
    for text in ("first", "second"):
        with atomic.folder(final, marker="done") as partial:
            (partial / "done").write_text(text)
    assert (final / "done").read_text() == "second"


def test_somebody_elses_folder_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"precious")
    with (
        pytest.raises(DataError, match="photos exists and was not made by this command"),
        atomic.folder(tmp_path / "photos", marker="done"),
    ):
        pass
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"precious"


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path):
    (tmp_path / ".final-partial-4711.csv").write_text("of 0.2.0")
    (tmp_path / ".other-partial-4711.csv").write_text("of another output")
    kill = "os.kill(os.getpid(), 9)"
    killed = f"import os, sys; from pipelines import atomic\nwith atomic.file(sys.argv[1]) as partial: {kill}"
    assert subprocess.run([sys.executable, "-c", killed, tmp_path / "final.csv"], check=False).returncode == -9
    assert len(list(tmp_path.glob(".final.csv-partial-*"))) == 1
    with atomic.file(tmp_path / "final.csv") as partial:
        partial.write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other-partial-4711.csv", "final.csv"]


def test_what_another_process_is_writing_is_not_cleared(tmp_path):
    with atomic.file(tmp_path / "final.csv") as first:
        first.write_text("first")
        with atomic.file(tmp_path / "final.csv") as second:
            second.write_text("second")
        assert (tmp_path / "final.csv").read_text() == "second"
    assert (tmp_path / "final.csv").read_text() == "first"


def test_a_kill_between_two_renames_loses_nothing(tmp_path):
    final = tmp_path / "final"
    work = tmp_path / ".final-partial-abcdefgh"
    (work / "old").mkdir(parents=True)
    (work / "old/done").write_text("before")
    (work / "new").mkdir()
    with pytest.raises(ZeroDivisionError), atomic.folder(final, marker="done"):
        1 / 0  # noqa: B018
    assert (final / "done").read_text() == "before"
    assert not work.exists()


def test_folders_numbered_at_the_same_time_get_different_numbers(tmp_path):
    def fill_slowly(folder):
        (folder / "name").write_text("slow")
        assert atomic.numbered_folder(tmp_path, lambda other: (other / "name").write_text("fast")).name == "4"

    (tmp_path / "3").mkdir()
    (tmp_path / "latest").mkdir()
    assert atomic.numbered_folder(tmp_path, fill_slowly).name == "5"
    assert {path.name: (path / "name").read_text() for path in tmp_path.glob("[45]")} == {"4": "fast", "5": "slow"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "5", "latest"]


def test_what_is_in_the_way_of_an_output_is_named(tmp_path):
    (tmp_path / "file").write_text("precious")
    for final, message in (("file", "file is a file, where a folder would be"), ("file/a/b", "file is not a folder")):
        with pytest.raises(DataError, match=message), atomic.folder(tmp_path / final, marker="done"):
            pass
    with pytest.raises(DataError, match="is a folder, where a file would be written"), atomic.file(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_appears_when_it_is_complete(tmp_path):
    final = tmp_path / "final.csv"
    with atomic.file(final) as partial:
        partial.write_text("1")
        assert partial.suffix == ".csv"
        assert not final.exists()
    assert final.read_text() == "1"
    with pytest.raises(ZeroDivisionError), atomic.file(final) as partial:  # noqa: PT012
        partial.write_text("2")
        1 / 0  # noqa: B018
    assert final.read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["final.csv"]


def test_an_unfinished_file_is_resumed_by_one_process_at_a_time(tmp_path):
    final = tmp_path / "final.csv"
    with pytest.raises(ZeroDivisionError), atomic.resumable_file(final) as work:  # noqa: PT012
        (work / "half").write_text("1")
        with pytest.raises(DataError, match="another process is writing"), atomic.resumable_file(final):
            pass
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.iterdir()] == [".final.csv-unfinished"]
    for _ in range(2):  # the second time it takes the place of the first
        with atomic.resumable_file(final) as work:
            assert work == atomic.work_folder(final)
            (work / "final").write_text("1 and 2")
    assert final.read_text() == "1 and 2"
    assert [path.name for path in tmp_path.iterdir()] == ["final.csv"]


def test_a_failure_before_anything_was_written_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic.resumable_file(tmp_path / "final.csv"):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_a_long_name_is_cut_and_stays_distinct():
    assert atomic.shorten("clip.mp4") == "clip.mp4"
    assert atomic.shorten("x" * 200) == "x" * 200
    first, second = (atomic.shorten(f"{'é' * 150}{end}.mp4") for end in "ab")
    assert len(os.fsencode(first)) <= 200
    assert first[:95] == second[:95] == "é" * 95
    assert first != second


def test_a_link_is_replaced(tmp_path):
    for target in ("first", "second"):
        atomic.link(tmp_path / "latest", target)
    assert (tmp_path / "latest").readlink().name == "second"
