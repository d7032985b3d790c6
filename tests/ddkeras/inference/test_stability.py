"""Stability under mild re-encoding, for a detector whose scores can be computed by hand, and for a run."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny import encode, with_each_verdict

from ddkeras.inference.prediction import batch_size, predict
from ddkeras.inference.scorers import Scorer, scorer_for_run
from ddkeras.inference.stability import RE_ENCODED, Stability, stability
from ddkeras.inference.views import ORIGINAL
from pipelines.media.headers import UnreadableError
from pipelines.transforms.perturbations import MILD_PERTURBATIONS
from pipelines.transforms.views import load_views, make_views
from pipelines.views import Squash, load_image


def score_detail(images: np.ndarray) -> dict[str, np.ndarray]:
    """The fake probability is a tenth of the mean difference between horizontal neighbors, in gray levels."""
    detail = np.abs(np.diff(images.astype(np.float32), axis=2)).mean(axis=(1, 2, 3))
    probability = np.clip(detail / 10, 0, 1)
    return {
        "logit": probability - 0.5,
        "fake_probability": probability,
        "verdict": (probability > 0.5).astype(np.int32),
    }


@pytest.fixture
def scorer():
    return Scorer("detail", Squash(40), 8, [], "digest", score_detail)


def png(image: Image.Image) -> bytes:
    """A PNG file with these pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def noisy() -> Image.Image:
    """Noise whose score is just above the threshold, and below it once a codec has smoothed it."""
    noise = np.random.default_rng(0).normal(0, 1, (40, 40, 3))
    for sigma in np.arange(1, 10, 0.05):
        pixels = np.clip(np.rint(128 + sigma * noise), 0, 255).astype(np.uint8)
        if score_detail(pixels[None])["fake_probability"][0] > 0.5:
            return Image.fromarray(pixels)
    raise AssertionError


def test_the_change_is_the_largest_over_all_re_encodings(scorer, noisy):
    (result,) = stability(scorer, [png(noisy)])
    original = score_detail(np.asarray(noisy)[None])["fake_probability"][0]
    expected = {
        name: score_detail(np.asarray(re_encode(noisy))[None])["fake_probability"][0].item()
        for name, re_encode in MILD_PERTURBATIONS.items()
    }
    assert result.probabilities == pytest.approx(expected, abs=1e-6)
    assert result.change == pytest.approx(
        max(abs(probability - original) for probability in expected.values()), abs=1e-6
    )
    assert result.change > 0.1
    assert result.flips


def test_a_uniform_image_does_not_change(scorer):
    plain = png(Image.new("RGB", (60, 50), (120, 120, 120)))
    assert stability(scorer, [plain] * 5) == [Stability(0.0, dict.fromkeys(MILD_PERTURBATIONS, 0.0), False)] * 5


def test_images_are_re_encoded_before_they_are_resized(noisy):
    large = noisy.resize((200, 120))
    pixels_of_views = make_views(png(large), Squash(40), RE_ENCODED.transforms)
    assert pixels_of_views.shape == (4, 40, 40, 3)
    for pixels, re_encode in zip(pixels_of_views, [lambda image: image, *MILD_PERTURBATIONS.values()], strict=True):
        (expected,) = make_views(png(re_encode(large)), Squash(40), ())
        np.testing.assert_array_equal(pixels, expected)


def test_only_a_verdict_that_flips_becomes_unsure(scorer, noisy, tmp_path):
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
    assert rows[1] == plain[1], "an unreadable file has only its error"
    assert {row.score_shift for row in plain} == {None}
    changes = [
        result.change for result in stability(scorer, [path.read_bytes() for path in paths if path.stem != "bad"])
    ]
    assert [row.score_shift for row in rows if not row.error] == pytest.approx(changes, abs=1e-6)


def test_batch_sizes_count_the_views(scorer):
    sizes = []
    counting = Scorer(
        "detail", Squash(400), 10, [], "", lambda images: (sizes.append(len(images)), score_detail(images))[1]
    )
    assert (batch_size(counting, ORIGINAL), batch_size(counting, RE_ENCODED)) == (10, 2)
    assert len(stability(counting, [encode()] * 5)) == 5
    assert sizes == [8, 8, 4]


def test_stability_of_a_run_agrees_with_predictions_of_re_encoded_files(run, records, data, tmp_path):
    scorer = scorer_for_run(with_each_verdict(run, records, tmp_path / "runs"))
    paths = sorted(data.rglob("*.jpg"))
    plain, rows = list(predict(scorer, paths)), list(predict(scorer, paths, views=RE_ENCODED))
    results = stability(scorer, [path.read_bytes() for path in paths])
    for index, path in enumerate(paths):
        files = []
        for name, re_encode in MILD_PERTURBATIONS.items():
            files.append(tmp_path / f"{name}.png")
            with Image.open(path) as image:
                re_encode(image.convert("RGB")).save(files[-1])
        saved = list(predict(scorer, files))
        change = max(abs(row.fake_probability - plain[index].fake_probability) for row in saved)
        assert rows[index].score_shift == pytest.approx(change, abs=1e-5)
        assert results[index].change == pytest.approx(change, abs=1e-5)
        assert results[index].flips == any(row.verdict != plain[index].verdict for row in saved)
        assert rows[index].verdict == ("unsure" if results[index].flips else plain[index].verdict)
    assert any(result.flips for result in results)
    assert not all(result.flips for result in results)


def test_an_image_that_cannot_be_re_encoded_is_an_error(scorer):
    with pytest.raises(UnreadableError, match="the file is empty"):
        stability(scorer, [b""])
    with pytest.raises(UnreadableError, match="damaged or cut short PNG"):
        stability(scorer, [png(Image.new("RGB", (40, 40)))[:-30]])
    with pytest.raises(UnreadableError, match=r"16400 x 2 pixels cannot be re-encoded: .*WebP limit"):
        stability(scorer, [png(Image.new("RGB", (16_400, 2)))])


def test_the_first_view_is_the_unmodified_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(size=70))
    images, errors = load_views([tmp_path / "a.jpg"], Squash(32), RE_ENCODED.transforms)
    assert not errors
    np.testing.assert_array_equal(images[0, 0], load_image(tmp_path / "a.jpg", 32))
