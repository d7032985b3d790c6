"""Tables of predictions: columns and formats; they are complete, or can be resumed to the same bytes."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from tiny import SUPPORT

from ddkeras.exceptions import ConfigError
from ddkeras.inference import writers
from ddkeras.inference.prediction import Prediction, with_provenance
from ddkeras.interrupts import Interrupted
from pipelines import atomic
from pipelines.exceptions import DataError
from pipelines.media.manifest import Manifest, Standing
from pipelines.media.provenance import FIELDS, Provenance

CATEGORIES = ["animals", "vehicles"]
FILES = [f"inbox/{index:03}.jpg" for index in range(100)]
ODD = ['inbox/a "b",c.jpg', "inbox/two\nlines.jpg", "inbox/größe.jpg", os.fsdecode(b"inbox/no-utf8-\xff.jpg")]
SUFFIXES = [".csv", ".jsonl", ".parquet"]


def predicted(path: str) -> Prediction:
    """A prediction that depends on the path alone."""
    if path.endswith("7.jpg"):
        return Prediction(path, error="the file is empty")
    probability = FILES.index(path) / 100 if path in FILES else 0.25
    verdict = "fake" if probability > 0.7 else "real" if probability < 0.3 else "unsure"
    return Prediction(path, probability, verdict, "vehicles", 0.75, {"animals": 0.25, "vehicles": 0.75})


def batches(files):
    """Eight at a time."""
    files = list(files)
    for at in range(0, len(files), 8):
        yield [predicted(path) for path in files[at : at + 8]]


def write(output: Path, files=FILES, form: str = "scores", with_=(("format", "scores"),), by=batches, **options):
    """`writers.write` with defaults."""
    columns = writers.columns(form, CATEGORIES)
    return writers.write(output, by, files, columns=columns, settings=dict(with_), **options)


def rows_of(output: Path) -> list[dict]:
    """The rows as a reader of the format sees them; in CSV everything is text."""
    if output.suffix == ".parquet":
        return parquet.read_table(output).to_pylist()
    if output.suffix == ".jsonl":
        return [json.loads(line) for line in output.read_text().splitlines()]
    with output.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def failing_after(batches_done: int):
    """A detector that fails after a number of batches."""

    def some(files):
        for number, batch in enumerate(batches(files)):
            if number == batches_done:
                raise ZeroDivisionError
            yield batch

    return some


# --- what is written -------------------------------------------------------------------------------------------


def test_a_table_has_one_row_per_image_and_a_summary(tmp_path):
    summary = write(tmp_path / "scores.csv")
    rows = rows_of(tmp_path / "scores.csv")
    assert [row["path"] for row in rows] == FILES
    assert (summary["images"], summary["errors"], sum(summary["verdicts"].values())) == (100, 10, 90)
    assert list(summary["verdicts"]) == ["fake", "real", "unsure"]
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_formats_hold_the_same_values(tmp_path, suffix):
    output = tmp_path / f"scores{suffix}"
    write(output, ["inbox/050.jpg", "inbox/7.jpg"])
    good, bad = rows_of(output)
    as_text = (lambda value: "" if value is None else str(value)) if suffix == ".csv" else lambda value: value
    assert good == {
        "path": "inbox/050.jpg",
        "fake_probability": as_text(0.5),
        "verdict": "unsure",
        "reason": "",
        "predicted_category": "vehicles",
        "category_probability": as_text(0.75),
        "probability_animals": as_text(0.25),
        "probability_vehicles": as_text(0.75),
        "score_shift": as_text(None),
        "spread": as_text(None),
        "error": "",
        "provenance": "",
        **({} if suffix == ".csv" else {"provenance_fields": None}),
    }
    missing = dict.fromkeys(good, as_text(None)) | {"reason": "", "provenance": ""}
    assert bad == missing | {"path": "inbox/7.jpg", "error": "the file is empty"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unusual_file_names_are_preserved(tmp_path, suffix):
    output = tmp_path / f"scores{suffix}"
    write(output, ODD)
    expected = ODD if suffix == ".csv" else [*ODD[:3], "inbox/no-utf8-\ufffd.jpg"]
    assert [row["path"] for row in rows_of(output)] == expected


def test_parquet_has_types(tmp_path):
    write(tmp_path / "scores.parquet")
    write(tmp_path / "labels.parquet", form="artifact-confidence")
    kinds = {field.name: field.type for field in parquet.read_schema(tmp_path / "scores.parquet")}
    assert kinds["path"] == kinds["verdict"] == kinds["error"] == pa.string()
    assert kinds["fake_probability"] == kinds["probability_animals"] == pa.float32()
    assert parquet.read_schema(tmp_path / "labels.parquet").field("label").type == pa.int8()
    assert parquet.read_table(tmp_path / "labels.parquet").column("label").null_count == 10


def test_without_categories_their_columns_are_empty(tmp_path):
    def plain(files):
        yield [Prediction(path, 0.25, "real") for path in files]

    columns = writers.columns("scores", [])
    writers.write(tmp_path / "scores.jsonl", plain, FILES[:1], columns=columns, settings={})
    assert rows_of(tmp_path / "scores.jsonl") == [
        {
            "path": "inbox/000.jpg",
            "fake_probability": 0.25,
            "verdict": "real",
            "reason": "",
            "predicted_category": None,
            "category_probability": None,
            "score_shift": None,
            "spread": None,
            "error": "",
            "provenance": "",
            "provenance_fields": None,
        }
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_provenance_has_fields_where_a_cell_can_hold_them(tmp_path, suffix):
    made_from = Manifest(Standing("changed", "Nikon"), ("digitalCapture",), title="a.jpg")
    manifest = Manifest(
        Standing("unchanged", "OpenAI", "unknown", "expired"), generator="ChatGPT", ingredients=(made_from,)
    )
    origin = Provenance(manifest, source_type="trainedAlgorithmicMedia", has_gain_map=True)

    def some(files):
        yield [with_provenance(Prediction(path, 0.25, "real"), origin) for path in files]

    write(tmp_path / f"scores{suffix}", ["a.jpg"], by=some)
    (row,) = rows_of(tmp_path / f"scores{suffix}")
    assert row["provenance_fields"] == {
        "manifest": "embedded",
        "integrity": "unchanged",
        "signer": "OpenAI",
        "trust": "unknown",
        "certificate": "expired",
        "specification": "current",
        "digitalSourceType": "trainedAlgorithmicMedia",
        "tool": "ChatGPT",
        "ingredients": [
            "a.jpg, signed by Nikon (not known as trusted), content changed since; before that: captured by a camera"
        ],
        "gainMap": True,
        "motionPhoto": False,
    }
    assert list(row["provenance_fields"]) == list(FIELDS)


def test_the_artifact_format_labels_at_a_threshold_of_one_half_and_leaves_errors_empty(tmp_path):
    def some(files):
        probabilities = {"a.jpg": 0.499, "b.jpg": 0.5, "c.jpg": 0.9}
        unsure = [Prediction(*one, "unsure", "animals", 0.6) for one in probabilities.items()]
        yield [*unsure, Prediction("d.jpg", error="the file is empty")]

    files = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    write(tmp_path / "a.csv", files, "artifact", by=some)
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "image_path,label,class",
        "a.jpg,0,animals",
        "b.jpg,1,animals",
        "c.jpg,1,animals",
        "d.jpg,,",
    ]
    write(tmp_path / "b.csv", files, "artifact-confidence", by=some)
    assert (tmp_path / "b.csv").read_text().splitlines() == [
        "image_path,label,class,label_confidence,class_confidence",
        "a.jpg,0,animals,0.501,0.6",
        "b.jpg,1,animals,0.5,0.6",
        "c.jpg,1,animals,0.9,0.6",
        "d.jpg,,,,",
    ]


# --- interrupted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("done", [0, 1, 5, 11])
def test_a_resumed_table_has_the_same_bytes(tmp_path, monkeypatch, suffix, done):
    monkeypatch.setattr(writers, "_CHECKPOINT_SECONDS", 0)
    whole, output = tmp_path / f"whole{suffix}", tmp_path / f"scores{suffix}"
    expected = write(whole, [*FILES, *ODD])
    with pytest.raises(ZeroDivisionError):
        write(output, [*FILES, *ODD], by=failing_after(done))
    assert not output.exists()
    with pytest.raises(ZeroDivisionError):
        write(output, resume=True, by=failing_after(1))
    assert write(output, ["ignored"], resume=True) == expected
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted([whole, output])


def test_resuming_scores_only_the_missing_images(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "_CHECKPOINT_SECONDS", 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "scores.csv", by=failing_after(5))
    scored = []

    def recording(files):
        scored.extend(files)
        return batches(scored)

    write(tmp_path / "scores.csv", resume=True, by=recording)
    assert scored == FILES[40:]


@pytest.mark.parametrize("torn", [b"inbox/0", b'"inbox/0\n', b"inbox/040.jpg,0.5,real\r\n" * 3 + b"in"])
def test_rows_after_the_last_checkpoint_are_dropped(tmp_path, monkeypatch, torn):
    monkeypatch.setattr(writers, "_CHECKPOINT_SECONDS", 0)
    write(tmp_path / "whole.csv")
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "scores.csv", by=failing_after(5))
    with (atomic.work_folder(tmp_path / "scores.csv") / "final").open("ab") as file:
        file.write(torn)
    write(tmp_path / "scores.csv", resume=True)
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


KILLED = """
import os, signal, sys, test_writers as tests
def some(files):
    for number, batch in enumerate(tests.batches(files)):
        if number == 6:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        yield batch
tests.writers._CHECKPOINT_SECONDS = 0
tests.write(tests.Path(sys.argv[1]), by=some)
"""


def killed(output: Path, number: str) -> subprocess.CompletedProcess:
    """Run a process that writes the table and sends itself a signal meanwhile."""
    command = [sys.executable, "-c", KILLED, str(output), number]
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command,
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_process_leaves_a_table_that_can_be_resumed(tmp_path):
    write(tmp_path / "whole.csv")
    assert killed(tmp_path / "scores.csv", "SIGKILL").returncode == -signal.SIGKILL
    with pytest.raises(ConfigError, match=r"scores\.csv is unfinished, 48 of 100 images are scored; continue with"):
        writers.check(tmp_path / "scores.csv")
    writers.check(tmp_path / "scores.csv", resume=True)
    write(tmp_path / "scores.csv", resume=True)
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_stop_says_how_to_continue(tmp_path, number):
    def some(files):
        for index, batch in enumerate(batches(files)):
            if index == 2:
                os.kill(os.getpid(), number)
            yield batch

    with pytest.raises(Interrupted, match="24 of 100 images are scored; continue with the same command and --resume"):
        write(tmp_path / "scores.csv", by=some)
    assert write(tmp_path / "scores.csv", resume=True)["images"] == 100


def test_progress_continues_where_it_was(tmp_path, monkeypatch):
    from contextlib import nullcontext  # noqa: PLC0415

    monkeypatch.setattr(writers, "_CHECKPOINT_SECONDS", 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "scores.csv", by=failing_after(5))
    moves = []
    write(tmp_path / "scores.csv", resume=True, progress=lambda: nullcontext(lambda *move: moves.append(move)))
    assert moves == [(done, 100) for done in (40, 48, 56, 64, 72, 80, 88, 96, 100)]


# --- refused ---------------------------------------------------------------------------------------------------


def test_resuming_with_other_settings_is_refused_with_the_difference(tmp_path):
    settings = {"paths": "inbox", "model": "a (0f)", "format": "scores"}
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "scores.csv", with_=settings, by=failing_after(5))
    for change, message in (
        (
            {"model": "b (1c)"},
            r"scores\.csv was started with model a \(0f\), not b \(1c\); give the same, or start over",
        ),
        ({"format": "artifact"}, "was started with format scores, not artifact"),
        ({"paths": "inbox, more"}, "was started with paths inbox, not inbox, more"),
        ({"paths": "x" * 1000}, "was started with other paths; give the same"),
    ):
        with pytest.raises(ConfigError, match=message):
            write(tmp_path / "scores.csv", with_=settings | change, resume=True)
    with pytest.raises(ConfigError, match="was started with other columns"):
        write(tmp_path / "scores.csv", with_=settings, form="artifact", resume=True)
    assert write(tmp_path / "scores.csv", with_=settings, resume=True)["images"] == 100


def test_nothing_is_overwritten_unasked(tmp_path):
    output = tmp_path / "scores.csv"
    writers.check(output)
    write(output)
    with pytest.raises(ConfigError, match=r"scores\.csv exists; replace it with --overwrite, or name another"):
        writers.check(output)
    with pytest.raises(ConfigError, match=r"there is no unfinished .*scores\.csv to resume"):
        writers.check(output, resume=True)
    writers.check(output, overwrite=True)
    with pytest.raises(ZeroDivisionError):
        write(output, FILES[:50], by=failing_after(5), overwrite=True)
    assert len(rows_of(output)) == 100, "the old table stays until the new one is complete"
    with pytest.raises(
        ConfigError, match=r"is unfinished, .* continue with --resume, or start over with --overwrite"
    ):
        writers.check(output)
    writers.check(output, resume=True)
    write(output, FILES[:30], overwrite=True)
    assert [row["path"] for row in rows_of(output)] == FILES[:30]


def test_a_table_that_another_process_finished_meanwhile_is_not_overwritten(tmp_path):
    write(tmp_path / "scores.csv")
    before = (tmp_path / "scores.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"scores\.csv exists; replace it with --overwrite"):
        write(tmp_path / "scores.csv", FILES[:3])
    with pytest.raises(ConfigError, match="there is no unfinished"):
        write(tmp_path / "scores.csv", resume=True)
    assert (tmp_path / "scores.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("name", ["begun.json", "done.json"])
def test_a_checkpoint_that_a_power_failure_left_empty_cannot_be_resumed(tmp_path, name):
    output = tmp_path / "scores.csv"
    with pytest.raises(ZeroDivisionError):
        write(output, by=failing_after(5))
    (atomic.work_folder(output) / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="there is no unfinished"):
        write(output, resume=True)
    assert write(output)["images"] == 100


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    for output, message in (
        ("scores.txt", r"scores\.txt must end in one of \.csv, \.jsonl, \.parquet"),
        ("file/deeper/scores.csv", "file is not a folder; choose another place for"),
        ("link/scores.csv", "link is not a folder; choose another place for"),
        ("folder.csv", r"folder\.csv is a folder; name a file for the table"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            writers.check(tmp_path / output)
    with pytest.raises(ConfigError, match="--resume continues a table and --overwrite starts over; give one of them"):
        writers.check(tmp_path / "scores.csv", resume=True, overwrite=True)
    writers.check(tmp_path / "new" / "deeper" / "SCORES.CSV")


def test_a_name_that_is_a_formula_is_harmless_in_csv_and_exact_elsewhere(tmp_path):
    name = '=HYPERLINK("http://x").jpg'
    for suffix in (".csv", ".jsonl", ".parquet"):
        write(tmp_path / f"scores{suffix}", [name])
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["'" + name]
    assert json.loads((tmp_path / "scores.jsonl").read_text())["path"] == name
    assert parquet.read_table(tmp_path / "scores.parquet")["path"].to_pylist() == [name]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'install it with: pip install "ddkeras\[parquet\]"'):
        writers.check(tmp_path / "scores.parquet")
    writers.check(tmp_path / "scores.csv")


def test_two_at_a_time_are_refused(tmp_path):
    def meanwhile(files):
        with pytest.raises(DataError, match=r"another process is writing .*scores\.csv"):
            write(tmp_path / "scores.csv")
        yield from batches(files)

    assert write(tmp_path / "scores.csv", by=meanwhile)["images"] == 100


def test_lost_rows_are_noticed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "scores.csv", by=failing_after(5))
    (atomic.work_folder(tmp_path / "scores.csv") / "final").write_text("path\n")
    with pytest.raises(ConfigError, match="has lost rows; start over with --overwrite"):
        write(tmp_path / "scores.csv", resume=True)
