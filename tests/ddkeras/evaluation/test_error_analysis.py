"""The errors of a run, as a folder of links."""

import dataclasses
import json
import os
import shutil

import pandas as pd
import pytest
from tiny import with_each_verdict

from ddkeras.evaluation import error_analysis
from ddkeras.evaluation.evaluate import measure
from ddkeras.exceptions import ConfigError
from ddkeras.runs.run import copy_run
from pipelines.exceptions import DataError
from pipelines.records import queries


def predictions(rows) -> pd.DataFrame:
    """Of (path, label, verdict, probability of fake, category, predicted category)."""
    columns = ["path", "label", "verdict", "fake_probability", "true_category", "predicted_category"]
    return pd.DataFrame(rows, columns=columns).assign(source="", category_probability=0.75)


def kinds(errors: pd.DataFrame) -> list[tuple]:
    return list(errors[["mistake", "rank", "path"]].itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def evaluated(run, records, tmp_path_factory):
    """A run that is wrong, unsure and right, evaluated on validation."""
    copy = with_each_verdict(run, records, tmp_path_factory.mktemp("runs"))
    fitted = {"false_alarms": 0.01, "misses": 0.05, "reals": 6, "fakes": 6}
    copy = copy.with_operating_point(dataclasses.replace(copy.point, fitted=fitted))
    measure(copy, records, ["validation"], tell=print, degrade=0)
    return copy


@pytest.fixture
def collect(evaluated, records, tmp_path):
    """Collect errors in a folder; returns what was collected, and the folder."""
    folder = tmp_path / "errors"

    def call(run=evaluated, split="validation", **options):
        return error_analysis.collect(run, split, folder, **{"records": records.folder} | options), folder

    return call


# --- which ones ------------------------------------------------------------------------------------------------


def test_the_most_confident_errors_of_each_kind_come_first():
    errors = error_analysis.find(
        predictions(
            [
                ("a.jpg", 0, "fake", 0.7, "cats", "cats"),
                ("b.jpg", 0, "fake", 0.9, "cats", "cats"),
                ("c.jpg", 1, "real", 0.2, "cats", "cats"),
                ("d.jpg", 1, "real", 0.1, "cats", "cats"),
                ("e.jpg", 1, "fake", 0.8, "cats", "dogs"),
            ]
        )
    )
    assert kinds(errors) == [
        ("real-called-fake", 1, "b.jpg"),
        ("real-called-fake", 2, "a.jpg"),
        ("fake-called-real", 1, "d.jpg"),
        ("fake-called-real", 2, "c.jpg"),
        ("wrong-category", 1, "e.jpg"),
    ]
    assert list(errors["confidence"]) == pytest.approx([0.9, 0.7, 0.9, 0.8, 0.75])


def test_an_image_can_have_two_errors():
    errors = error_analysis.find(predictions([("a.jpg", 0, "fake", 0.7, "cats", "dogs")]))
    assert kinds(errors) == [("real-called-fake", 1, "a.jpg"), ("wrong-category", 1, "a.jpg")]


def test_an_unsure_verdict_and_an_unknown_category_are_not_errors():
    rows = [("a.jpg", 0, "unsure", 0.7, "cats", "cats"), ("b.jpg", 1, "fake", 0.9, "", "dogs")]
    assert error_analysis.find(predictions(rows)).empty


def test_a_run_without_categories_has_two_kinds_of_errors():
    columns = ["true_category", "predicted_category", "category_probability"]
    table = predictions([("a.jpg", 0, "fake", 0.7, "cats", "dogs")]).drop(columns=columns)
    assert kinds(error_analysis.find(table)) == [("real-called-fake", 1, "a.jpg")]


# --- the folder ------------------------------------------------------------------------------------------------


def test_the_folder_links_to_the_files_by_rank_and_confidence(collect, evaluated, data):
    collected, folder = collect()
    table = pd.read_csv(folder / "errors.csv", keep_default_na=False)
    assert sum(collected.mistakes.values()) == len(table) > 0
    assert collected.mistakes["real-called-fake"] > 0
    assert collected.unsure > 0
    assert (collected.linked, collected.copied, collected.missing) == (table["path"].nunique(), 0, 0)
    for row in table.itertuples():
        assert row.link == f"{row.mistake}/{row.rank:03}_{row.confidence:.3f}_{os.path.basename(row.path)}"
        assert (folder / row.link).is_symlink()
        assert (folder / row.link).resolve() == (data / row.path).resolve()
    assert collected.notes == []


def test_the_table_agrees_with_the_predictions(collect, evaluated):
    _, folder = collect()
    predictions = pd.read_csv(evaluated.folder / "evaluation/validation/predictions.csv").set_index("path")
    for row in pd.read_csv(folder / "errors.csv").itertuples():
        image = predictions.loc[row.path]
        for name in ("label", "verdict", "predicted_category", "fake_probability"):
            assert getattr(row, name) == image[name]
        assert row.verdict != "unsure" or row.mistake == "wrong-category"


def test_the_page_shows_the_images(collect):
    collected, folder = collect()
    text = (folder / "index.html").read_text()
    assert text.count("data:image/jpeg;base64,") == sum(collected.mistakes.values())
    assert f"Reals called fake ({collected.mistakes['real-called-fake']})" in text


def test_a_limit_keeps_the_first_of_each_kind_but_counts_all(collect):
    collected, folder = collect(limit=1)
    table = pd.read_csv(folder / "errors.csv")
    assert set(table["rank"]) == {1}
    assert sum(collected.shown.values()) == len(table) < sum(collected.mistakes.values())


def test_a_link_can_be_moved(collect, tmp_path):
    _, folder = collect(data=None)
    link = next((folder / "real-called-fake").iterdir())
    shutil.move(link, tmp_path / "feedback.jpg")
    assert (tmp_path / "feedback.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_images_whose_files_are_gone_are_written_from_the_records(collect, records, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    collected, folder = collect(data=tmp_path / "elsewhere")
    table = pd.read_csv(folder / "errors.csv")
    assert (collected.linked, collected.copied, collected.missing) == (0, table["path"].nunique(), 0)
    stored = dict(queries.encoded_images(records, "validation", set(table["path"])))
    for row in table.itertuples():
        assert not (folder / row.link).is_symlink()
        assert (folder / row.link).read_bytes() == stored[row.path]
    assert collected.notes == [
        f"{collected.copied} images not in {tmp_path / 'elsewhere'}, written from {records.folder}"
    ]


def test_images_that_are_not_found_are_listed_without_a_link(collect, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    collected, folder = collect(data=tmp_path / "elsewhere", records=tmp_path / "none")
    assert collected.missing == pd.read_csv(folder / "errors.csv")["path"].nunique()
    assert pd.read_csv(folder / "errors.csv")["link"].isna().all()
    assert [path.name for path in sorted(folder.iterdir())] == ["errors.csv", "index.html"]


def test_file_names_keep_within_the_limits_of_file_systems():
    assert error_analysis._name("a/photo.jpg", None) == "photo.jpg"
    assert error_analysis._name("a/scan.tif", b"\x89PNG\r\n\x1a\n") == "scan.tif.png"
    assert error_analysis._name("a/photo.JPG", b"\xff\xd8\xff") == "photo.JPG"
    long = error_analysis._name("\N{GREEK SMALL LETTER ALPHA}" * 120 + ".jpg", None)
    assert long.endswith("\N{GREEK SMALL LETTER ALPHA}.jpg")
    assert len(os.fsencode(long)) <= 120


def test_a_run_without_errors_says_so(collect, evaluated, tmp_path):
    right = changed(evaluated, tmp_path, lambda table: table.assign(verdict="unsure", true_category=""))
    collected, folder = collect(right)
    assert collected.mistakes == {"real-called-fake": 0, "fake-called-real": 0, "wrong-category": 0}
    assert len(pd.read_csv(folder / "errors.csv")) == 0
    assert "No verdict and no category is wrong." in (folder / "index.html").read_text()


# --- refused ---------------------------------------------------------------------------------------------------


def changed(run, folder, change):
    """A copy of the run with changed predictions."""
    copy = copy_run(run, folder)
    path = copy.folder / "evaluation/validation/predictions.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    return copy


def test_a_folder_is_replaced_only_with_overwrite_and_if_this_command_made_it(collect):
    _, folder = collect()
    with pytest.raises(ConfigError, match=r"errors exists; replace it with --overwrite, or choose another place"):
        collect()
    (folder / "old.txt").touch()
    collect(overwrite=True)
    assert not (folder / "old.txt").exists()
    (folder / "errors.csv").unlink()
    with pytest.raises(DataError, match="exists and was not made by this command"):
        collect(overwrite=True)
    assert (folder / "index.html").exists()


def test_a_split_that_was_not_evaluated_is_refused(collect):
    with pytest.raises(ConfigError, match=r"was not evaluated on holdout; do so with: ddk .* --split holdout$"):
        collect(split="holdout")


def test_predictions_of_another_version_are_refused(collect, evaluated, tmp_path):
    old = changed(evaluated, tmp_path / "a", lambda table: table.drop(columns=["source", "verdict"]))
    with pytest.raises(ConfigError, match=r"predictions.csv has no column source, verdict; evaluate again: ddk eva"):
        collect(old)
    (old.folder / "evaluation/validation/predictions.csv").write_text("")
    with pytest.raises(ConfigError, match=r"predictions.csv is damaged, evaluate again; do so with: ddk evaluate"):
        collect(old)
    other = copy_run(evaluated, tmp_path / "b")
    (other.folder / "evaluation/validation/metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"metrics.json has no field split; evaluate again: ddk evaluate --run"):
        collect(other)


def test_without_data_and_records_the_images_cannot_be_found(collect, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no records in .*none to say where the images are; give --records or --data"
    ):
        collect(records=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"none is not a folder; give the one that holds the images with --data"):
        collect(data=tmp_path / "none")


def test_later_changes_are_noted(collect, evaluated, records, tmp_path):
    copy = copy_run(evaluated, tmp_path)
    metrics = copy.folder / "evaluation/validation/metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"records": "0" * 64}))
    collected, _ = collect(copy.with_operating_point(type(copy.point)()))
    assert collected.notes == [
        "the thresholds have been fitted again since; for verdicts with them: ddk evaluate --split validation",
        "the split was evaluated on other records than these: images may have changed since",
    ]
