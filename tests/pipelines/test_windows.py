"""Windows at native resolution: equal to the decoded image, everywhere, and taken where the texture is."""

import io
from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines import windows
from pipelines.decoding import decode
from pipelines.windows import decode_random_windows, decode_windows

SIZE = 16
ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def encode(pixels=NOISE, form="JPEG", orientation=1, **options) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **({"exif": exif} if orientation > 1 else {}), **options)
    return file.getvalue()


FILES = {
    f"{sampling}{' progressive' if progressive else ''}": encode(subsampling=sampling, progressive=progressive)
    for sampling, progressive in product(("4:2:0", "4:2:2", "4:4:4"), (False, True))
}
FILES |= {
    "grey": encode(NOISE[..., 0]),
    "restart markers": encode(subsampling="4:2:0", restart_marker_rows=1),
    "png": encode(form="PNG"),
    "webp": encode(form="WEBP"),
    **{f"turned {number}": encode(subsampling="4:2:0", orientation=number) for number in range(2, 9)},
}


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([None, 2], tf.float32)])
def at_positions(encoded, positions):
    return decode_random_windows(tf.fill(tf.shape(positions)[:1], encoded), positions[:, tf.newaxis], SIZE)[:, 0]


def cut(image, size, count):
    """The windows of an image, and where they lie."""
    image = tf.constant(image)
    return windows.windows(image, size, count).numpy(), windows.corners(image, size, count).numpy().tolist()


def grid(height, width, size, count):
    return [part.numpy().tolist() for part in windows._grid(tf.constant([height, width]), size, count)]


# --- decoding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_window_is_that_part_of_the_decoded_image_at_every_phase(name):
    image = decode(tf.constant(FILES[name])).numpy()
    places = [length - SIZE + 1 for length in image.shape[:2]]
    corners = list(product(*map(range, places)))
    found = at_positions(FILES[name], (np.asarray(corners, np.float32) + 0.5) / places).numpy()
    for (row, column), window in zip(corners, found, strict=True):
        np.testing.assert_array_equal(window, image[row : row + SIZE, column : column + SIZE], f"{row}, {column}")


@pytest.mark.parametrize("name", ["4:2:0", "png", "turned 6"])
def test_several_windows_of_an_image_are_those_at_each_place(name):
    positions = tf.constant([[0.1, 0.9], [0.5, 0], [0.7, 0.3]])
    together = decode_random_windows(tf.constant([FILES[name]] * 2), tf.stack([positions, positions[::-1]]), SIZE)
    alone = at_positions(FILES[name], positions)
    np.testing.assert_array_equal(together, [alone, alone[::-1]])


def test_positions_from_0_to_below_1_reach_every_place():
    image = decode(tf.constant(FILES["png"])).numpy()
    first, last = at_positions(FILES["png"], [[0, 0], [np.nextafter(np.float32(1), 0)] * 2]).numpy()
    np.testing.assert_array_equal(first, image[:SIZE, :SIZE])
    np.testing.assert_array_equal(last, image[-SIZE:, -SIZE:])


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_smaller_than_a_window_is_mirrored_without_repeating_its_edge(form):
    encoded = encode(NOISE[:3, :5], form)
    small = decode(tf.constant(encoded)).numpy()
    (window,) = at_positions(encoded, [[0.9, 0.9]]).numpy()
    rows = [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    columns = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    np.testing.assert_array_equal(window, small[rows][:, columns])
    np.testing.assert_array_equal(decode_windows(tf.constant(encoded), SIZE, 9), [window])


def test_of_a_single_pixel_there_is_one_window_in_its_colour():
    encoded = encode(np.full((1, 1, 3), (1, 2, 3), np.uint8), "PNG")
    (window,) = decode_windows(tf.constant(encoded), SIZE, 9).numpy()
    assert (window == (1, 2, 3)).all()


def test_a_damaged_file_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError):
        at_positions(FILES["4:2:0"][:100], [[0.5, 0.5]])


# --- the grid --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (224, 224, [0], [0]),
        (100, 30, [0], [0]),
        (225, 224, [0, 1], [0]),
        (256, 256, [0, 32], [0, 32]),
        (448, 448, [0, 112, 224], [0, 112, 224]),
        (640, 640, [0, 208, 416], [0, 208, 416]),
        (450, 900, [0, 113, 226], [0, 169, 338, 507, 676]),
        (300, 600, [0, 76], [0, 94, 188, 282, 376]),
        (1000, 700, [0, 194, 388, 582, 776], [0, 158, 317, 476]),
    ],
)
def test_a_grid_covers_the_image_with_as_few_windows_as_are_wanted(height, width, rows, columns):
    assert grid(height, width, 224, 9) == [rows, columns]


def test_a_grid_of_a_very_long_image_is_even():
    (row,), columns = grid(1, 100_000, 224, 9)
    assert (row, columns[0], columns[-1], len(columns)) == (0, 0, 99_776, 447)
    assert set(np.diff(columns).tolist()) == {223, 224}


# --- the choice ------------------------------------------------------------------------------------------------


def test_windows_are_cut_at_their_corners_from_the_upper_left_to_the_lower_right():
    image = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
    found, corners = cut(image, SIZE, 9)
    assert corners == sorted(corners)
    assert len({tuple(corner) for corner in corners}) == 9
    for window, (row, column) in zip(found, corners, strict=True):
        np.testing.assert_array_equal(window, image[row : row + SIZE, column : column + SIZE])


def test_more_windows_than_places_give_each_place_once():
    assert cut(NOISE[:20, :20], SIZE, 9)[1] == [[0, 0], [0, 4], [4, 0], [4, 4]]


def test_textured_windows_are_taken_before_flat_ones_and_those_with_sharp_edges():
    image = np.full((64, 64, 3), 128, np.uint8)
    image[16:32, 32:48] += np.random.default_rng(2).integers(0, 12, (16, 16, 1), np.uint8)  # texture
    image[48:, :8] = 255  # an edge
    image[32:48, :16] += np.arange(16, dtype=np.uint8)[None, :, None]  # a gradient
    assert cut(image, SIZE, 1)[1] == [[16, 32]]
    assert cut(image, SIZE, 2)[1] == [[16, 32], [48, 0]]
    assert cut(image, SIZE, 4)[1] == [[0, 0], [0, 16], [16, 32], [48, 0]], "of equal ones the first"


@pytest.mark.parametrize(("size", "step"), [(16, 1), (35, 2)])
def test_texture_is_the_bounded_energy_of_second_differences_along_sixteen_rows(size, step):
    image = np.random.default_rng(3).integers(100, 120, (50, 70, 3), np.uint8)
    for row, column in product(range(0, 15, 3), range(0, 35, 5)):
        levels = image[row : row + size, column : column + size, 1].astype(int)[-row % step :: step]
        differences = abs(2 * levels[:, 1:-1] - levels[:, :-2] - levels[:, 2:])
        expected = (np.minimum(differences, 16) ** 2 * (differences >= 3)).sum()
        found = windows._texture(tf.constant(image), tf.constant([row]), tf.constant([column]), size)
        assert found.numpy() == [[expected]]
