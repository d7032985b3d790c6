"""Pillow: its plug-ins, and its remarks on damaged files."""

import io
import logging
import warnings

import pytest
from PIL import Image
from tiny import encode

from pipelines.media.pillow import can_open, open_image, silence


def test_an_image_is_opened_from_bytes_or_a_file():
    for source in (encode("PNG"), io.BytesIO(encode("PNG"))):
        with open_image(source) as image:
            assert (image.format, image.size) == ("PNG", (40, 40))


def test_only_the_given_format_is_tried():
    with open_image(encode("PNG"), "png") as image:
        assert image.format == "PNG"
    with pytest.raises(Image.UnidentifiedImageError):
        open_image(encode("PNG"), "jpeg")


def test_formats_without_a_plugin_cannot_be_opened():
    assert can_open("tiff")
    assert not can_open("unknown")


def test_silence_hides_remarks_of_pillow_and_nobody_elses(monkeypatch):
    monkeypatch.setattr(logging.getLogger("PIL"), "level", logging.WARNING)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        silence()
        warnings.warn_explicit(
            "corrupt EXIF data", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin"
        )
        warnings.warn_explicit("another", UserWarning, "other.py", 1, module="other")
    assert [str(warning.message) for warning in shown] == ["another"]
    assert logging.getLogger("PIL").level == logging.CRITICAL
