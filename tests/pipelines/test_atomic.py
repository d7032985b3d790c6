"""Outputs are complete or absent."""

import os

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
