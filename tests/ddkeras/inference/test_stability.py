"""Whether a score survives a mild re-encoding: literal for a detector whose every answer can be told by hand."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny import encode, with_each_verdict

from ddkeras.inference.prediction import batch_size, predict
from ddkeras.inference.scorers import Scorer, of_run
from ddkeras.inference.stability import RE_ENCODED, Stability, stability
from ddkeras.inference.views import AS_IS
from pipelines.decoding import load_image
from pipelines.media.headers import UnreadableError
from pipelines.transforms import views as room
from pipelines.transforms.perturbations import MILD_PERTURBATIONS


def told_by(images: np.ndarray) -> dict[str, np.ndarray]:
    """A detector of horizontal detail: a tenth for each grey level that neighbours differ by in the mean."""
    detail = np.abs(np.diff(images.astype(np.float32), axis=2)).mean(axis=(1, 2, 3))
    probability = np.clip(detail / 10, 0, 1)
    return {"fake_probability": probability, "verdict": (probability > 0.5).astype(np.int32)}


@pytest.fixture
def scorer():
    return Scorer("detail", 40, 8, [], "digest", told_by)


def png(image: Image.Image) -> bytes:
    """A file that holds these pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def noisy() -> Image.Image:
    """Noise whose detail is just above the limit as it is, and below it once a codec has smoothed it."""
    noise = np.random.default_rng(0).normal(0, 1, (40, 40, 3))
    for sigma in np.arange(1, 10, 0.05):
        pixels = np.clip(np.rint(128 + sigma * noise), 0, 255).astype(np.uint8)
        if told_by(pixels[None])["fake_probability"][0] > 0.5:
            return Image.fromarray(pixels)
    raise AssertionError


def test_the_change_is_the_greatest_of_what_each_re_encoding_moves(scorer, noisy):
    (found,) = stability(scorer, [png(noisy)])
    own = told_by(np.asarray(noisy)[None])["fake_probability"][0]
    expected = {
        name: told_by(np.asarray(way(noisy))[None])["fake_probability"][0].item()
        for name, way in MILD_PERTURBATIONS.items()
    }
    assert found.probabilities == pytest.approx(expected, abs=1e-6)
    assert found.change == pytest.approx(max(abs(one - own) for one in expected.values()), abs=1e-6)
    assert found.change > 0.1
    assert found.flips


def test_a_plain_image_stays_what_it_is(scorer):
    plain = png(Image.new("RGB", (60, 50), (120, 120, 120)))
    assert stability(scorer, [plain] * 5) == [Stability(0.0, dict.fromkeys(MILD_PERTURBATIONS, 0.0), False)] * 5


def test_images_are_re_encoded_at_their_own_resolution_and_resized_then(noisy):
    large = noisy.resize((200, 120))
    seen = room.make_views(png(large), 40, RE_ENCODED.ways)
    assert seen.shape == (4, 40, 40, 3)
    for pixels, way in zip(seen, [lambda image: image, *MILD_PERTURBATIONS.values()], strict=True):
        (expected,) = room.make_views(png(way(large)), 40, ())
        np.testing.assert_array_equal(pixels, expected)


def test_a_verdict_that_flips_becomes_unsure_and_no_other(scorer, noisy, tmp_path):
    images = {"a": noisy, "b": Image.new("RGB", (40, 40)), "c": noisy.resize((80, 80))}
    paths = [tmp_path / f"{name}.png" for name in images]
    for path, image in zip(paths, images.values(), strict=True):
        image.save(path)
    (tmp_path / "bad.png").write_bytes(b"")
    paths.insert(1, tmp_path / "bad.png")
    plain = list(predict(scorer, paths))
    rows = list(predict(scorer, paths, views=RE_ENCODED))
    assert [row.verdict for row in plain if not row.error] == ["fake", "real", "real"]
    assert [row.verdict for row in rows if not row.error] == ["unsure", "real", "real"]
    assert [row.fake_probability for row in rows] == [row.fake_probability for row in plain]
    assert rows[1] == plain[1], "what cannot be read has its error and nothing else"
    assert {row.stability for row in plain} == {None}
    changes = [one.change for one in stability(scorer, [path.read_bytes() for path in paths if path.stem != "bad"])]
    assert [row.stability for row in rows if not row.error] == pytest.approx(changes, abs=1e-6)


def test_all_views_of_an_image_are_in_one_batch_and_batches_no_larger(scorer):
    sizes = []
    counting = Scorer("detail", 400, 10, [], "", lambda images: (sizes.append(len(images)), told_by(images))[1])
    assert (batch_size(counting, AS_IS), batch_size(counting, RE_ENCODED)) == (10, 2)
    assert len(stability(counting, [encode()] * 5)) == 5
    assert sizes == [8, 8, 4]


def test_a_run_agrees_with_what_each_re_encoded_file_is_predicted_to_be(run, records, data, tmp_path):
    scorer = of_run(with_each_verdict(run, records, tmp_path / "runs"))
    paths = sorted(data.rglob("*.jpg"))
    plain, rows = list(predict(scorer, paths)), list(predict(scorer, paths, views=RE_ENCODED))
    told = stability(scorer, [path.read_bytes() for path in paths])
    for place, path in enumerate(paths):
        files = []
        for name, way in MILD_PERTURBATIONS.items():
            files.append(tmp_path / f"{name}.png")
            with Image.open(path) as image:
                way(image.convert("RGB")).save(files[-1])
        saved = list(predict(scorer, files))
        change = max(abs(one.fake_probability - plain[place].fake_probability) for one in saved)
        assert rows[place].stability == pytest.approx(change, abs=1e-5)
        assert told[place].change == pytest.approx(change, abs=1e-5)
        assert told[place].flips == any(one.verdict != plain[place].verdict for one in saved)
        assert rows[place].verdict == ("unsure" if told[place].flips else plain[place].verdict)
    assert any(one.flips for one in told)
    assert not all(one.flips for one in told)


def test_what_has_no_views_says_why(scorer):
    with pytest.raises(UnreadableError, match="the file is empty"):
        stability(scorer, [b""])
    with pytest.raises(UnreadableError, match="damaged or cut short PNG"):
        stability(scorer, [png(Image.new("RGB", (40, 40)))[:-30]])
    with pytest.raises(UnreadableError, match=r"16400 x 2 pixels cannot be re-encoded: .*WebP limit"):
        stability(scorer, [png(Image.new("RGB", (16_400, 2)))])


def test_the_image_as_it_is_has_the_pixels_that_it_has_alone(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(size=70))
    images, errors = room.load_views([tmp_path / "a.jpg"], 32, RE_ENCODED.ways)
    assert not errors
    np.testing.assert_array_equal(images[0, 0], load_image(tmp_path / "a.jpg", 32))
