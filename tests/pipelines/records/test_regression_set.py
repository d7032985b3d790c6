"""The regression set: what people corrected, kept and opened as records."""

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
    """A folder of one real and two fakes, one of them of no class."""
    return plant(tmp_path / "feedback", {"real/animals": 1, "fake/vehicles": 1, "fake": 1})


@pytest.fixture
def folder(tmp_path):
    """Where the set goes."""
    return tmp_path / "set"


def rows(folder) -> dict[str, tuple]:
    """What the table says of each image, by the name that its file had."""
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


def test_images_are_copied_as_they_are_with_label_and_class(feedback, folder):
    told = regression_set.add(folder, feedback, classes=CLASSES)
    assert (told["images"], told["labels"], told["added"]) == (3, {"real": 1, "fake": 2}, 3)
    with (folder / "metadata.csv").open(newline="") as file:
        table = {row["image_path"]: row for row in csv.DictReader(file)}
    found = sorted((row["label"], row["class"]) for row in table.values())
    assert found == [("fake", ""), ("fake", "vehicles"), ("real", "animals")]
    real = next(path for path, row in table.items() if row["label"] == "real")
    assert (folder / real).read_bytes() == (feedback / "real/animals/000.jpg").read_bytes()


def test_more_is_added_to_what_is_there(feedback, folder, tmp_path):
    regression_set.add(folder, feedback)
    image(tmp_path / "more/fake/animals/gan/x.jpg", 7)
    told = regression_set.add(folder, tmp_path / "more")
    assert (told["images"], told["added"], told["unchanged"]) == (4, 1, 0)
    assert rows(folder)["x.jpg"] == ("fake", "animals", "gan")


def test_an_image_is_known_by_its_bytes_whatever_its_name(feedback, folder, tmp_path):
    regression_set.add(folder, feedback)
    before = (folder / "metadata.csv").read_bytes()
    (tmp_path / "again/fake").mkdir(parents=True)
    shutil.copy(feedback / "fake/000.jpg", tmp_path / "again/fake/other.jpg")
    told = regression_set.add(folder, tmp_path / "again")
    assert (told["images"], told["added"], told["unchanged"], told["corrected"]) == (3, 0, 1, [])
    assert (folder / "metadata.csv").read_bytes() == before


def test_an_image_that_was_lost_is_put_back(feedback, folder):
    regression_set.add(folder, feedback)
    before = (folder / "metadata.csv").read_bytes()
    lost = next(path for path in folder.rglob("*.jpg"))
    content = lost.read_bytes()
    lost.unlink()
    told = regression_set.add(folder, feedback)
    assert (told["images"], told["added"], told["unchanged"], told["corrected"]) == (3, 0, 3, [])
    assert lost.read_bytes() == content
    assert (folder / "metadata.csv").read_bytes() == before


def test_a_corrected_label_takes_the_place_of_the_old_one_and_is_told(folder, tmp_path):
    image(tmp_path / "first/fake/animals/gan/x.jpg", 1)
    regression_set.add(folder, tmp_path / "first")
    image(tmp_path / "second/real/y.jpg", 1)
    told = regression_set.add(folder, tmp_path / "second")
    assert (told["images"], told["added"], told["unchanged"]) == (1, 0, 0)
    (corrected,) = told["corrected"]
    assert (corrected["was"], corrected["now"]) == ("fake animals", "real animals")
    assert rows(folder) == {"x.jpg": ("real", "animals", "gan")}, "the class was not said anew, and is kept"


def test_a_corrected_class_is_told(folder, tmp_path):
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
    assert copied.name.partition("_")[2] == "x.jpg", "its rank among some mistakes is not part of its name"
    assert copied.read_bytes() == (tmp_path / "photos/x.jpg").read_bytes()


def test_a_table_says_labels_as_well(folder, tmp_path):
    image(tmp_path / "feedback/x y,\N{GREEK SMALL LETTER ALPHA}.jpg", 1)
    row = '"x y,\N{GREEK SMALL LETTER ALPHA}.jpg",1,animals,flux/1\n'
    (tmp_path / "feedback/metadata.csv").write_text("image_path,label,class,source\n" + row)
    regression_set.add(folder, tmp_path / "feedback")
    assert rows(folder) == {"x_y__.jpg": ("fake", "animals", "flux/1")}


def test_what_is_no_image_is_left_out_and_told(feedback, folder):
    (feedback / "fake/junk.jpg").write_text("no image")
    (feedback / "fake/cut.jpg").write_bytes(encode()[:300])
    (feedback / "real/gone.jpg").symlink_to("nowhere.jpg")
    (feedback / "readme.txt").write_text("hello")
    told = regression_set.add(folder, feedback)
    assert (told["images"], told["added"]) == (3, 3)
    assert sorted((bad["path"], bad["reason"]) for bad in told["quarantined"]) == [
        ("fake/cut.jpg", "damaged or cut short JPEG"),
        ("fake/junk.jpg", "not an image in a known format"),
        ("real/gone.jpg", "No such file or directory"),
    ]
    assert told["notes"] == ["left out 1 files outside the layout or not images, such as readme.txt"]


def test_one_image_under_two_labels_is_refused_and_nothing_is_changed(feedback, folder):
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
        (["x.jpg"], r"has no real/ and fake/ folders; expected \{train"),
        (["real/readme.txt"], "holds no images"),
        (["train/real/x.jpg", "test/y.jpg"], r"test/y.jpg has no label; move it into real/ or fake/"),
        (
            ["fake/birds/x.jpg"],
            r"x.jpg is of the class birds, which the run does not have; its classes are animals, vehicles",
        ),
    ],
)
def test_what_cannot_be_added_is_one_line(folder, tmp_path, files, message):
    for number, path in enumerate(files):
        image(tmp_path / "feedback" / path, number)
    with pytest.raises(DataError, match=message):
        regression_set.add(folder, tmp_path / "feedback", classes=CLASSES)
    assert not folder.exists()


def test_feedback_of_which_nothing_can_be_read_is_an_error(folder, tmp_path):
    image(tmp_path / "feedback/fake/x.jpg", 1).write_text("no image")
    with pytest.raises(DataError, match=r"no image in .*feedback can be read; the first is fake/x.jpg: not an image"):
        regression_set.add(folder, tmp_path / "feedback")


def test_a_folder_of_somebody_elses_is_left_alone(feedback, folder):
    plant(folder, {"fake": 1})
    with pytest.raises(DataError, match="exists and was not made by this command"):
        regression_set.add(folder, feedback)
    (folder / "metadata.csv").write_text("image_path,label,class\nfake/000.jpg,1,\n")
    with pytest.raises(DataError, match="holds other data, not a regression set; give another folder: --regress"):
        regression_set.add(folder, feedback)
    assert [path.name for path in (folder / "fake").iterdir()] == ["000.jpg"]


def test_rows_put_in_by_hand_are_not_lost_silently(feedback, folder):
    regression_set.add(folder, feedback)
    with (folder / "metadata.csv").open("a") as file:
        file.write("a.jpg,fake,,,\nb.jpg,fake,,,\n")
    with pytest.raises(DataError, match="lists images twice or without a sha256"):
        regression_set.add(folder, feedback)


# --- opening ---------------------------------------------------------------------------------------------------


def test_it_opens_as_records_with_one_split_and_the_classes_of_the_run(feedback, folder):
    regression_set.add(folder, feedback)
    with regression_set.open_as_records(folder, CLASSES) as records:
        assert records.categories == CLASSES
        assert records.labelled_splits == ["regression"]
        facts = queries.metadata(records, "regression")
        assert sorted(zip(facts["label"], facts["category"], strict=True)) == [(0, 0), (1, -1), (1, 1)]
        fingerprint = records.fingerprint
    with regression_set.open_as_records(folder, CLASSES) as records:
        assert records.fingerprint == fingerprint


def test_one_label_alone_is_enough(folder, tmp_path):
    regression_set.add(folder, plant(tmp_path / "feedback", {"fake": 1}))
    with regression_set.open_as_records(folder, []) as records:
        assert records.categories == []
        assert records.splits["regression"].labels == {"fake": 1}


def test_a_class_that_the_run_does_not_have_is_none_and_is_told(feedback, folder, caplog):
    caplog.set_level(logging.INFO)
    regression_set.add(folder, feedback)
    with regression_set.open_as_records(folder, ["vehicles"]) as records:
        facts = queries.metadata(records, "regression")
        assert sorted(zip(facts["label"], facts["category"], strict=True)) == [(0, -1), (1, -1), (1, 0)]
    assert f"{folder}: 1 images are of animals, on which the run was not trained" in caplog.text


def test_a_set_that_is_not_there_or_not_whole_is_one_line(feedback, folder):
    with (
        pytest.raises(DataError, match=r"no regression set in .*; make one with: ddk errors --feedback DIR"),
        regression_set.open_as_records(folder, []),
    ):
        pass
    regression_set.add(folder, feedback)
    first = next((folder / "images").iterdir())
    first.write_text("no image")
    with (
        pytest.raises(DataError, match=r"1 images of .*set cannot be read any more; restore them"),
        regression_set.open_as_records(folder, []),
    ):
        pass
    first.unlink()
    with (
        pytest.raises(DataError, match=r"names 1 of 3 files that do not exist, the first images/"),
        regression_set.open_as_records(folder, []),
    ):
        pass
