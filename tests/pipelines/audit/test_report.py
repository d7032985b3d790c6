"""The audit as a whole: its findings, as numbers, sentences and a page."""

import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import encode, hash_of, plant

from ddkeras.cli import main
from ddkeras.reporting.audit_report import page
from pipelines.audit import report
from pipelines.datasets.layouts import read_layout
from pipelines.records.conversion import write_records
from pipelines.records.equalization import ResizeEqualiser
from pipelines.records.store import open_records

EQUALISE = (
    "give all images the same treatment, without scaling, with: ddk make-tfrecords DATA --equalise crop "
    "(or resize, for small images)"
)


def picture(seed: int, size: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def save(path, image: Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """Real JPEGs of 32 pixels and fake PNGs of 64; one copy, one contradiction, one near-duplicate, one bad file."""
    root = tmp_path_factory.mktemp("biased")
    for split, number in (("train", 20), ("validation", 6)):
        for index in range(number):
            seed = hash_of(f"{split}{index}")
            save(root / split / "real" / "cats" / f"{index}.jpg", picture(seed, 32), quality=90)
            save(root / split / "fake" / "cats" / f"{index}.png", picture(seed + 1, 64))
    train, validation = root / "train", root / "validation"
    (validation / "real/cats/copy.jpg").write_bytes((train / "real/cats/0.jpg").read_bytes())
    (validation / "fake/cats/<b>.png").write_bytes((train / "real/cats/1.jpg").read_bytes())
    save(validation / "fake/cats/near.png", Image.open(train / "fake/cats/2.png").resize((48, 48)))
    (train / "real/cats/bad \udcff.jpg").write_bytes(encode()[:-300])
    return root


@pytest.fixture(scope="module")
def fair(tmp_path_factory):
    """Files that differ in nothing but their pixels; a test split without labels."""
    counts = {f"{split}/{label}": 20 for split in ("train", "validation") for label in ("real", "fake")}
    return plant(tmp_path_factory.mktemp("fair"), counts | {"test": 2})


@pytest.fixture(scope="module")
def found(biased):
    seen = report.scan_folder(read_layout(biased))
    return seen, report.judge(seen)


def judged(folder, **options) -> dict:
    return report.judge(report.scan_folder(read_layout(folder)), **options)


def texts(result: dict) -> list[tuple[str, str]]:
    return [(finding["verdict"], re.split("[,;]", finding["text"])[0]) for finding in result["findings"]]


# --- findings --------------------------------------------------------------------------------------------------


def test_biased_data_fail_and_every_finding_has_a_remedy(found):
    _, result = found
    assert result["verdict"] == "fail"
    assert texts(result) == [
        ("fail", "file properties alone"),
        ("fail", "2 files labelled both real and fake"),
        ("fail", "2 images of validation (13.3%) also found in another split"),
        ("fail", "1 image of validation (6.7%) also found in another split"),
        ("warn", "file names alone tell fake from real: AUC 1.000 (95% interval 0.875 to 1.000)"),
        (
            "warn",
            "squash would make real images 7.0 times larger (quartiles 7.0 and 7.0) and fake images 3.5 times larger "
            "(quartiles 3.5 and 3.5)",
        ),
        ("warn", "there are fewer than 20 images in validation real cats"),
        ("warn", "1 file that cannot be read"),
    ]
    assert all(finding["remedy"] for finding in result["findings"])
    assert result["findings"][0]["remedy"] == EQUALISE
    assert result["findings"][1]["remedy"].endswith("ddk make-tfrecords DATA --drop-duplicates")
    file = next(row for row in result["shortcuts"] if row["group"] == "file")
    assert file["auc"] > 0.95
    assert "format" in [feature["name"] for feature in file["features"]]
    assert result["unreadable"] == {
        "images": 1,
        "first": [{"path": "train/real/cats/bad \udcff.jpg", "reason": "damaged or cut short JPEG"}],
    }


def test_fair_data_pass(fair):
    result = judged(fair)
    assert (result["verdict"], result["findings"]) == ("ok", [])
    assert (result["images"], result["sampled"]) == (82, 80)
    assert result["unreadable"] == {"images": 0, "first": []}


def test_the_thresholds_are_configurable(biased):
    result = judged(biased, fail=1.0)
    assert [row["verdict"] for row in result["shortcuts"] if row["group"] == "file"] == ["warn"]
    assert result["findings"][-1]["verdict"] == "warn"


def test_the_result_is_json_and_reproducible(biased, found):
    _, result = found
    assert json.loads(json.dumps(result)) == result
    assert judged(biased) == result


def without_contradiction(biased, folder):
    """A copy of the data that can be converted."""
    shutil.copytree(biased, folder)
    (folder / "validation/fake/cats/<b>.png").unlink()
    return folder


def test_records_give_the_result_of_their_folder(biased, tmp_path):
    layout = read_layout(without_contradiction(biased, tmp_path / "data"))
    write_records(layout, tmp_path / "records")
    records = open_records(tmp_path / "records")
    seen = report.scan_records(records)
    result = report.judge(seen)
    seen_folder = report.scan_folder(layout)
    of_folder = report.judge(seen_folder)
    assert result["shortcuts"] == of_folder["shortcuts"]
    assert result["leaks"] == of_folder["leaks"]
    assert result["views"] == of_folder["views"]
    assert (result["kind"], result["fingerprint"]) == ("records", records.fingerprint)
    assert result["unreadable"]["images"] == 0, "the file was quarantined"
    assert sorted(report.thumbnails(seen, result)) == sorted(report.thumbnails(seen_folder, of_folder))


def test_equalised_records_are_audited_without_file_size_and_their_copies_found(biased, tmp_path):
    layout = read_layout(without_contradiction(biased, tmp_path / "data"))
    write_records(layout, tmp_path / "records", equaliser=ResizeEqualiser(32))
    result = report.judge(report.scan_records(open_records(tmp_path / "records")))
    file = next(row for row in result["shortcuts"] if row["group"] == "file")
    assert file["verdict"] == "ok"
    assert (result["views"]["median_side"], result["views"]["verdict"]) == (32, "ok"), "as they are stored"
    assert result["balance"]["histograms"]["bytes_per_pixel"] is None
    assert result["leaks"]["exact_across_splits"]["images"] == {"validation": 1}
    assert result["notes"] == [
        "the images were equalised, each with a crop of its own: search the data folder for near-duplicates instead"
    ]


def test_images_that_squash_would_shrink_differently_are_a_warning(tmp_path):
    for index in range(20):
        save(tmp_path / f"train/real/{index}.jpg", picture(index, 120))
        save(tmp_path / f"train/fake/{index}.jpg", picture(index + 100, 90))
        save(tmp_path / f"validation/real/{index}.jpg", picture(index + 200, 40))
        save(tmp_path / f"validation/fake/{index}.jpg", picture(index + 300, 40))
    result = judged(tmp_path, image_size=32)
    found = next(finding for finding in result["findings"] if finding["text"].startswith("squash"))
    assert found == {
        "verdict": "warn",
        "text": "squash would make real images 3.8 times smaller (quartiles 3.8 and 3.8) and fake images 2.8 times "
        "smaller (quartiles 2.8 and 2.8), and this alone tells fake from real: AUC 1.000 (95% interval 0.839 to "
        "1.000)",
        "remedy": "train on windows, which are not scaled, with: ddk fit --view windows",
    }
    assert result["views"]["images"] == 40, "those of train"
    assert result["views"]["suggestion"] == "windows"
    as_large = judged(tmp_path, image_size=96)
    assert as_large["views"]["suggestion"] == "squash"
    found = next(finding for finding in as_large["findings"] if finding["text"].startswith("squash"))
    assert found["remedy"] == EQUALISE


def test_the_shorter_side_is_that_of_every_training_image_upright(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_SAMPLE", 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, label in product(("train", "validation"), ("real", "fake")):
        save(tmp_path / split / label / "wide.jpg", picture(1, 64).resize((96, 48)))
        save(tmp_path / split / label / "turned.jpg", picture(2, 64).resize((40, 80)), exif=exif)
    assert report.scan_folder(read_layout(tmp_path)).sides == {
        (label, side): 1 for label in (0, 1) for side in (48, 40)
    }


def test_records_of_a_test_split_alone_suggest_no_view(tmp_path):
    views = judged(plant(tmp_path, {"test/real": 2, "test/fake": 2}))["views"]
    assert (views["images"], views["suggestion"]) == (0, None)


def test_empty_and_tiny_cells_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "shortcuts", lambda *arguments, **options: [])  # takes seconds and is not needed here
    counts = {f"{split}/{label}/cats": 20 for split in ("train", "val") for label in ("real", "fake")}
    plant(tmp_path, counts | {"train/real/dogs": 20, "train/fake/dogs": 3, "val/real/dogs": 20})
    balance = judged(tmp_path)["balance"]
    assert balance["empty"] == [{"split": "validation", "label": "fake", "category": "dogs", "images": 0}]
    assert balance["tiny"] == [{"split": "train", "label": "fake", "category": "dogs", "images": 3}]
    assert {"split": "train", "label": "fake", "category": "dogs", "source": "", "images": 3} in balance["counts"]
    assert balance["formats"] == {"real": {"jpeg": 80}, "fake": {"jpeg": 43}}
    height = balance["histograms"]["height"]
    assert (height["edges"], height["real"], height["fake"]) == ([39.5, 40.5], [80], [43])


def test_a_histogram_of_integers_has_the_same_number_of_them_in_each_bin(found):
    bins = found[1]["balance"]["histograms"]["height"]
    assert (bins["low"], bins["high"]) == (32, 64)
    assert set(np.diff(bins["edges"])) == {2}
    assert sum(bins["real"]) == bins["real"][0] == 27
    assert sum(bins["fake"]) == 28


def test_a_sample_is_taken_evenly(fair, monkeypatch):
    monkeypatch.setattr(report, "_SAMPLE", 20)
    seen = report.scan_folder(read_layout(fair))
    assert len(seen.features) == 20
    assert Counter(row["label"] for row in seen.features)[0] in range(4, 17)
    assert seen.counts.total() == 82, "the others are counted, too"


def test_large_records_are_sent_to_workers_in_small_chunks(monkeypatch):
    monkeypatch.setattr(report, "_CHUNK_BYTES", 10)
    tasks = [report._Task(report.Example(str(n), 0), b"12345678") for n in range(5)]
    assert [len(chunk) for chunk in report._chunks(tasks, 5, 5)] == [2, 2, 1]


def test_progress_reaches_the_number_of_images(fair):
    calls = []
    report.scan_folder(read_layout(fair), progress=lambda *call: calls.append(call))
    assert calls[-1] == (82, 82)


# --- the quick part --------------------------------------------------------------------------------------------


def test_quick_warnings_are_one_sentence_for_each_shortcut(biased):
    first, second = report.quick_warnings(read_layout(biased))
    assert first.startswith("file properties alone, without the pixels, tell fake from real: AUC ")
    assert first.endswith(f"; {EQUALISE}")
    assert second.startswith("file names alone tell fake from real: AUC 1.000")


def test_fair_or_tiny_data_get_no_quick_warnings(fair, data):
    assert report.quick_warnings(read_layout(fair)) == []
    assert report.quick_warnings(read_layout(data)) == []


# --- the page --------------------------------------------------------------------------------------------------


class _Tags(HTMLParser):
    """The tags of a page, whether each is closed, and what it would load."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.loaded = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Such as <line/>: opened and closed at once."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(found):
    text = page(found[1], report.thumbnails(*found))
    tags = _Tags(text)
    assert tags.open == []
    assert len(tags.loaded) == 8, "both of four pairs"
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.loaded)
    assert not re.search(r"https?:|url\(|@import|<script", text)
    assert "prefers-color-scheme: dark" in text


def test_names_given_by_users_are_escaped(found):
    text = page(found[1] | {"data": "<i>&"}, {})
    assert "validation/fake/cats/&lt;b&gt;.png" in text
    assert "<title>Audit of &lt;i&gt;&amp;</title>" in text
    assert "no picture" in text


def test_the_page_states_the_verdict_also_without_findings(found, fair):
    assert "<code>ddk make-tfrecords DATA --drop-duplicates</code>" in page(found[1], {})
    text = page(judged(fair), {})
    assert "Nothing was found that lets a detector score well for the wrong reason." in text
    assert "No image was found twice" in text


def test_the_page_says_when_there_are_too_few_images(data):
    assert "too few images per class to measure" in page(judged(data), {})


def test_thumbnails_are_small_and_upright(found):
    made = report.thumbnails(*found)
    assert len(made) == 6
    for encoded in made.values():
        with Image.open(io.BytesIO(encoded)) as image:
            assert max(image.size) <= 160


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def ddk(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_passing_data_are_summed_up(ddk, fair, tmp_path):
    done = ddk("audit", fair)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "OK: nothing was found that lets a detector score well for the wrong reason"
    assert lines[1] == "shortcuts: AUC (95% interval) of classifiers that see no pixels, on 80 images"
    assert re.fullmatch(
        r"  fake or real: all 0\.\d{3}, file 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) ok, codec .*", lines[2]
    )
    assert lines[3:5] == [
        "view: squash; half of the training images have at most 40 pixels on their shorter side, less than twice the "
        "image size of 224, from where on windows are suggested",
        "  squash would make real images 5.6 times larger (quartiles 5.6 and 5.6) and fake images 5.6 times larger "
        "(quartiles 5.6 and 5.6)",
    ]
    assert re.fullmatch(
        r"  fake or real by this alone: AUC 0\.500 \(95% interval 0\.\d{3} to 0\.\d{3}\) ok", lines[5]
    )
    assert lines[6:] == [
        "leaks:",
        "  across splits: 0 byte for byte, 0 nearly",
        "  under both labels: 0",
        "  fakes beside the photo they were made from, which is not a leak: 0",
        "balance:",
        "  train: 20 real, 20 fake",
        "  validation: 20 real, 20 fake",
        "  test: 2 unlabelled",
        "See artifacts/audit/audit.html; all numbers are in artifacts/audit/audit.json",
    ]
    assert sorted(path.name for path in (tmp_path / "artifacts/audit").iterdir()) == ["audit.html", "audit.json"]


def test_failing_data_give_the_result_then_one_line_and_exit_code_1(ddk, biased, tmp_path):
    done = ddk("audit", biased)
    assert done.exit_code == 1
    assert done.stdout.startswith("FAIL: do not train on this data unchanged")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: file properties alone, without the pixels, tell fake from real: AUC ")
    assert line.endswith(EQUALISE)
    assert "Traceback" not in done.stderr
    assert (tmp_path / "artifacts/audit/audit.html").is_file()


def test_with_json_a_failure_is_the_whole_result_as_well(ddk, biased, tmp_path):
    done = ddk("audit", biased, "--json", "--output", "out")
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert (result["verdict"], result["folder"]) == ("fail", "out")
    assert json.loads((tmp_path / "out/audit.json").read_text()) == {
        name: value for name, value in result.items() if name != "folder"
    }
    assert "Error: " in done.stderr


def test_equalising_removes_the_shortcut(ddk, tmp_path):
    for split, number in (("train", 60), ("validation", 20)):
        for index in range(number):
            save(tmp_path / f"data/{split}/real/{index}.jpg", picture(index, 64), quality=90)
            save(tmp_path / f"data/{split}/fake/{index}.png", picture(index + 1000, 128))

    def file_row(*arguments) -> dict:
        result = json.loads(ddk("audit", *arguments, "--json").stdout.splitlines()[0])
        return next(row for row in result["shortcuts"] if row["group"] == "file")

    before = file_row("data")
    assert before["auc"] > 0.99
    assert before["verdict"] == "fail"
    assert ddk("make-tfrecords", "data", "--equalise").exit_code == 0
    after = file_row("artifacts/records", "--output", "after")
    assert after["low"] <= 0.5, "no better than chance; cross-validated on so few it may be worse"
    assert after["auc"] < 0.6
    assert after["verdict"] == "ok"


def test_by_default_the_records_of_make_tfrecords_are_audited(ddk, records, tmp_path):
    shutil.copytree(records.folder, tmp_path / "artifacts/records")
    result = json.loads(ddk("audit", "--json").stdout)
    assert (result["verdict"], result["kind"], result["data"]) == ("warn", "records", "artifacts/records")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "there are no records in artifacts/records; make them with: ddk make-tfrecords DATA"),
        (["nowhere"], "nowhere is not a folder; give the folder that holds the images"),
    ],
)
def test_a_mistake_is_reported_in_one_line(ddk, arguments, line):
    done = ddk("audit", *arguments)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"Error: {line}"


def test_a_foreign_folder_is_not_replaced(ddk, fair, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.txt").write_text("")
    done = ddk("audit", fair, "--output", "mine")
    assert "mine exists and was not made by this command" in done.stderr
    assert (tmp_path / "mine/photo.txt").exists()


def test_help_has_examples_and_thresholds(ddk):
    text = ddk("audit", "--help").stdout
    assert "ddk audit data/" in text
    assert "--json" in text
    assert "default: 0.75" in text
    assert "see ddk fit --image-size" in " ".join(text.split())


def test_the_image_size_decides_the_view(ddk, fair):
    result = json.loads(ddk("audit", fair, "--image-size", 32, "--json").stdout)
    assert (result["views"]["image_size"], result["views"]["median_side"]) == (32, 40)
    assert result["views"]["labels"]["fake"]["median"] == 1.25
    done = ddk("audit", fair, "--image-size", 8)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "Error: image_size must be between 32 and 2048, not 8"


@pytest.mark.slow
def test_nothing_leaks_in_real_data_and_no_face_is_mistaken_for_another(reference):
    result = judged(reference / "duel-mini")
    assert (result["images"], result["sampled"]) == (4776, 4077)
    assert result["verdict"] == "warn"
    assert {kind: found["images"] for kind, found in result["leaks"].items() if kind != "flat"} == {
        "exact_across_splits": {},
        "exact_across_labels": {},
        "near_across_splits": {},
        "near_across_labels": {},
    }
