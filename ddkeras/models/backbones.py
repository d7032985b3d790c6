"""Backbones by name: networks from RGB in 0..255 to a feature map."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from ddkeras.exceptions import ConfigError
from ddkeras.models import networks

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Backbone:
    """A network of `keras.applications` or `networks`.

    Args:
        application: the function that builds it, called with `include_top`, `weights`, `input_tensor` and `name` as
            those of `keras.applications`; or, if it is ours, with the image size alone.
        image_size: the input size it was designed for, in pixels; the default of the recipe's.
        scales_itself: whether it takes pixels in 0..255; otherwise in -1..1.
        ours: whether it is of `networks`: built from the image size alone, without pretrained weights.
    """

    application: Callable[..., keras.Model]
    image_size: int
    scales_itself: bool = False
    ours: bool = False

    @property
    def keras_name(self) -> str:
        """The name in `keras.applications`, e.g. `EfficientNetV2B0`, or in `networks`."""
        return self.application.__name__


BACKBONES = {
    "efficientnetv2-b0": Backbone(keras.applications.EfficientNetV2B0, 224, scales_itself=True),
    "efficientnetv2-b1": Backbone(keras.applications.EfficientNetV2B1, 240, scales_itself=True),
    "efficientnetv2-b2": Backbone(keras.applications.EfficientNetV2B2, 260, scales_itself=True),
    "efficientnetv2-b3": Backbone(keras.applications.EfficientNetV2B3, 300, scales_itself=True),
    "efficientnetv2-s": Backbone(keras.applications.EfficientNetV2S, 384, scales_itself=True),
    "efficientnetv2-m": Backbone(keras.applications.EfficientNetV2M, 480, scales_itself=True),
    "efficientnetv2-l": Backbone(keras.applications.EfficientNetV2L, 480, scales_itself=True),
    "xception": Backbone(keras.applications.Xception, 299),
    "efficientnet-b4": Backbone(keras.applications.EfficientNetB4, 380, scales_itself=True),
    "mobilenetv2": Backbone(keras.applications.MobileNetV2, 224),
    "deepfakenet": Backbone(networks.deepfake_net, 128, scales_itself=True, ours=True),
    "small-cnn": Backbone(networks.small_cnn, 128, scales_itself=True, ours=True),
}


def canonical_name(name: str) -> str:
    """The key of `BACKBONES` for `name`, ignoring case, hyphens and underscores.

    Raises:
        ConfigError: there is no such backbone; the message suggests the closest.
    """
    keys = {_normalized(key): key for key in BACKBONES}
    normalized = _normalized(name)
    if normalized not in keys:
        near = difflib.get_close_matches(normalized, keys, n=1, cutoff=0.5)
        hint = f"; did you mean {keys[near[0]]}?" if near else "."
        raise ConfigError(f"there is no backbone {name!r}{hint} Known: {', '.join(BACKBONES)}")
    return keys[normalized]


def build_trunk(name: str, *, image_size: int, weights: str = "imagenet") -> keras.Model:
    """Build a backbone with its pixel scaling inside.

    Args:
        name: see `BACKBONES`.
        image_size: height and width of the input, at least 32.
        weights: `imagenet` (downloaded once by Keras; not for our own `networks`), `none` (random initialization), or
            a file of the backbone's weights without its top.

    Returns:
        A model from float32 (batch, image_size, image_size, 3), RGB in 0..255, to (batch, rows, columns, channels).

    Raises:
        ConfigError: the name is unknown, or the weights are missing or do not fit.
    """
    name = canonical_name(name)
    backbone = BACKBONES[name]
    if backbone.ours and weights == "imagenet":
        raise ConfigError(f"{name} has no ImageNet weights; give --weights none, or a file with --weights FILE")
    trunk = backbone.application(image_size) if backbone.ours else _application(backbone, name, image_size)
    _lower_momentum(trunk)
    if weights != "none":
        _load_pretrained(trunk, backbone, weights)
    return trunk


def _application(backbone: Backbone, name: str, image_size: int) -> keras.Model:
    images = keras.Input((image_size, image_size, 3), name="images")
    scaled = images if backbone.scales_itself else keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    return backbone.application(include_top=False, weights=None, input_tensor=scaled, name=name)


def _normalized(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _lower_momentum(trunk: keras.Model) -> None:
    # The published momenta, up to 0.999, suit a million steps. After a few hundred, the moving statistics would still
    # be close to their initial values, and validation losses meaningless.
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, 0.9)


def _load_pretrained(trunk: keras.Model, backbone: Backbone, weights: str) -> None:
    if weights == "imagenet":
        trunk.set_weights(_download_imagenet(backbone).get_weights())
    else:
        _load_file(trunk, backbone, Path(weights))
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.Normalization) and backbone.keras_name == "EfficientNetB4":
            # The published file holds the standard deviation in place of the variance. Keras corrects for that with
            # an extra Rescaling layer, but only under weights="imagenet"; with the true variance none is needed.
            layer.set_weights([_IMAGENET_MEAN, _IMAGENET_STD**2, np.array(0)])
            layer.finalize_state()


def _load_file(trunk: keras.Model, backbone: Backbone, path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no weights file {path}; give imagenet, none, or a file that exists")
    try:
        trunk.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{path} does not fit {backbone.keras_name} without its top ({_first_line(error)}); give a file of this "
            "backbone's weights without its top; among Keras's own files, one with notop in its name"
        ) from error


def _download_imagenet(backbone: Backbone) -> keras.Model:
    try:
        return backbone.application(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception that names the URL when a download fails
        failure = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        if not failure and not isinstance(error, OSError):
            raise
        address = failure.group(1) if failure else f"the notop weights of keras.applications.{backbone.keras_name}"
        raise ConfigError(
            f"the ImageNet weights of {backbone.keras_name} cannot be downloaded: get {address} on a machine with "
            "a network connection and give the file with --weights FILE, or train without: --weights none"
        ) from error
