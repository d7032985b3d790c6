"""Images that occur twice, exactly or nearly."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from tiny import encode, plant

from pipelines.audit.duplicates import Duplicates, Fingerprint, duplicates_to_drop, fingerprint, near_pairs
from pipelines.datasets.examples import Example
from pipelines.datasets.layouts import read_layout
from pipelines.media.headers import UnreadableError


def picture(seed: int, size: int = 96) -> Image.Image:
    """A picture with large shapes, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def alike(first: bytes, second: bytes) -> bool:
    """Whether two encoded images are found to be near-duplicates."""
    found = Duplicates()
    found.add(
        (Example(split, split=split), fingerprint(encoded)) for split, encoded in (("train", first), ("test", second))
    )
    return bool(found.report()["near_across_splits"]["images"])


# --- fingerprints ----------------------------------------------------------------------------------------------

PHOTO = picture(1, 200)


@pytest.mark.parametrize(
    "copy",
    [
        saved(PHOTO, "PNG"),
        saved(PHOTO, quality=20),
        saved(PHOTO.resize((66, 66))),
        saved(PHOTO.resize((900, 900), Image.Resampling.BICUBIC)),
        saved(PHOTO.resize((300, 200), Image.Resampling.BICUBIC)),
        saved(PHOTO.convert("L")),
        saved(PHOTO.convert("CMYK")),
        saved(PHOTO.convert("RGBA"), "WEBP", quality=60),
        saved(PHOTO.point(lambda value: 0.8 * value + 20)),
        saved(PHOTO, "TIFF"),
    ],
    ids=["png", "quality 20", "a third", "larger", "wider", "grey", "CMYK", "WebP", "duller", "TIFF"],
)
def test_a_reencoded_copy_is_recognized(copy):
    assert alike(saved(PHOTO), copy)


def test_another_picture_a_reflection_and_a_crop_are_not_copies():
    for other in (picture(2), PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT), PHOTO.crop((40, 40, 200, 200))):
        assert not alike(saved(PHOTO), saved(other))


def test_exif_orientation_makes_no_difference():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = PHOTO.transpose(Image.Transpose.ROTATE_90)
    assert alike(saved(PHOTO), saved(turned, exif=exif))
    assert not alike(saved(PHOTO), saved(turned))
    assert not alike(saved(PHOTO), saved(turned, "PNG", exif=exif)), "TensorFlow does not turn PNGs"


def test_sixteen_bits_have_the_descriptor_of_eight():
    grey = PHOTO.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) << 8)
    assert fingerprint(saved(grey, "PNG")).descriptor == fingerprint(saved(deep, "PNG")).descriptor


def test_a_flat_image_has_no_descriptor_but_a_hash():
    found = fingerprint(saved(Image.new("RGB", (50, 50), "white")))
    assert found.descriptor == b""
    assert len(found.sha256) == 32


@pytest.mark.parametrize("encoded", [b"", b"<html>", saved(PHOTO)[:2000], saved(PHOTO, "PNG")[:200]])
def test_an_undecodable_file_is_refused(encoded):
    with pytest.raises(UnreadableError):
        fingerprint(encoded)


# --- the index -------------------------------------------------------------------------------------------------


def pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for first, second in near_pairs(hashes) for a, b in zip(first, second, strict=True)]


def brute_force_pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Near pairs by comparing all pairs."""
    numbers = hashes.tolist()
    return [(a, b) for b in range(len(numbers)) for a in range(b) if (numbers[a] ^ numbers[b]).bit_count() <= 6]


@pytest.mark.parametrize("seed", range(8))
def test_the_index_finds_each_pair_that_brute_force_finds_once(seed):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, 300, dtype=np.uint64).tolist()
    for _ in range(200):  # neighbours at distances 0 to 9, also of neighbours
        bits = random.choice(64, random.integers(0, 10), replace=False).tolist()
        hashes[random.integers(300)] = hashes[random.integers(300)] ^ sum(1 << bit for bit in bits)
    hashes = np.array(hashes, np.uint64)
    assert sorted(pairs(hashes)) == sorted(brute_force_pairs(hashes))
    assert len(pairs(hashes)) > 50


def test_six_differing_bits_are_near_and_seven_are_not():
    random = np.random.default_rng(0)
    for _ in range(300):
        bits = [1 << int(bit) for bit in random.choice(64, 7, replace=False)]
        first = int(random.integers(0, 2**63))
        assert pairs(np.array([first, first ^ sum(bits[:6])], np.uint64)) == [(0, 1)]
        assert pairs(np.array([first, first ^ sum(bits)], np.uint64)) == []


@pytest.mark.parametrize("hashes", [[], [7]])
def test_none_and_one_have_no_pairs(hashes):
    assert pairs(np.array(hashes, np.uint64)) == []


def test_equal_hashes_are_pairs():
    assert sorted(pairs(np.array([5, 5, 2**60 - 1, 5], np.uint64))) == [(0, 1), (0, 3), (1, 3)]


def test_a_hundred_thousand_hashes_take_far_fewer_than_all_comparisons():
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[7] = hashes[70_000] ^ np.uint64(0b111)
    start = time.process_time()
    assert (7, 70_000) in pairs(hashes)
    assert time.process_time() - start < 20  # half a second when this was written; all pairs take minutes


# --- duplicates ------------------------------------------------------------------------------------------------

REAL, FAKE, NONE = 0, 1, -1


def descriptor(seed: int, *flipped: int) -> bytes:
    """A descriptor whose 256 frequencies are equally strong; those in `flipped` have the opposite sign.

    Descriptors of one seed that differ in n of them have a correlation of 1 - n / 128: 8 are near, 9 are not.
    """
    random = np.random.default_rng(seed)
    coarse, fine = random.bytes(8), random.choice(np.array([-100, 100], np.int8), 256)
    fine[list(flipped)] *= -1
    return coarse + fine.tobytes()


def duplicates(*images: tuple[str, int, bytes, bytes]) -> Duplicates:
    """Of images given as path, label, content and descriptor; the split is the first folder."""
    made = Duplicates()
    made.add((Example(path, label, split=path.split("/")[0]), Fingerprint(*rest)) for path, label, *rest in images)
    return made


def numbers(found: Duplicates) -> dict:
    return {kind: pairs["images"] for kind, pairs in found.report().items() if kind != "flat"}


NOTHING = {
    "exact_across_splits": {},
    "exact_across_labels": {},
    "near_across_splits": {},
    "near_across_labels": {},
}


def test_different_images_leak_nothing():
    found = duplicates(*[(f"train/{n}", n % 2, b"%d" % n, descriptor(n)) for n in range(20)])
    assert numbers(found) == NOTHING
    assert found.to_drop() == []
    assert numbers(Duplicates()) == NOTHING


def test_copies_across_splits_are_counted_in_the_later_and_dropped_in_the_earlier():
    found = duplicates(
        ("train/a", REAL, b"1", descriptor(1)),
        ("train/b", REAL, b"1", descriptor(1)),
        ("validation/a", REAL, b"1", descriptor(1)),
        ("test/a", NONE, b"1", descriptor(1)),
        ("test/b", FAKE, b"2", descriptor(2)),
    )
    assert numbers(found) == NOTHING | {"exact_across_splits": {"validation": 1, "test": 1}}
    assert found.report()["exact_across_splits"]["pairs"][0] == {
        "similarity": 1.0,
        "a": {"path": "train/a", "split": "train", "label": "real"},
        "b": {"path": "test/a", "split": "test", "label": ""},
    }
    assert found.to_drop() == [(path, "a copy of test/a") for path in ("train/a", "train/b", "validation/a")]


def test_copies_in_one_split_are_no_leak_but_one_is_kept():
    found = duplicates(*[(f"train/{name}", REAL, b"1", descriptor(1)) for name in ("c", "a", "\udce9")])
    assert numbers(found) == NOTHING
    assert found.to_drop() == [("train/c", "a copy of train/a"), ("train/\udce9", "a copy of train/a")]
    odd = duplicates(("train/a", REAL, b"1", b""), ("test/\udce9", REAL, b"1", b""))
    assert odd.to_drop() == [("train/a", "a copy of test/\udce9")]


def test_of_a_file_under_both_labels_every_labelled_copy_is_dropped():
    found = duplicates(
        ("train/a", REAL, b"1", descriptor(1)),
        ("train/b", FAKE, b"1", descriptor(1)),
        ("train/c", FAKE, b"1", descriptor(1)),
        ("test/a", NONE, b"1", descriptor(1)),
    )
    assert numbers(found) == NOTHING | {
        "exact_across_labels": {"real": 1, "fake": 2},
        "exact_across_splits": {"test": 1},
    }
    reason = "the same file is labelled both real and fake"
    assert found.to_drop() == [("train/a", reason), ("train/b", reason), ("train/c", reason)]


def test_an_unlabelled_copy_contradicts_no_label():
    found = duplicates(("test/a", NONE, b"1", descriptor(1)), ("test/b", FAKE, b"1", descriptor(1)))
    assert numbers(found) == NOTHING


def test_near_duplicates_across_splits_leak_and_the_one_in_train_is_dropped():
    found = duplicates(
        ("train/a", REAL, b"1", descriptor(1)),
        ("train/b", FAKE, b"2", descriptor(1, 0)),
        ("validation/a", REAL, b"3", descriptor(1, 5, 6)),
        ("validation/b", REAL, b"4", descriptor(4)),
    )
    assert numbers(found) == NOTHING | {"near_across_splits": {"validation": 1}, "near_across_labels": {"fake": 1}}
    worst = found.report()["near_across_splits"]["pairs"]
    assert [(pair["similarity"], pair["a"]["path"], pair["b"]["path"]) for pair in worst] == [
        (0.984, "train/a", "validation/a"),
        (0.977, "train/b", "validation/a"),
    ]
    reason = "nearly the same image as validation/a in validation"
    assert found.to_drop() == [("train/a", reason), ("train/b", reason)]


def test_a_fake_and_its_photo_in_one_split_are_kept():
    found = duplicates(("train/a", REAL, b"1", descriptor(1)), ("train/b", FAKE, b"2", descriptor(1, 3)))
    assert numbers(found) == NOTHING | {"near_across_labels": {"fake": 1}}
    assert found.to_drop() == []


def test_a_twin_that_is_dropped_is_no_reason_to_drop_another():
    near, nearer, far = descriptor(1), descriptor(1, *range(8)), descriptor(1, *range(16))
    found = duplicates(
        ("train/a", REAL, b"1", near), ("validation/a", REAL, b"2", nearer), ("test/a", REAL, b"3", far)
    )
    assert numbers(found)["near_across_splits"] == {"validation": 1, "test": 1}
    assert found.to_drop() == [("validation/a", "nearly the same image as test/a in test")]


def test_near_duplicates_are_decided_by_correlation():
    just, over = descriptor(1, *range(8)), descriptor(1, *range(9))
    assert numbers(duplicates(("train/a", REAL, b"1", descriptor(1)), ("test/a", REAL, b"2", just))) != NOTHING
    assert numbers(duplicates(("train/a", REAL, b"1", descriptor(1)), ("test/a", REAL, b"2", over))) == NOTHING


def test_flat_images_are_compared_by_their_bytes_only():
    found = duplicates(("train/a", REAL, b"1", b""), ("test/a", REAL, b"2", b""), ("test/b", REAL, b"1", b""))
    assert numbers(found) == NOTHING | {"exact_across_splits": {"test": 1}}
    assert found.report()["flat"] == 3
    assert found.to_drop() == [("train/a", "a copy of test/b")]


def test_thousands_of_copies_do_not_make_millions_of_pairs():
    images = [(f"train/{n}", REAL, b"%d" % (n % 5000), descriptor(1)) for n in range(10_000)]
    images += [(f"test/{n}", FAKE, b"%d" % (n % 5000), descriptor(1)) for n in range(4000, 14_000)]
    start = time.process_time()
    found = duplicates(*images)
    assert numbers(found)["exact_across_labels"] == {"real": 10_000, "fake": 10_000}
    assert len(found.report()["exact_across_splits"]["pairs"]) == 20
    assert len(found.to_drop()) == 20_000
    assert time.process_time() - start < 10  # a third of a second when this was written


@pytest.mark.parametrize("seed", range(4))
def test_after_dropping_nothing_leaks_in_any_order(seed):
    random = np.random.default_rng(seed)
    images = []
    for n in range(200):
        split, kind = ("train", "validation", "test")[random.integers(3)], int(random.integers(60))
        flipped = random.choice(256, random.integers(12), replace=False).tolist()
        same = (b"%d" % kind, descriptor(kind)) if random.random() < 0.3 else (b"x%d" % n, descriptor(kind, *flipped))
        images.append((f"{split}/{n:03}", int(random.integers(-1, 2)), *same))
    dropped = duplicates(*images).to_drop()
    assert dropped == duplicates(*[images[at] for at in random.permutation(200)]).to_drop()
    left_out = dict(dropped)
    assert 20 < len(left_out) < 180
    after = numbers(duplicates(*[image for image in images if image[0] not in left_out]))
    assert after | {"near_across_labels": {}} == NOTHING
    assert duplicates(*[image for image in images if image[0] not in left_out]).to_drop() == []


# --- data folders ----------------------------------------------------------------------------------------------


@pytest.fixture
def leaky(tmp_path):
    """Eight different images, a copy and a smaller version in validation, and a file that is not an image."""
    for place in ("train/real", "train/fake", "validation/real", "validation/fake"):
        (tmp_path / place).mkdir(parents=True)
    for seed, place in enumerate(["train/real", "train/fake", "validation/real", "validation/fake"] * 2):
        (tmp_path / place / f"{seed}.png").write_bytes(saved(picture(seed), "PNG"))
    (tmp_path / "validation/real/copy.png").write_bytes(saved(picture(0), "PNG"))
    (tmp_path / "validation/fake/small \udcff.jpg").write_bytes(saved(picture(1).resize((60, 60)), quality=70))
    (tmp_path / "train/real/none.jpg").write_bytes(b"none")
    return tmp_path


def test_duplicates_in_a_folder_are_named_with_reasons(leaky):
    calls = []
    found = duplicates_to_drop(read_layout(leaky), progress=lambda *call: calls.append(call))
    assert found == [
        ("train/fake/1.png", "nearly the same image as validation/fake/small \udcff.jpg in validation"),
        ("train/real/0.png", "a copy of validation/real/copy.png"),
    ]
    assert calls[-1] == (11, 11)


def test_the_remaining_examples_leak_nothing(leaky):
    layout = read_layout(leaky)
    layout.examples.leave_out(duplicates_to_drop(layout))
    assert len(layout.examples) == 9
    assert duplicates_to_drop(layout) == []


def test_different_images_are_all_kept(tmp_path):
    plant(tmp_path, {f"{split}/{label}": 5 for split in ("train", "val") for label in ("real", "fake")})
    assert duplicates_to_drop(read_layout(tmp_path)) == []


def test_missing_and_damaged_files_are_skipped(tmp_path):
    plant(tmp_path, {f"{split}/{label}": 2 for split in ("train", "val") for label in ("real", "fake")})
    layout = read_layout(tmp_path)
    (tmp_path / "train/real/000.jpg").unlink()
    (tmp_path / "train/real/001.jpg").write_bytes(encode()[:100])
    assert duplicates_to_drop(layout) == []
