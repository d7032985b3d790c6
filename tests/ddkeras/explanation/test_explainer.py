"""Explanations, mostly of networks made by hand, for which the right heatmap is known."""

import csv
from dataclasses import replace
from typing import get_args

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr
from tiny import encode, with_each_verdict

from ddkeras.api import ExplanationMethod
from ddkeras.cli.explain import explain as command
from ddkeras.exceptions import ConfigError
from ddkeras.explanation import overlays
from ddkeras.explanation.explainer import ExplainedFile, Explainer, explain_files, load_explainer
from ddkeras.explanation.gradcam import grad_cam, grad_cam_plus_plus, receptive_field_centres
from ddkeras.explanation.heatmaps import interpolation_matrix, normalize
from ddkeras.inference.prediction import predict
from ddkeras.inference.scorers import scorer_for_run
from ddkeras.models.backbones import BACKBONES, build_trunk
from ddkeras.models.detector import HEADS, build_model
from ddkeras.models.networks import small_cnn
from ddkeras.runs.run import copy_run

METHODS = get_args(ExplanationMethod)
QUADRANTS = {
    "upper left": (3, 4),
    "upper right": (5, 20),
    "lower left": (21, 2),
    "lower right": (19, 22),
}  # top, left


def explainer_of(model: keras.Model, run, folder, **recipe) -> Explainer:
    """An explainer of a run with this network in place of its own."""
    copy = copy_run(run, folder)
    model.save(copy.model_path)
    return load_explainer(replace(copy, recipe=replace(run.recipe, image_size=model.input_shape[1], **recipe)))


def two_heads(trunk: keras.Model, authenticity: list[float], bias: float = 0.0) -> keras.Model:
    """A model with these weights for authenticity, and in the other head for `animals`; `vehicles` has zeros."""
    model = build_model(trunk, 2)
    weights = np.array(authenticity, np.float32)[:, np.newaxis]
    model.get_layer("authenticity").set_weights([weights, np.array([bias], np.float32)])
    model.get_layer("category").set_weights([np.hstack([weights, 0 * weights]), np.zeros(2, np.float32)])
    return model


def strided(size: int, layers: int, kernel_size: int = 3) -> keras.Model:
    """A trunk of convolutions with stride 2 whose kernels are zero except in the middle."""
    images = keras.Input((size, size, 3))
    features = keras.layers.Rescaling(1 / 255)(images)
    for _ in range(layers):
        kernel = np.zeros((kernel_size, kernel_size, features.shape[-1], 1), np.float32)
        kernel[kernel_size // 2, kernel_size // 2] = 1 / features.shape[-1]
        layer = keras.layers.Conv2D(1, kernel_size, strides=2, padding="same", activation="relu")
        features = layer(features)
        layer.set_weights([kernel, np.zeros(1, np.float32)])
    return keras.Model(images, features)


@pytest.fixture(scope="module")
def sees_white(run, tmp_path_factory):
    """A network whose logit is -1, and raised only by what is almost white."""
    images = keras.Input((32, 32, 3))
    layer = keras.layers.Conv2D(1, 2, strides=2, activation="relu")
    trunk = keras.Model(images, keras.layers.AveragePooling2D(2)(layer(images)))
    layer.set_weights([np.full((2, 2, 3, 1), 1 / 12, np.float32), np.array([-200], np.float32)])
    return explainer_of(two_heads(trunk, [1.0], -1.0), run, tmp_path_factory.mktemp("white"))


def dark_with_white(top: int, left: int) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 120, (32, 32, 3), np.uint8)
    image[top : top + 8, left : left + 8] = 255
    return image


# --- methods ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head", HEADS)
def test_the_heatmap_peaks_in_the_quadrant_with_the_evidence(sees_white, method, head):
    images = np.stack([dark_with_white(*corner) for corner in QUADRANTS.values()])
    explanations = sees_white.explain(images, method=method, head=head)
    for (name, (top, left)), found in zip(QUADRANTS.items(), explanations, strict=True):
        assert found.target == {"authenticity": "fake", "category": "animals"}[head]
        down, across = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
        assert top <= down < top + 8, name
        assert left <= across < left + 8, name
        rows, columns = (slice(0, 16) if first < 16 else slice(16, 32) for first in (top, left))
        assert found.heatmap[rows, columns].sum() > 0.8 * found.heatmap.sum(), name


def test_a_real_image_is_explained_by_the_evidence_for_real(run, tmp_path):
    images = keras.Input((32, 32, 3))
    explainer = explainer_of(
        two_heads(keras.Model(images, keras.layers.AveragePooling2D(4)(images)), [-1, 0, 0]), run, tmp_path
    )
    for method in METHODS:
        found = explainer.explain(dark_with_white(20, 4)[np.newaxis], method=method)[0]
        assert (found.verdict, found.target) == ("real", "real")
        assert found.logit > 0
        down, across = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
        assert 20 <= down < 28
        assert 4 <= across < 12


def test_gradcam_agrees_with_a_calculation_by_hand():
    # Two channels on 1 x 2 places. The weights are the means of the gradients, 3 and -1.
    features = np.array([[[[1, 2], [4, 20]]]], np.float32)
    gradients = np.array([[[[2, 0], [4, -2]]]], np.float32)
    np.testing.assert_array_equal(grad_cam(features, gradients), [[[1 * 3 - 2, 0]]])


def test_gradcam_plus_plus_agrees_with_a_calculation_by_hand():
    # The first channel has the sum 4 and the gains 1 and 0: alpha is 1 / (2 + 4), the weight 1/6. The second has
    # the sum 2 and the gains 1 and 2: 1 / (2 + 2) + 2 / (2 + 4) = 7/12. The third is evidence against it.
    features = np.array([[[[1, 0, 5], [3, 2, 0]]]], np.float32)
    gradients = np.array([[[[1, 1, -1], [-2, 2, -3]]]], np.float32)
    expected = [[[1 / 6, 3 / 6 + 2 * 7 / 12]]]
    np.testing.assert_allclose(grad_cam_plus_plus(features, gradients), expected, rtol=1e-6)


def test_gradcam_plus_plus_agrees_with_the_paper_up_to_a_factor():
    draws = np.random.default_rng(0)
    features, gradients = draws.uniform(0, 1, (3, 4, 4, 5)), draws.normal(size=(3, 4, 4, 5))
    first = np.exp(1.5) * gradients  # derivative of exp(S) at S = 1.5, for S linear in the features
    second, third = first * gradients, first * gradients**2
    alpha = second / (2 * second + features.sum(axis=(1, 2), keepdims=True) * third)
    alpha[gradients <= 0] = 0  # by the ReLU of the first derivative in the paper
    weights = (alpha * np.maximum(first, 0)).sum(axis=(1, 2), keepdims=True)
    expected = np.maximum((weights * features).sum(axis=-1), 0)
    np.testing.assert_allclose(grad_cam_plus_plus(features, gradients) * np.exp(1.5), expected, rtol=1e-9)


def test_the_heatmap_of_a_network_agrees_with_a_calculation_by_hand(run, tmp_path):
    # Four places, features the mean colours there, weights 1, -0.5 and 0: 200 - 0, 100 - 50, 80 - 20, and nothing.
    images = keras.Input((32, 32, 3))
    trunk = keras.Model(images, keras.layers.AveragePooling2D(16)(images))
    explainer = explainer_of(two_heads(trunk, [1, -0.5, 0], 10.0), run, tmp_path)
    colours = np.array([[(200, 0, 9), (100, 100, 9)], [(80, 40, 9), (0, 200, 9)]], np.uint8)
    found = explainer.explain(colours.repeat(16, axis=0).repeat(16, axis=1)[np.newaxis])[0]
    assert found.logit == pytest.approx((200 + 100 + 80) / 4 - 0.5 * (100 + 40 + 200) / 4 + 10)
    corners = found.heatmap[np.ix_([0, 31], [0, 31])]
    np.testing.assert_allclose(corners, [[1, 0.25], [0.3, 0]], atol=1e-6)
    np.testing.assert_allclose(
        found.heatmap[0, [7, 8, 15, 16, 24]], np.interp([7.5, 8.5, 15.5, 16.5, 24.5], [8, 24], [1, 0.25])
    )


def test_occlusion_agrees_with_a_calculation_by_hand(run, tmp_path):
    # The logit is the mean of red, and patches are squares of 8 of 40 pixels, 4 apart. Those that cover all, a half
    # and a quarter of the red square with its mean over the image, 10.2 and so 10, make the logit fall by 9.8, 4.7
    # and 2.15, others let it rise. Pixels lie half a pixel beside the middles of patches, 1/8 of the way to the next.
    images = keras.Input((40, 40, 3))
    explainer = explainer_of(
        two_heads(keras.Model(images, keras.layers.AveragePooling2D(2)(images)), [1, 0, 0]), run, tmp_path
    )
    image = np.zeros((40, 40, 3), np.uint8)
    image[8:16, 24:32, 0] = 255
    found = explainer.explain(image[np.newaxis], method="occlusion")[0]
    assert found.logit == pytest.approx(10.2)
    np.testing.assert_allclose(found.heatmap[[11, 12, 11, 12], [27, 27, 28, 28]], 1, rtol=1e-5)
    highest = 9.8 * 7 / 8 * 7 / 8 + 2 * 4.7 * 7 / 8 * 1 / 8 + 2.15 * 1 / 8 * 1 / 8
    beside = 4.7 * 7 / 8 * 7 / 8 + 2.15 * 1 / 8 * 7 / 8
    np.testing.assert_allclose(found.heatmap[[11, 11, 7, 16], [23, 32, 27, 27]], beside / highest, rtol=1e-4)
    assert found.heatmap[11, 19] == 0


@pytest.mark.parametrize("method", METHODS)
def test_without_evidence_the_heatmap_is_zero_and_not_nan(run, tmp_path, method):
    model = two_heads(strided(32, 2), [0.0], 1.0)
    heatmap = explainer_of(model, run, tmp_path).explain(dark_with_white(3, 3)[np.newaxis], method=method)[0].heatmap
    assert heatmap.shape == (32, 32)
    assert not heatmap.any()


@pytest.mark.parametrize("method", METHODS)
def test_a_heatmap_is_float32_from_0_to_1(run, method):
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    for head in HEADS:
        for found in load_explainer(run).explain(images, method=method, head=head):
            assert found.heatmap.dtype == np.float32
            assert found.heatmap.shape == (32, 32)
            assert found.heatmap.min() >= 0
            assert found.heatmap.max() in (0, 1)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_has_the_same_heatmap_alone_and_in_a_batch(run, method):
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    explainer = load_explainer(run)
    among = explainer.explain(images, method=method)[4]
    alone = explainer.explain(images[4:5], method=method)[0]
    assert alone.target == among.target
    np.testing.assert_allclose(alone.heatmap, among.heatmap, atol=1e-4)


# --- receptive fields ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel_size", "first"),
    [
        pytest.param(64, 3, 7, id="padded after the last pixel: place k sees pixel 8k + 7"),
        pytest.param(36, 3, 3, id="36 become 18, 9 and 5: place k sees pixel 8k + 3"),
        pytest.param(64, 1, 0, id="pixels skipped, as by residual shortcuts: place k sees pixel 8k"),
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_the_peak_is_the_pixel_that_a_place_sees(run, tmp_path, size, kernel_size, first, method):
    explainer = explainer_of(two_heads(strided(size, 3, kernel_size), [1.0]), run, tmp_path)
    for row, column in ((1, 3), (4, 1), (2, 2)):
        image = np.zeros((1, size, size, 3), np.uint8)
        image[0, 8 * row + first, 8 * column + first] = 255
        heatmap = explainer.explain(image, method=method)[0].heatmap
        assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (8 * row + first, 8 * column + first)
        assert heatmap[8 * row + first - 4, 8 * column + first] == pytest.approx(0.5), "half way to the next place"


def test_pooled_places_look_at_the_middle_of_their_patch():
    images = keras.Input((32, 32, 3))
    trunk = keras.Model(images, {"features": keras.layers.AveragePooling2D(8)(images)})
    np.testing.assert_allclose(receptive_field_centres(trunk), [4, 12, 20, 28], atol=0.5)


def test_without_gradients_places_are_centred_in_the_image():
    images = keras.Input((32, 32, 3))
    convolve = keras.layers.Conv2D(2, 4, strides=4, kernel_initializer="zeros")
    np.testing.assert_array_equal(
        receptive_field_centres(keras.Model(images, {"features": convolve(images)})), np.arange(8) * 4 + 2
    )


def test_heatmaps_are_interpolated_and_constant_at_the_edges():
    rows = interpolation_matrix(np.array([2.0, 4.0]), 6)
    np.testing.assert_allclose(rows @ [0.0, 1.0], [0, 0, 0.25, 0.75, 1, 1])
    assert rows.dtype == np.float32


def test_each_heatmap_has_a_scale_of_its_own():
    for heatmap, expected in (([[0, 2.0]], [[0, 1]]), ([[0, 0]], [[0, 0]]), ([[5, 1]], [[1, 0.2]])):
        np.testing.assert_array_equal(normalize(np.array(heatmap)), expected)
    np.testing.assert_array_equal(normalize(np.array([[np.nan, 2, 1]])), [[np.nan, 1, 0.5]])


# --- trained networks ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A small network that has learned which images of noise contain a finer patch, 12 of these, and the corners."""
    draws = np.random.default_rng(0)
    images = draws.integers(60, 196, (256, 12, 12, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    labels, corners = np.arange(256) % 2, draws.integers(0, 33, (256, 2))
    for place in np.flatnonzero(labels):
        top, left = corners[place]
        images[place, top : top + 16, left : left + 16] = draws.integers(60, 196, (16, 16, 3))
    keras.utils.set_random_seed(0)
    model = build_model(small_cnn(48), 2, dropout=0.0)
    losses = {
        "authenticity": keras.losses.BinaryCrossentropy(from_logits=True),
        "category": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    model.compile(keras.optimizers.Adam(0.003), losses, jit_compile=False)
    model.fit(images.astype("float32"), {"authenticity": labels, "category": labels}, epochs=8, verbose=0)
    return model, images[1:24:2], corners[1:24:2]


def heatmaps_of_vehicles(model: keras.Model, images: np.ndarray, run, folder, method: str) -> np.ndarray:
    explainer = explainer_of(model, run, folder)  # with a fixed target: verdicts may differ between networks
    explanations = explainer.explain(images, method=method, head="category", category="vehicles")
    return np.stack([explanation.heatmap for explanation in explanations])


@pytest.mark.parametrize("method", METHODS)
def test_the_heatmap_of_a_trained_network_peaks_at_the_evidence(trained, run, tmp_path, method):
    model, images, corners = trained
    heatmaps = heatmaps_of_vehicles(model, images, run, tmp_path, method)
    peaks = np.stack([np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in heatmaps])
    within = ((peaks >= corners - 4) & (peaks < corners + 20)).all(axis=1)
    assert within.sum() >= 10


@pytest.mark.parametrize(
    ("method", "randomised", "at_most"),
    [
        ("gradcam", "head", 0.6),
        ("gradcam++", "head", 0.85),  # uses little of the head but the signs of its weights
        ("occlusion", "head", 0.6),
        *((method, "all", 0.5) for method in METHODS),
    ],
)
def test_a_network_with_random_weights_has_other_heatmaps(trained, run, tmp_path, method, randomised, at_most):
    """Adebayo et al. 2018, Sanity Checks for Saliency Maps, https://arxiv.org/abs/1810.03292."""
    model, images, _ = trained
    kept, draws = model.get_weights(), np.random.default_rng(1)
    kinds = keras.layers.Dense if randomised == "head" else (keras.layers.Dense, keras.layers.Conv2D)
    before = heatmaps_of_vehicles(model, images, run, tmp_path / "before", method)
    for layer in model.layers:
        if isinstance(layer, kinds):
            layer.set_weights([draws.permutation(each.ravel()).reshape(each.shape) for each in layer.get_weights()])
    after = heatmaps_of_vehicles(model, images, run, tmp_path / "after", method)
    model.set_weights(kept)
    assert after.any(axis=(1, 2)).all(), "an empty heatmap would differ for the wrong reason"
    agreement = [spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(before, after, strict=True)]
    assert np.mean(agreement) < at_most


# --- targets ---------------------------------------------------------------------------------------------------


def test_the_target_is_the_verdict_or_where_unsure_the_more_probable_label(run, records, data, tmp_path):
    copy = with_each_verdict(run, records, tmp_path)
    paths = sorted(data.rglob("validation/**/*.jpg"))
    found = [each.explanation for each in explain_files(load_explainer(copy), paths, "gradcam")]
    assert {each.verdict for each in found} == {"real", "fake", "unsure"}
    for each in found:
        more_probable = "fake" if each.fake_probability >= 0.5 else "real"
        assert each.target == (more_probable if each.verdict == "unsure" else each.verdict)


@pytest.mark.parametrize("test_augment", ["none", "flip"])
def test_scores_and_logits_are_those_of_predict(run, data, tmp_path, test_augment):
    run = replace(run, recipe=replace(run.recipe, test_augment=test_augment))
    paths = sorted((data / "test").iterdir())
    explainer, logits = load_explainer(run), scorer_for_run(run).score
    for method in METHODS:
        predictions = predict(scorer_for_run(run), paths)
        for each, expected in zip(explain_files(explainer, paths, method), predictions, strict=True):
            found = each.explanation
            assert each.path == expected.path
            assert found.fake_probability == pytest.approx(expected.fake_probability, abs=1e-6)
            assert (found.verdict, found.category) == (expected.verdict, expected.category)
            assert found.category_probability == pytest.approx(expected.category_probability, abs=1e-6)
            logit = logits(found.image[np.newaxis])["logit"][0]
            assert found.logit == pytest.approx(logit if found.target == "fake" else -logit, abs=1e-5)


def test_the_scores_come_from_the_pass_that_gives_the_feature_map(run):
    explainer = load_explainer(run)
    explainer.scorer = replace(explainer.scorer, score=lambda images: pytest.fail("a second pass"))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    assert len(explainer.explain(images, method="gradcam")) == 3


@pytest.mark.parametrize("method", METHODS)
def test_where_scores_are_averaged_with_the_mirror_image_so_are_heatmaps(run, method):
    run = replace(run, recipe=replace(run.recipe, test_augment="flip"))
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    explainer = load_explainer(run)
    for one, mirrored in zip(
        explainer.explain(images, method=method), explainer.explain(images[:, :, ::-1], method=method), strict=True
    ):
        assert one.logit == pytest.approx(mirrored.logit, abs=1e-5)
        np.testing.assert_allclose(one.heatmap, mirrored.heatmap[:, ::-1], atol=1e-3)


def test_a_given_category_is_explained_instead_of_the_predicted_one(run):
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    explainer = load_explainer(run)
    predicted = explainer.explain(images, head="category")
    assert [each.target for each in predicted] == [each.category for each in predicted]
    named = explainer.explain(images, head="category", category="vehicles")
    assert {each.target for each in named} == {"vehicles"}
    for each, other in zip(predicted, named, strict=True):
        assert each.logit >= other.logit


def test_a_category_that_the_run_does_not_have_is_an_error(run, tmp_path):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(ConfigError, match=r"has no category cats; give one of animals, vehicles$"):
        load_explainer(run).explain(image, head="category", category="cats")
    without = replace(copy_run(run, tmp_path), categories=[])
    build_model(strided(32, 2), 0).save(without.model_path)
    with pytest.raises(ConfigError, match="has no categories; leave out --head category"):
        load_explainer(without).explain(image, head="category")
    assert load_explainer(without).explain(image)[0].category is None


def test_a_network_without_a_feature_map_is_explained_by_occlusion_only(run, tmp_path):
    image = np.full((1, 32, 32, 3), 200, np.uint8)
    one_place = explainer_of(two_heads(strided(32, 5), [1.0]), run, tmp_path / "one")
    images = keras.Input((32, 32, 3))
    flat = keras.layers.Flatten()(images)
    heads = {
        "authenticity": keras.layers.Dense(1, kernel_initializer="ones")(flat),
        "category": keras.layers.Dense(2)(flat),
    }
    dense = explainer_of(keras.Model(images, heads), run, tmp_path / "dense")
    for explainer, message in (
        (
            one_place,
            r"its images of 32 pixels to a feature map of a single position, .*; give --method occlusion, or train",
        ),
        (dense, "has no feature map that is pooled for its heads; give --method occlusion$"),
    ):
        for method in ("gradcam", "gradcam++"):
            with pytest.raises(ConfigError, match=message):
                explainer.explain(image, method=method)
        assert explainer.explain(image, method="occlusion")[0].heatmap.shape == (32, 32)


QUICK = ("small-cnn", "deepfakenet")


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES if name not in QUICK)]
)
def test_every_backbone_is_explained(run, tmp_path, name):
    model = build_model(build_trunk(name, image_size=64, weights="none"), 2)
    explainer = explainer_of(model, run, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    for method in ("gradcam", "gradcam++"):
        for head in HEADS:
            heatmap = explainer.explain(image, method=method, head=head)[0].heatmap
            assert heatmap.shape == (64, 64)
            assert np.isfinite(heatmap).all()
            assert heatmap.max() in (0, 1)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_explained_like_float32(run, tmp_path, policy):
    models = {}
    for name in ("float32", policy):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(name)
        try:
            models[name] = build_model(small_cnn(48), 2)
        finally:
            keras.config.set_dtype_policy("float32")
    models[policy].set_weights(models["float32"].get_weights())
    images = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    target = {"head": "category", "category": "animals"}
    exact, mixed = (
        explainer_of(model, run, tmp_path / name).explain(images, **target) for name, model in models.items()
    )
    for each, other in zip(exact, mixed, strict=True):
        assert each.heatmap.any()
        np.testing.assert_allclose(each.heatmap, other.heatmap, atol=0.1)


# --- files and pictures ----------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_have_an_error_and_the_others_an_explanation(run, data, tmp_path):
    good = sorted((data / "test").iterdir())
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    paths = [good[0], tmp_path / "bad.jpg", tmp_path / "gone.jpg", good[1]]
    for method in ("gradcam", "occlusion"):
        found = list(explain_files(load_explainer(run), paths, method))
        assert [each.path for each in found] == [str(path) for path in paths]
        assert [bool(each.error) for each in found] == [False, True, True, False]
        assert [each.explanation is None for each in found] == [False, True, True, False]


def test_an_overlay_is_grey_without_evidence_and_coloured_with_it():
    image = np.full((2, 2, 3), (100, 0, 200), np.uint8)
    heatmap = np.array([[0, 1], [0.5, 0]], np.float32)
    for target, colour in (("fake", (194, 87, 12)), ("real", (47, 111, 196)), ("animals", (125, 79, 176))):
        over = overlays.blend(image, heatmap, target).astype(int)
        assert over.shape == (2, 2, 3)
        np.testing.assert_array_equal(over[0, 0], [53, 53, 53])  # 0.299 * 100 + 0.114 * 200 = 52.7
        np.testing.assert_allclose(over[0, 1], 0.25 * 52.7 + 0.75 * np.array(colour), atol=0.5)
        np.testing.assert_allclose(over[1, 0], 0.625 * 52.7 + 0.375 * np.array(colour), atol=0.5)


def test_a_picture_is_image_overlay_and_caption(run):
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    (explanation,) = load_explainer(run).explain(image)
    drawn = overlays.draw(ExplainedFile("a.jpg", explanation), 32)
    np.testing.assert_array_equal(drawn[:32, :32], image[0])
    over = overlays.blend(image[0], explanation.heatmap, explanation.target)
    np.testing.assert_array_equal(drawn[:32, 36:], over)
    assert (drawn[32:] < 128).any(), "no text"
    failed = overlays.draw(ExplainedFile("\udcff" * 300 + ".jpg", error="the file is empty"), 32)
    assert failed.shape == drawn.shape


def test_a_folder_of_explanations(run, data, tmp_path):
    paths = sorted(data.rglob("*.jpg"))[:30]
    (tmp_path / "no image.jpg").write_text("no image")
    paths.insert(5, tmp_path / "no image.jpg")
    calls = []
    files = explain_files(load_explainer(run), paths, "gradcam")
    made = overlays.write(tmp_path, files, "title", total=31, progress=lambda *done: calls.append(done))
    assert (made["images"], made["errors"], made["on_sheet"]) == (31, 1, 24)
    assert sum(made["explained"].values()) == 30
    assert calls == [(number, 31) for number in range(1, 32)]
    with (tmp_path / "explanations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert rows[5]["error"] == "not an image in a known format"
    assert rows[5]["picture"] == rows[5]["verdict"] == ""
    assert rows[4]["picture"] == f"05-{paths[4].stem}.png"
    (expected,) = predict(scorer_for_run(run), paths[4:5])
    assert float(rows[4]["fake_probability"]) == pytest.approx(expected.fake_probability)
    pictures = {row["picture"] for row in rows if row["picture"]}
    assert len(pictures) == 30
    assert {path.name for path in tmp_path.glob("*.png")} == pictures | {"sheet.png"}
    with Image.open(tmp_path / rows[0]["picture"]) as picture, Image.open(tmp_path / "sheet.png") as sheet:
        assert picture.size[0] == 2 * 320 + 4, "tiny images are enlarged"
        assert sheet.size[0] == 4 * (2 * 180 + 4 + 4) + 4


def test_images_of_the_same_name_have_pictures_of_their_own(run, tmp_path):
    paths = [tmp_path / folder / f"{'a' * 200}.jpg" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(encode(size=40))
    (tmp_path / "out").mkdir()
    overlays.write(tmp_path / "out", explain_files(load_explainer(run), paths, "gradcam"), "title", total=2)
    assert sorted(path.name[:3] for path in (tmp_path / "out").glob("*-a*.png")) == ["1-a", "2-a"]


def test_the_command_knows_every_method_and_head():
    choices = {option.name: option.type for option in command.params}
    assert tuple(choices["method"].choices) == ("gradcam", "gradcam++", "occlusion")
    assert tuple(choices["head"].choices) == HEADS
