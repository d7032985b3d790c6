"""The regression set: adding corrected images and opening them as records."""

import csv
import logging
import shutil

import pytest
from tiny import encode, plant

from pipelines.exceptions import DataError
from pipelines.records import queries, regression_set

CLASSES = ["animals", "vehicles"]


@pytest.fixture
def feedback(tmp_path):
    """A folder of one real and two fake images, one of which has no class."""
    return plant(tmp_path / "feedback", {"real/animals": 1, "fake/vehicles": 1, "fake": 1})


@pytest.fixture
def folder(tmp_path):
    """The folder of the set."""
    return tmp_path / "set"


def rows(folder) -> dict[str, tuple]:
    """Label, class and source of each image in the table, by its original file name."""
    with (folder / "metadata.csv").open(newline="") as file:
        return {
            row["image_path"].partition("_")[2]: (row["label"], row["class"], row["source"])
            for row in csv.DictReader(file)
        }


def image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(seed=seed))
    return path


# --- adding ----------------------------------------------------------------------------------------------------


def test_files_are_copied_unchanged_with_label_and_class(feedback, folder):
    result = regression_set.add(folder, feedback, classes=CLASSES)
    assert (result["images"], result["labels"], result["added"]) == (3, {"real": 1, "fake": 2}, 3)
    with (folder / "metadata.csv").open(newline="") as file:
        table = {row["image_path"]: row for row in csv.DictReader(file)}
    labels = sorted((row["label"], row["class"]) for row in table.values())
    assert labels == [("fake", ""), ("fake", "vehicles"), ("real", "animals")]
    real = next(path for path, row in table.items() if row["label"] == "real")
    assert (folder / real).read_bytes() == (feedback / "real/animals/000.jpg").read_bytes()


def test_images_are_added_to_an_existing_set(feedback, folder, tmp_path):
    regression_set.add(folder, feedback)
    image(tmp_path / "more/fake/animals/gan/x.jpg", 7)
    result = regression_set.add(folder, tmp_path / "more")
    assert (result["images"], result["added"], result["unchanged"]) == (4, 1, 0)
    assert rows(folder)["x.jpg"] == ("fake", "animals", "gan")


def test_images_are_identified_by_their_bytes_not_their_names(feedback, folder, tmp_path):
    regression_set.add(folder, feedback)
    before = (folder / "metadata.csv").read_bytes()
    (tmp_path / "again/fake").mkdir(parents=True)
    shutil.copy(feedback / "fake/000.jpg", tmp_path / "again/fake/other.jpg")
    result = regression_set.add(folder, tmp_path / "again")
    assert (result["images"], result["added"], result["unchanged"], result["corrected"]) == (3, 0, 1, [])
    assert (folder / "metadata.csv").read_bytes() == before


def test_a_missing_image_is_restored(feedback, folder):
    regression_set.add(folder, feedback)
    before = (folder / "metadata.csv").read_bytes()
    lost = next(path for path in folder.rglob("*.jpg"))
    content = lost.read_bytes()
    lost.unlink()
    result = regression_set.add(folder, feedback)
    assert (result["images"], result["added"], result["unchanged"], result["corrected"]) == (3, 0, 3, [])
    assert lost.read_bytes() == content
    assert (folder / "metadata.csv").read_bytes() == before


def test_a_corrected_label_replaces_the_old_one_and_is_reported(folder, tmp_path):
    image(tmp_path / "first/fake/animals/gan/x.jpg", 1)
    regression_set.add(folder, tmp_path / "first")
    image(tmp_path / "second/real/y.jpg", 1)
    result = regression_set.add(folder, tmp_path / "second")
    assert (result["images"], result["added"], result["unchanged"]) == (1, 0, 0)
    (corrected,) = result["corrected"]
    assert (corrected["was"], corrected["now"]) == ("fake animals", "real animals")
    assert rows(folder) == {"x.jpg": ("real", "animals", "gan")}, "the class is kept, because the feedback has none"


def test_a_corrected_class_is_reported(folder, tmp_path):
    image(tmp_path / "first/fake/animals/x.jpg", 1)
    regression_set.add(folder, tmp_path / "first")
    image(tmp_path / "second/fake/vehicles/x.jpg", 1)
    (corrected,) = regression_set.add(folder, tmp_path / "second")["corrected"]
    assert (corrected["was"], corrected["now"]) == ("fake animals", "fake vehicles")


def test_links_are_followed(folder, tmp_path):
    (tmp_path / "feedback/fake").mkdir(parents=True)
    (tmp_path / "feedback/fake/001_0.987_x.jpg").symlink_to(image(tmp_path / "photos/x.jpg", 1))
    regression_set.add(folder, tmp_path / "feedback")
    (copied,) = (folder / "images").iterdir()
    assert not copied.is_symlink()
    assert copied.name.partition("_")[2] == "x.jpg", "its rank in an error analysis is not part of its name"
    assert copied.read_bytes() == (tmp_path / "photos/x.jpg").read_bytes()


def test_labels_can_come_from_a_table(folder, tmp_path):
    image(tmp_path / "feedback/x y,\N{GREEK SMALL LETTER ALPHA}.jpg", 1)
    row = '"x y,\N{GREEK SMALL LETTER ALPHA}.jpg",1,animals,flux/1\n'
    (tmp_path / "feedback/metadata.csv").write_text("image_path,label,class,source\n" + row)
    regression_set.add(folder, tmp_path / "feedback")
    assert rows(folder) == {"x_y__.jpg": ("fake", "animals", "flux/1")}


def test_files_that_are_not_images_are_quarantined_and_reported(feedback, folder):
    (feedback / "fake/junk.jpg").write_text("no image")
    (feedback / "fake/cut.jpg").write_bytes(encode()[:300])
    (feedback / "real/gone.jpg").symlink_to("nowhere.jpg")
    (feedback / "readme.txt").write_text("hello")
    result = regression_set.add(folder, feedback)
    assert (result["images"], result["added"]) == (3, 3)
    assert sorted((bad["path"], bad["reason"]) for bad in result["quarantined"]) == [
        ("fake/cut.jpg", "damaged or cut short JPEG"),
        ("fake/junk.jpg", "not an image in a known format"),
        ("real/gone.jpg", "No such file or directory"),
    ]
    assert result["notes"] == ["left out files outside the layout or not images: 1, such as readme.txt"]


def test_one_image_under_two_labels_is_refused_and_the_set_stays_unchanged(feedback, folder):
    regression_set.add(folder, feedback)
    before = sorted(path.name for path in folder.rglob("*"))
    shutil.copy(feedback / "fake/000.jpg", feedback / "real/copy.jpg")
    image(feedback / "real/new.jpg", 5)
    with pytest.raises(
        DataError, match=r"(fake/000|real/copy).jpg and .* are the same image under two labels or classes"
    ):
        regression_set.add(folder, feedback)
    assert sorted(path.name for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is not a folder; give the folder that holds the images"),
        (["x.jpg"], r"has no real/ and fake/ folders; it has no folders"),
        (["real/clip.mp4"], "holds no images"),
        (["train/real/x.jpg", "test/y.jpg"], r"test/y.jpg has no label; move it into real/ or fake/"),
        (
            ["fake/birds/x.jpg"],
            r"x.jpg is of the class birds, which the run does not have; its classes are animals, vehicles",
        ),
    ],
)
def test_feedback_that_cannot_be_added_is_a_one_line_error(folder, tmp_path, files, message):
    for number, path in enumerate(files):
        image(tmp_path / "feedback" / path, number)
    with pytest.raises(DataError, match=message):
        regression_set.add(folder, tmp_path / "feedback", classes=CLASSES)
    assert not folder.exists()


def test_feedback_without_a_readable_image_is_an_error(folder, tmp_path):
    image(tmp_path / "feedback/fake/x.jpg", 1).write_text("no image")
    with pytest.raises(DataError, match=r"no image in .*feedback can be read; the first is fake/x.jpg: not an image"):
        regression_set.add(folder, tmp_path / "feedback")


def test_a_folder_that_is_not_a_regression_set_is_left_alone(feedback, folder):
    plant(folder, {"fake": 1})
    with pytest.raises(DataError, match="exists and was not made by this command"):
        regression_set.add(folder, feedback)
    (folder / "metadata.csv").write_text("image_path,label,class\nfake/000.jpg,1,\n")
    with pytest.raises(DataError, match="holds other data, not a regression set; give another folder: --regress"):
        regression_set.add(folder, feedback)
    assert [path.name for path in (folder / "fake").iterdir()] == ["000.jpg"]


def test_rows_added_by_hand_are_not_lost_silently(feedback, folder):
    regression_set.add(folder, feedback)
    with (folder / "metadata.csv").open("a") as file:
        file.write("a.jpg,fake,,,\nb.jpg,fake,,,\n")
    with pytest.raises(DataError, match="lists images twice or without a sha256"):
        regression_set.add(folder, feedback)


# --- opening ---------------------------------------------------------------------------------------------------


def test_a_set_opens_as_records_with_one_split_and_the_classes_of_the_run(feedback, folder):
    regression_set.add(folder, feedback)
    with regression_set.open_as_records(folder, CLASSES) as records:
        assert records.categories == CLASSES
        assert records.labelled_splits == ["regression"]
        columns = queries.metadata(records, "regression")
        assert sorted(zip(columns["label"], columns["category"], strict=True)) == [(0, 0), (1, -1), (1, 1)]
        fingerprint = records.fingerprint
    with regression_set.open_as_records(folder, CLASSES) as records:
        assert records.fingerprint == fingerprint


def test_a_set_may_have_one_label_only(folder, tmp_path):
    regression_set.add(folder, plant(tmp_path / "feedback", {"fake": 1}))
    with regression_set.open_as_records(folder, []) as records:
        assert records.categories == []
        assert records.splits["regression"].labels == {"fake": 1}


def test_a_class_that_the_run_does_not_have_counts_as_none_and_is_logged(feedback, folder, caplog):
    caplog.set_level(logging.INFO)
    regression_set.add(folder, feedback)
    with regression_set.open_as_records(folder, ["vehicles"]) as records:
        columns = queries.metadata(records, "regression")
        assert sorted(zip(columns["label"], columns["category"], strict=True)) == [(0, -1), (1, -1), (1, 0)]
    assert f"{folder}: 1 image of animals, on which the run was not trained" in caplog.text


def test_a_missing_or_incomplete_set_is_a_one_line_error(feedback, folder):
    with (
        pytest.raises(DataError, match=r"no regression set in .*; make one with: ddk errors --feedback DIR"),
        regression_set.open_as_records(folder, []),
    ):
        pass
    regression_set.add(folder, feedback)
    first = next((folder / "images").iterdir())
    first.write_text("no image")
    with (
        pytest.raises(DataError, match=r"^1 image of .*set cannot be read any more; restore them"),
        regression_set.open_as_records(folder, []),
    ):
        pass
    first.unlink()
    with (
        pytest.raises(DataError, match=r"^1 image of .*set cannot be read any more; restore them"),
        regression_set.open_as_records(folder, []),
    ):
        pass
