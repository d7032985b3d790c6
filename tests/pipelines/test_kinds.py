"""Every kind of image file is read as viewers show it, or refused by name; a file and an exported graph agree."""

import kinds
import numpy as np
import pytest
import tensorflow as tf

from pipelines.decoding import decodable, decode, decode_and_resize
from pipelines.media.headers import UnreadableError, read_header
from pipelines.views import Squash, try_view

KINDS = kinds.all_kinds()
READ, REFUSED = [kind for kind in KINDS if not kind.refusal], [kind for kind in KINDS if kind.refusal]


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_a_file_is_read_as_viewers_show_it(kind):
    header, image = read_header(kind.encoded), decodable(kind.encoded)
    assert (image is kind.encoded) == kind.stored
    assert (header.height, header.width) == kind.pixels.shape[:2]
    np.testing.assert_allclose(
        decode(tf.constant(image)).numpy().astype(int), kind.pixels, rtol=0, atol=kind.tolerance
    )


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
def test_a_file_that_is_not_read_is_named_as_what_it_is(kind):
    with pytest.raises(UnreadableError, match=kind.refusal) as refusal:
        decodable(kind.encoded)
    assert "convert it to" in str(refusal.value)


def test_an_exported_graph_shows_the_same_or_refuses():
    images, sides = try_view(tf.constant([kind.encoded for kind in KINDS]), Squash(8))
    assert {kind.name for kind, side in zip(KINDS, sides.numpy(), strict=True) if side} == {
        kind.name for kind in KINDS if kind.by_graph
    }
    for kind, image in zip(KINDS, images.numpy(), strict=True):
        if kind.by_graph:
            np.testing.assert_array_equal(image, decode_and_resize(tf.constant([decodable(kind.encoded)]), 8)[0])
