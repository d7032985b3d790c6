"""The recipe: validated on construction, unchanged by a round trip through YAML."""

import dataclasses
import re
import typing

import pytest

from ddkeras.config import Recipe, differences, load_chain, load_recipe, recipe_fields, shipped_recipes
from ddkeras.exceptions import ConfigError

# As ddkeras 0.1.0 wrote it for `--backbone Xception --weights none --augment flip`.
WRITTEN = """\
backbone: xception
weights: none
image_size: 299
view: auto
windows: 9
windows_per_image: 1
aggregate: mean
category_view: windows
dropout: 0.2
test_augment: none
min_side: 32
epochs: 12
batch: 32
accumulate: 1
balance: weights
hold_out: ''
augment:
  flip:
    probability: 0.5
loss: cross_entropy
focal_gamma: 2.0
label_smoothing: 0.0
authenticity_weight: 1.0
category_weight: null
optimizer: adamw
learning_rate: 0.001
momentum: 0.9
weight_decay: 0.0001
clip_norm: 0.0
ema: 0.0
schedule: cosine
warmup: 0.05
decay: 0.1
decay_epochs: 5.0
frozen_epochs: 0
thaw_factor: 1.0
layer_decay: 1.0
freeze_norms: false
keep: loss
patience: 5
precision: auto
xla: auto
strategy: auto
save_every: 1000
seed: 0
"""


def test_a_recipe_file_loads_and_is_written_the_same(tmp_path):
    (tmp_path / "recipe.yaml").write_text(WRITTEN)
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    assert recipe == Recipe(backbone="Xception", weights="none", augment="flip")
    assert recipe.to_yaml() == WRITTEN


def test_a_recipe_from_before_there_were_views_is_that_of_a_network_that_sees_squashed_images(tmp_path):
    (tmp_path / "recipe.yaml").write_text(re.sub("view: auto(.*\n)+dropout", "dropout", WRITTEN))
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    assert recipe == Recipe(backbone="Xception", weights="none", augment="flip", view="squash")


def test_only_the_weight_of_the_category_head_may_be_none():
    types = typing.get_type_hints(Recipe)
    optional = [name for name, kind in types.items() if type(None) in typing.get_args(kind)]
    left_open = [name for name, value in dataclasses.asdict(Recipe()).items() if value is None]
    assert optional == left_open == ["category_weight"]


def test_none_is_the_same_as_leaving_a_field_out():
    names = [field.name for field in dataclasses.fields(Recipe) if field.default is None]
    assert names == ["weights", "image_size", "category_weight", "learning_rate", "freeze_norms"]
    assert Recipe(**dict.fromkeys(names)) == Recipe()


def test_a_recipe_survives_the_round_trip_through_yaml(tmp_path):
    recipe = Recipe(backbone="xception", epochs=3, seed=7, xla="off", weight_decay=1e-5)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    loaded, fields = load_recipe(tmp_path / "recipe.yaml")
    assert loaded == Recipe(**fields) == recipe
    assert recipe_fields(str(tmp_path / "recipe.yaml")) == fields


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be between 1 and 10000, not 0"),
        ("image_size", 16, "image_size must be between 32 and 2048, not 16"),
        ("batch", -1, "batch must be between 1 and 65536, not -1"),
        ("epochs", 2.5, r"epochs must be a whole number, not 2\.5"),
        ("epochs", "many", "epochs must be a whole number, not many"),
        ("epochs", True, "epochs must be a whole number, not True"),
        ("dropout", None, "dropout must be a number, not None"),
        ("optimizer", "rmsprop", "optimizer must be one of adamw, adam, sgd, not rmsprop"),
        (
            "precision",
            "float16",
            "precision must be one of auto, float32, mixed_float16, mixed_bfloat16, not float16",
        ),
        ("weights", 3, "weights must be a string, not 3"),
        ("freeze_norms", "yes", "freeze_norms must be true or false, not yes"),
        ("augment", "gentle", "there is no augmentation gentle; there are forensic, flip, none"),
        ("backbone", "xceptoin", "there is no backbone 'xceptoin'; did you mean xception?"),
        ("learning_rate", float("nan"), "learning_rate must be between 1e-09 and 10.0, not nan"),
        ("augment", {"crop": {"share": 1.5}}, r"crop\.share must be between 0\.1 and 1, not 1\.5"),
        ("augment", {"jpg": {}}, "there is no augmentation jpg; did you mean jpeg?"),
        ("augment", {"jpeg": {"strength": 1}}, "jpeg has no strength; it has probability, quality"),
        ("augment", {"jpeg": {"quality": [0, 50]}}, r"Jpeg\.quality must be \(low, high\) within 1 to 100"),
        (
            "augment",
            {"flip": {"probability": "often"}},
            "flip cannot be used with probability often; it has probability",
        ),
        ("augment", {"crop": {}}, "crop cannot be used without parameters; it has share"),
        ("augment", {1: {}}, "there is no augmentation 1; did you mean"),
        ("augment", {"flip": True}, "augment must map steps to strengths, as in: jpeg:"),
        ("augment", {"mix_up": {"alpha": -1}}, r"mix_up\.alpha must be above 0 and at most 1, not -1"),
        ("augment", {"mix_up": {}, "flip": {}}, "mix_up and cut_mix come last"),
        ("patience", 0, "patience must be between 1 and 10000, not 0"),
        ("seed", -1, "seed must be between 0 and 2147483647, not -1"),
    ],
)
def test_an_invalid_value_is_rejected(field, value, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**{"backbone": "xception", "image_size": 299, field: value})


def test_fields_left_out_follow_from_the_others():
    def following(**fields):
        recipe = Recipe(**fields)
        return recipe.image_size, recipe.weights, recipe.learning_rate, recipe.freeze_norms

    assert following(backbone="Xception") == (299, "imagenet", 3e-4, True)
    assert following(backbone="xception", weights="none") == (299, "none", 1e-3, False)
    assert following(backbone="small_cnn") == (128, "none", 1e-3, False)
    given = {"image_size": 64, "weights": "w.h5", "learning_rate": 0.5, "freeze_norms": False}
    assert following(**given) == tuple(given.values())


def test_numbers_that_yaml_reads_as_strings_or_booleans_are_accepted(tmp_path):
    (tmp_path / "mine.yaml").write_text("learning_rate: 1e-4\nxla: off\nepochs: 3.0\n")
    recipe = Recipe(**recipe_fields(str(tmp_path / "mine.yaml")))
    assert (recipe.learning_rate, recipe.xla, recipe.epochs) == (1e-4, "off", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine\.yaml is no recipe: it must map fields to values, as in: epochs: 12"),
        ("epoch: 12", r"mine\.yaml has an unknown field epoch; did you mean epochs\?"),
        ("qqq: 12", r"mine\.yaml has an unknown field qqq; the fields are backbone, weights, .*, seed"),
        ("epochs: [", r"mine\.yaml is not valid YAML in line 1: expected the node content, but found"),
        ("seed: 1\nkeep: \0\n", r"mine\.yaml is not valid YAML: unacceptable character #x0000"),
        ("seed: 2026-13-01", r"mine\.yaml is not valid YAML: month must be in 1\.\.12$"),
        (
            "batch: 8\nseed: 1\n'batch': 16\n",
            r"mine\.yaml is not valid YAML in line 3: batch is given twice, first in line 1; keep one$",
        ),
        (
            "augment:\n  jpeg: {quality: [30, 90]}\n  jpeg: {quality: [60, 90]}\n",
            r"mine\.yaml is not valid YAML in line 3: jpeg is given twice, first in line 2; keep one$",
        ),
        ("augment: {jpeg: {quality: [3, 9], quality: [6, 9]}}", r"YAML in line 1: quality is given twice, first in"),
    ],
)
def test_a_malformed_recipe_file_is_rejected(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        recipe_fields(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(raised.value)


def test_keys_that_a_merge_key_brings_may_be_given_again(tmp_path):
    (tmp_path / "mine.yaml").write_text("augment:\n  jpeg: &j {quality: [30, 90]}\n  flip: {<<: *j, quality: 1}\n")
    assert recipe_fields(str(tmp_path / "mine.yaml")) == {
        "augment": {"jpeg": {"quality": [30, 90]}, "flip": {"quality": 1}}
    }


def test_a_step_given_twice_in_an_augmentation_file_is_rejected(tmp_path):
    (tmp_path / "chain.yaml").write_text("flip: {}\nflip: {}\n")
    with pytest.raises(ConfigError, match=r"chain\.yaml is not valid YAML in line 2: flip is given twice, first in"):
        load_chain(str(tmp_path / "chain.yaml"), None, 64)


def test_an_unknown_recipe_is_answered_with_the_shipped_ones():
    with pytest.raises(ConfigError, match=r"there is no recipe mine; give a YAML file, or one of deepfakenet, .*"):
        recipe_fields("mine")


def test_a_run_of_another_version_is_rejected_naming_the_unknown_field(tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: xception\nimage_size: 299\nmomenta: 0.9\n")
    message = r"recipe\.yaml does not fit ddkeras .*has an unknown field momenta; did you mean momentum\?"
    with pytest.raises(ConfigError, match=message):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_short_and_valid(name):
    fields = recipe_fields(name)
    assert Recipe(**fields).backbone == fields["backbone"]
    assert 8 <= len(fields) <= 16


def test_the_shipped_recipes():
    assert shipped_recipes() == [
        "deepfakenet",
        "efficientnet-b4",
        "efficientnetv2-artifact",
        "mobilenetv2",
        "small-cnn",
        "xception-multitask",
    ]


def test_differences_name_the_fields_that_differ():
    recipe = Recipe(backbone="xception", epochs=10, precision="float32")
    other = Recipe(backbone="xception", epochs=20, precision="auto", seed=3)
    assert differences(recipe, other, ["backbone", "epochs", "precision"]) == ["epochs 10, not 20"]
    fields = [field.name for field in dataclasses.fields(Recipe)]
    trained = dataclasses.replace(recipe, view="squash", precision="float32", xla="off", category_weight=0.0)
    assert differences(trained, recipe, fields) == [], "what a training decides"
    assert differences(recipe, trained, ["view"]) == ["view auto, not squash"]
