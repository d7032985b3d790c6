"""The recipe: checked when built, the same after a trip through YAML."""

import pytest

from ddkeras.config import Recipe
from ddkeras.errors import ConfigError


def test_a_recipe_survives_the_trip_through_yaml(tmp_path):
    recipe = Recipe(backbone="xception", image_size=299, epochs=3, seed=7)
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be between 1 and 10000, not 0"),
        ("image_size", 16, "image_size must be between 32 and 2048, not 16"),
        ("batch_size", -1, "batch_size must be between 1 and 65536, not -1"),
        ("learning_rate", float("nan"), "learning_rate must be between 1e-09 and 10.0, not nan"),
        ("augment", {"crop": {"share": 1.5}}, r"crop\.share must be between 0\.1 and 1, not 1\.5"),
        ("augment", {"jpg": {}}, "there is no augmentation jpg; did you mean jpeg?"),
        ("augment", {"jpeg": {"strength": 1}}, "jpeg has no strength; it has probability, quality"),
        ("augment", {"jpeg": {"quality": [0, 50]}}, r"Jpeg\.quality must be \(low, high\) within 1 to 100"),
        (
            "augment",
            {"flip": {"probability": "often"}},
            "flip cannot be had with probability often; it has probability",
        ),
        ("augment", {"crop": {}}, "crop cannot be had with nothing; it has share"),
        ("augment", {1: {}}, "there is no augmentation 1; did you mean"),
        ("augment", {"flip": True}, "augment must map steps to strengths, as in: jpeg:"),
        ("augment", {"mix_up": {"alpha": -1}}, r"mix_up\.alpha must be above 0 and at most 1, not -1"),
        ("augment", {"mix_up": {}, "flip": {}}, "mix_up and cut_mix come last"),
        ("patience", 0, "patience must be between 1 and 10000, not 0"),
        ("seed", -1, "seed must be between 0 and 2147483647, not -1"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**{"backbone": "xception", "image_size": 299, field: value})


def test_the_learning_rate_follows_the_weights_unless_it_is_given():
    assert Recipe(backbone="xception", image_size=299).learning_rate == 3e-4
    assert Recipe(backbone="xception", image_size=299, weights="none").learning_rate == 1e-3
    assert Recipe(backbone="xception", image_size=299, weights="none", learning_rate=0.5).learning_rate == 0.5


def test_what_is_no_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"recipe\.yaml is no recipe"):
        Recipe.load(tmp_path / "recipe.yaml")


def test_a_recipe_of_another_version_is_refused_by_the_field_it_differs_in(tmp_path):
    (tmp_path / "recipe.yaml").write_text("backbone: xception\nimage_size: 299\nmomentum: 0.9\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml has a field momentum that ddkeras .* does not know"):
        Recipe.load(tmp_path / "recipe.yaml")
