"""Conversion: bad files, other formats, interruptions and workers."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny import encode, plant

from pipelines.datasets.layouts import read_layout
from pipelines.exceptions import DataError
from pipelines.media.headers import UnreadableError, read_file
from pipelines.records import queries
from pipelines.records.conversion import write_records
from pipelines.records.store import open_records

DDK = Path(sys.executable).with_name("ddk")


def stored(folder: Path, split: str = "train") -> dict[str, dict]:
    """The records of a split by path, each a dict of its fields."""
    fields_by_path = {}
    for serialised in tf.data.TFRecordDataset(open_records(folder).splits[split].files).as_numpy_iterator():
        fields = {
            name: (value.bytes_list.value or value.int64_list.value)[0]
            for name, value in tf.train.Example.FromString(serialised).features.feature.items()
        }
        fields_by_path[os.fsdecode(fields["path"])] = fields
    return fields_by_path


def quarantine(folder: Path) -> dict[str, str]:
    with (folder / "quarantine.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def photos(data, tmp_path) -> Path:
    """A copy of `data` that a test may change."""
    return shutil.copytree(data, tmp_path / "data")


def convert(photos: Path, **options) -> Path:
    folder = photos.parent / "records"
    manifest = write_records(read_layout(photos), folder, **{"max_bad": 1} | options)
    assert manifest["read"] == manifest["written"] + manifest["quarantined"]
    return folder


# --- bad files -------------------------------------------------------------------------------------------------


def header_of(width: int, height: int) -> bytes:
    """A truncated PNG whose header has these dimensions."""
    encoded = bytearray(encode("PNG"))
    encoded[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    encoded[29:33] = zlib.crc32(encoded[12:29]).to_bytes(4, "big")
    return bytes(encoded)


def test_a_class_of_which_no_image_in_train_can_be_read_is_an_error(photos):
    bad = sorted((photos / "train").glob("*/vehicles/*"))
    for path in bad:
        path.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"such as train/\w+/vehicles/.*; now the class vehicles occurs in validation only"
    ):
        convert(photos)
    assert not (photos.parent / "records").exists()


def test_a_class_of_which_no_image_in_test_can_be_read_is_noted(photos):
    shutil.copytree(photos / "validation", photos / "test", dirs_exist_ok=True)
    for path in (photos / "test").glob("*/vehicles/*"):
        path.write_bytes(b"no image")
    notes: list[str] = []
    convert(photos, note=notes.append)
    assert [note.partition(":")[0] for note in notes] == ["no image of the class vehicles is left in test"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("cut.jpg", encode()[:-300], "damaged or cut short JPEG"),
        ("cut.png", encode("PNG")[:-300], "damaged or cut short PNG"),
        ("page.jpg", b"<html><body>404</body></html>", "not an image in a known format"),
        (
            "vast.png",
            header_of(30_000, 30_000),
            "30000 x 30000 pixels, more than 100,000,000; --max-pixels allows more",
        ),
        (
            "large.png",
            header_of(12_000, 9_000),
            "12000 x 9000 pixels, more than 100,000,000; --max-pixels allows more",
        ),
    ],
)
def test_a_bad_file_is_quarantined_with_its_reason(photos, name, content, reason):
    (photos / "train/real/animals" / name).write_bytes(content)
    assert quarantine(convert(photos)) == {f"train/real/animals/{name}": reason}


def test_without_verification_only_files_without_a_header_are_quarantined(photos):
    (photos / "train/real/animals/cut.jpg").write_bytes(encode()[:-300])
    (photos / "train/real/animals/page.jpg").write_bytes(b"<html>")
    folder = convert(photos, verify=False)
    assert list(quarantine(folder)) == ["train/real/animals/page.jpg"]
    assert stored(folder)["train/real/animals/cut.jpg"]["height"] == 40


def test_verification_does_not_change_the_records(photos, records):
    with_exif = Image.Exif()
    with_exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(photos / "train/real/animals/turned.jpg", exif=with_exif)
    quick, checked = (contents(shutil.copytree(convert(photos, verify=v), photos.parent / str(v))) for v in (0, 1))
    assert quick == checked
    assert stored(photos.parent / "records")["train/real/animals/turned.jpg"]["height"] == 30


def test_a_file_without_permission_is_quarantined(photos):
    (photos / "train/real/animals/000.jpg").chmod(0)
    command = [DDK, "make-tfrecords", photos, "--output", photos.parent / "records"]
    if os.access(photos / "train/real/animals/000.jpg", os.R_OK):  # this user can read everything
        command = ["unshare", "--user", *command]  # without these rights
        if subprocess.run(["unshare", "--user", "true"], check=False).returncode:
            pytest.skip("needs a user who cannot read everything")
    subprocess.run(command, check=True)
    assert quarantine(photos.parent / "records") == {"train/real/animals/000.jpg": "Permission denied"}


def test_broken_and_circular_links_are_quarantined(photos):
    (photos / "train/real/animals/gone.jpg").symlink_to("nowhere")
    (photos / "train/real/animals/loop.jpg").symlink_to("loop.jpg")
    assert quarantine(convert(photos)) == {
        "train/real/animals/gone.jpg": "No such file or directory",
        "train/real/animals/loop.jpg": "Too many levels of symbolic links",
    }


def test_a_file_that_a_table_names_but_does_not_exist_is_quarantined(tmp_path):
    photos = plant(tmp_path / "data", {"train": 2, "val": 2})
    rows = "train/000.jpg,0\ntrain/001.jpg,1\nval/000.jpg,0\nval/001.jpg,1\ntrain/gone.jpg,0\n"
    (photos / "metadata.csv").write_text("image_path,label\n" + rows)
    assert quarantine(convert(photos)) == {"train/gone.jpg": "No such file or directory"}


def test_the_same_file_under_both_labels_is_refused(photos):
    for name in ("001.jpg", "000.jpg"):
        shutil.copy(photos / "train/real/animals" / name, photos / "validation/fake/vehicles" / f"copy_{name}")
    message = (
        "train/real/animals/000.jpg and validation/fake/vehicles/copy_000.jpg are the same file, labelled both real "
        r"and fake \(2 such in all\); remove the wrong ones, or leave all of them out with --drop-duplicates"
    )
    with pytest.raises(DataError, match=message):
        convert(photos)
    assert not (photos.parent / "records").exists()


def test_a_huge_file_is_not_read(photos):
    with (photos / "train/real/animals/vast.jpg").open("wb") as file:
        file.truncate(2**40)  # sparse, takes no space
    assert quarantine(convert(photos)) == {"train/real/animals/vast.jpg": "more than 512 MiB"}
    with pytest.raises(UnreadableError, match="more than 512 MiB"):  # as the audit and the common size read it
        read_file(photos / "train/real/animals/vast.jpg")


def test_a_named_pipe_does_not_block(photos):
    os.mkfifo(photos / "train/real/animals/pipe.jpg")
    assert quarantine(convert(photos)) == {"train/real/animals/pipe.jpg": "not a file"}


def test_a_file_that_vanishes_or_changes_during_the_conversion_is_quarantined(photos):
    layout = read_layout(photos)
    (photos / "train/real/animals/000.jpg").unlink()
    (photos / "train/real/animals/001.jpg").write_bytes(encode(seed=5))
    os.utime(photos / "train/real/animals/001.jpg", ns=(1, 1))
    write_records(layout, photos.parent / "records", max_bad=1)
    assert quarantine(photos.parent / "records") == {
        "train/real/animals/000.jpg": "No such file or directory",
        "train/real/animals/001.jpg": "the file changed during the conversion; convert again",
    }


def test_file_names_may_contain_any_bytes(photos):
    folder = os.fsencode(photos / "train/real/animals")
    names = [b"two words.jpg", b"two\nlines.jpg", "\N{CAMERA}.jpg".encode(), b"\xff\xfe not utf-8.jpg", b"a,'\".jpg"]
    for name in names:
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(encode())
    Path(os.fsdecode(os.path.join(folder, b"\xff bad.jpg"))).write_bytes(b"")
    records = convert(photos)
    assert {os.fsdecode(b"train/real/animals/" + name) for name in names} <= stored(records).keys()
    assert quarantine(records) == {os.fsdecode(b"train/real/animals/\xff bad.jpg"): "the file is empty"}
    assert set(queries.metadata(open_records(records), "train")["path"]) == stored(records).keys()


def test_a_class_folder_whose_name_is_not_utf8_becomes_text(tmp_path):
    for split in ("train", "val"):
        for label in ("real", "fake"):
            folder = Path(os.fsdecode(os.fsencode(tmp_path / "data" / split / label) + b"/caf\xe9"))
            folder.mkdir(parents=True)
            (folder / "a.jpg").write_bytes(encode(seed=int(label == "fake")))
    write_records(read_layout(tmp_path / "data"), tmp_path / "records")
    assert open_records(tmp_path / "records").categories == ["caf\N{REPLACEMENT CHARACTER}"]


def test_files_that_differ_only_in_their_extension_are_separate_records(photos):
    shutil.copy(photos / "train/real/animals/000.jpg", photos / "train/real/animals/000.png")
    fields_by_path = stored(convert(photos))
    assert (
        fields_by_path["train/real/animals/000.png"]["image"] == fields_by_path["train/real/animals/000.jpg"]["image"]
    )
    assert fields_by_path["train/real/animals/000.png"]["format"] == b"jpeg", "told by content, not by name"


def test_one_bad_file_stops_the_conversion_if_so_asked(photos):
    (photos / "train/real/animals/cut.jpg").write_bytes(encode()[:-300])
    with pytest.raises(
        DataError, match=r"train/real/animals/cut.jpg: damaged or cut short JPEG; without --on-bad fail"
    ):
        convert(photos, on_bad="fail")
    assert not (photos.parent / "records").exists()


def test_too_many_bad_files_are_an_error_and_finished_shards_are_reused(photos):
    for index in range(3):
        (photos / f"train/real/animals/bad{index}.jpg").write_bytes(b"x")
    message = (
        "3 of 42 images cannot be read, more than 5%; the first is train/real/animals/bad.*--max-bad 0.08 accepts"
    )
    with pytest.raises(DataError, match=message):
        convert(photos, max_bad=0.05)
    (unfinished,) = photos.parent.glob(".records-unfinished/*/records/*train*")
    made = unfinished.stat().st_mtime_ns
    folder = convert(photos, max_bad=0.08)
    assert (folder / unfinished.name).stat().st_mtime_ns == made


# --- other formats ---------------------------------------------------------------------------------------------


def test_files_that_tensorflow_cannot_decode_are_transcoded_to_png(photos):
    folder = photos / "train/real/animals"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "scan.tiff")
    Image.fromarray(pixels[:1, :1]).save(folder / "dot.png")
    Image.fromarray((pixels[..., 0].astype(np.uint16) << 8) + 7).save(folder / "deep.png")
    frames = [Image.new("RGB", (8, 6), (shade,) * 3) for shade in (10, 200)]
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (folder / "disguised.jpg").write_bytes(encode("WEBP"))
    fields_by_path = stored(convert(photos))
    for name, kind, stored_as, shape in (
        ("scan.tiff", b"tiff", b"transcoded", (20, 30)),
        ("dot.png", b"png", b"as found", (1, 1)),
        ("deep.png", b"png", b"transcoded", (20, 30)),
        ("moving.webp", b"webp", b"transcoded", (6, 8)),
        ("disguised.jpg", b"webp", b"as found", (40, 40)),
    ):
        record = fields_by_path[f"train/real/animals/{name}"]
        assert (record["format"], record["stored"], record["height"], record["width"]) == (kind, stored_as, *shape)
    np.testing.assert_array_equal(tf.io.decode_png(fields_by_path["train/real/animals/scan.tiff"]["image"]), pixels)


# --- workers ---------------------------------------------------------------------------------------------------

PRELOADED = """
import sys
from pipelines.parallel import worker_pool
from pipelines.records import conversion
conversion.start_workers()
with worker_pool(1) as pool:
    is_loaded = pool.submit(eval, "'pipelines.records.shard_writer' in __import__('sys').modules").result()
print(is_loaded, "tensorflow" in sys.modules)
"""


def test_the_shard_writer_is_preloaded_in_workers_and_not_in_the_main_process():
    done = subprocess.run([sys.executable, "-c", PRELOADED], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


# --- interrupted and concurrent conversions ----------------------------------------------------------------------


def test_the_number_of_workers_does_not_change_the_bytes(tmp_path):
    data = plant(tmp_path / "data", {f"{s}/{x}": 550 for s in ("train", "val") for x in ("real", "fake")})
    for workers in (1, 3):
        write_records(read_layout(data), tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert len(open_records(tmp_path / "1").splits["train"].files) == 4


def interrupt(photos: Path) -> None:
    """Convert, and stop after the first shard."""

    class StopError(Exception):
        pass

    def stop_after_the_first(done, total):
        if done < total:
            raise StopError

    with pytest.raises(StopError):
        convert(photos, workers=1, progress=stop_after_the_first)


def test_an_interrupted_conversion_continues_and_keeps_finished_shards(photos):
    interrupt(photos)
    finished = {path.name: path.stat().st_mtime_ns for path in photos.parent.glob(".records-unfinished/*/records/*")}
    assert finished
    notes = []
    folder = convert(photos, note=notes.append)
    assert notes == ["continuing a conversion that was interrupted"]
    assert all((folder / name).stat().st_mtime_ns == made for name, made in finished.items())
    assert contents(folder) == contents(convert(photos))
    assert [path.name for path in photos.parent.iterdir() if path.name[0] == "."] == []


def test_a_conversion_starts_over_if_files_have_changed_since_the_interruption(photos):
    interrupt(photos)
    (photos / "train/real/animals/bad.jpg").write_bytes(b"")
    notes = []
    folder = convert(photos, max_bad=1, note=notes.append)
    assert notes == ["a conversion was interrupted, but files or options have changed since: starting over"]
    assert list(quarantine(folder)) == ["train/real/animals/bad.jpg"]


def test_a_refused_conversion_was_not_interrupted(photos):
    (photos / "train/real/animals/bad.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="--max-bad"):
        convert(photos, max_bad=0)
    written = [path.stat().st_mtime_ns for path in photos.parent.glob(".records-unfinished/*/records/*tfrecord*")]
    notes = []
    folder = convert(photos, max_bad=1, note=notes.append)
    assert notes == []
    assert sorted(path.stat().st_mtime_ns for path in folder.glob("*tfrecord*")) == sorted(written), "none is redone"
    with pytest.raises(DataError, match="on-bad"):
        convert(photos, on_bad="fail")
    (photos / "train/real/animals/bad.jpg").unlink()
    assert quarantine(convert(photos, note=notes.append)) == {}
    assert notes == []
    assert [path.name for path in photos.parent.iterdir() if path.name[0] == "."] == []


def test_two_conversions_into_one_folder_at_the_same_time_are_refused(photos):
    layout, refused = read_layout(photos), []

    def meanwhile(done, total):
        with pytest.raises(DataError, match=r"another process is writing .*records; wait for it, or write elsewhere"):
            write_records(layout, photos.parent / "records")
        refused.append(done)

    convert(photos, progress=meanwhile)
    assert refused


@pytest.mark.slow
def test_a_killed_conversion_leaves_complete_shards_and_the_next_call_finishes(tmp_path):
    """Twenty times: SIGKILL to `ddk` (every other time also to its workers), check the remains, and continue."""
    data = plant(tmp_path / "data", {f"{s}/{x}": 2100 for s in ("train", "val") for x in ("real", "fake")})
    command = [DDK, "make-tfrecords", data, "--output"]
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    whole = contents(tmp_path / "whole")
    chance, interrupted = random.Random(0), 0
    for attempt in range(20):
        folder, work = tmp_path / f"records{attempt}", tmp_path / f".records{attempt}-unfinished"
        process = subprocess.Popen(
            [*command, folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and not list(work.glob("*/stats/*")):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 1.5))
        if attempt % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        interrupted += process.wait() == -signal.SIGKILL
        for path in work.glob("*/records/*tfrecord*"):
            assert path.read_bytes() == whole[path.name]
        if folder.exists():
            assert contents(folder) == whole
        subprocess.run([*command, folder], check=True, capture_output=True)
        assert contents(folder) == whole
        assert not work.exists()
        shutil.rmtree(folder)
    assert interrupted >= 15
