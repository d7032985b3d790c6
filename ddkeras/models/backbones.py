"""Names of backbones, and the trunks they stand for: RGB in 0..255 in, a feature map out."""

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
    """A trunk of `keras.applications` or `networks`, the input size it was made for, and where pixels are scaled."""

    application: Callable[..., keras.Model]
    image_size: int
    scales_itself: bool = False  # takes 0..255; the others take -1..1
    ours: bool = False  # of `networks`: made from the image size alone, with no pretrained weights to be had

    @property
    def keras_name(self) -> str:
        """As in `keras.applications`, e.g. `EfficientNetV2B0`, or in `networks`."""
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
    """The key of `BACKBONES` that `name` means, whatever its case, hyphens and underscores.

    Raises:
        ConfigError: there is no such backbone; the nearest is suggested.
    """
    known = {_letters(key): key for key in BACKBONES}
    wanted = _letters(name)
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
        hint = f"; did you mean {known[near[0]]}?" if near else "."
        raise ConfigError(f"there is no backbone {name!r}{hint} Known: {', '.join(BACKBONES)}")
    return known[wanted]


def build_trunk(name: str, *, image_size: int, weights: str = "imagenet") -> keras.Model:
    """A trunk with its pixel scaling inside.

    Args:
        name: a backbone, see `BACKBONES`.
        image_size: height and width of the input, at least 32.
        weights: `imagenet` (downloaded once by Keras; not for our own `networks`), `none` (random), or a file of the
            trunk's weights: those of the application without its top.

    Returns:
        A model from float32 (batch, image_size, image_size, 3), RGB in 0..255, to (batch, rows, columns, channels).

    Raises:
        ConfigError: unknown name, or weights that cannot be had or do not fit.
    """
    name = canonical_name(name)
    backbone = BACKBONES[name]
    if backbone.ours and weights == "imagenet":
        raise ConfigError(f"{name} has no ImageNet weights; give --weights none, or a file with --weights FILE")
    trunk = backbone.application(image_size) if backbone.ours else _application(backbone, name, image_size)
    _shorten_memory(trunk)
    if weights != "none":
        _load_pretrained(trunk, backbone, weights)
    return trunk


def _application(backbone: Backbone, name: str, image_size: int) -> keras.Model:
    images = keras.Input((image_size, image_size, 3), name="images")
    scaled = images if backbone.scales_itself else keras.layers.Rescaling(1 / 127.5, offset=-1)(images)
    return backbone.application(include_top=False, weights=None, input_tensor=scaled, name=name)


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _shorten_memory(trunk: keras.Model) -> None:
    # The published momenta, up to 0.999, are for a million steps. In a run of some hundred the moving statistics
    # would still be those of the start, and every validation loss with them.
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
            # Its file holds the standard deviation where the variance belongs. Keras makes up for that with one
            # more Rescaling layer, but only under weights="imagenet"; with the right variance none is needed.
            layer.set_weights([_IMAGENET_MEAN, _IMAGENET_STD**2, np.array(0)])
            layer.finalize_state()


def _load_file(trunk: keras.Model, backbone: Backbone, path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no weights file {path}; give imagenet, none, or a file that exists")
    try:
        trunk.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{path} does not fit {backbone.keras_name} without its top ({_first_line(error)}); "
            "give a file of this backbone's weights without its top; of Keras's own, the one that says notop"
        ) from error


def _download_imagenet(backbone: Backbone) -> keras.Model:
    try:
        return backbone.application(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails, and names the address
        found = re.search(r"URL fetch failure on (\S+?):? ", str(error))
        if not found and not isinstance(error, OSError):
            raise
        address = found.group(1) if found else f"the notop weights of keras.applications.{backbone.keras_name}"
        raise ConfigError(
            f"the ImageNet weights of {backbone.keras_name} cannot be downloaded: get {address} on a machine with "
            "a network and give the file with --weights FILE, or train without: --weights none"
        ) from error
