"""JPEG compression on the accelerator: encoding and decoding, without the lossless entropy coding between them.

The arithmetic is that of libjpeg and libjpeg-turbo with Pillow's defaults (the DCT is `JDCT_ISLOW`), rounding by
rounding, in float32. Float32 holds integers exactly up to 2**24; larger sums, in the second half of a DCT, are why
one value in 300,000 of photographs differs, by 1 or 2. There are no matrix products, which a GPU would round.
"""

import numpy as np
from keras import ops

from pipelines.media.jpeg_tables import CHROMINANCE, LUMINANCE, at_every_quality


def compress(images, quality, subsampled):
    """Compress images with JPEG and decompress them.

    Args:
        images: float32 (batch, height, width, 3), RGB in 0..255, of any height and width; rounded first.
        quality: (batch,), libjpeg's 1 to 100; rounded and clipped to that range.
        subsampled: bool (batch,), whether chroma is subsampled to half the height and width (4:2:0, the default of
            most programs) or not (4:4:4).

    Returns:
        float32 (batch, height, width, 3), integers in 0..255.
    """
    height, width = images.shape[1:3]
    quality = ops.cast(ops.round(ops.clip(quality, 1, 100)), "int32")
    tables = ops.take(_TABLES, quality - 1, axis=-1)
    planes = _rgb_to_ycc(ops.round(images))
    luma_and_chroma = _quantise_blocks(planes, tables)
    halved = _quantise_blocks(_subsample(planes[1:]), tables[:, :, 1:])[:, :, : -(-height // 2), : -(-width // 2)]
    doubled = _upsample(halved)[:, :, :height, :width]
    chroma = ops.where(subsampled[:, None, None], doubled, luma_and_chroma[1:])
    return _ycc_to_rgb(luma_and_chroma[0], chroma[0], chroma[1])


def _quantisation_tables() -> np.ndarray:
    """float32 (8, 8, 3, 100): of Y, Cb and Cr at qualities 1 to 100."""
    luma, chroma = (at_every_quality(table).transpose(1, 2, 0) for table in (LUMINANCE, CHROMINANCE))
    return np.stack([luma, chroma, chroma], axis=2).astype("float32")


_TABLES = _quantisation_tables()


# --- colour ----------------------------------------------------------------------------------------------------
# JFIF's matrices in 16-bit fixed point, as in jccolor.c and jdcolor.c. Sums stay below 2**24.


def _rgb_to_ycc(images):
    """RGB (batch, height, width, 3) as Y, Cb and Cr: (3, batch, height, width)."""
    red, green, blue = (images[..., channel] for channel in range(3))
    luma = _shift_right(19595 * red + 38470 * green + 7471 * blue, 16)
    centre = 128 * 2**16 - 1  # minus one, so that 255.5 is not reached
    cb = _shift_right(centre - 11059 * red - 21709 * green + 32768 * blue, 16)
    cr = _shift_right(centre + 32768 * red - 27439 * green - 5329 * blue, 16)
    return ops.stack([luma, cb, cr])


def _ycc_to_rgb(luma, cb, cr):
    """Y, Cb and Cr, each (batch, height, width), as RGB (batch, height, width, 3)."""
    cb, cr = cb - 128, cr - 128
    red = luma + _shift_right(91881 * cr, 16)
    green = luma + _shift_right(-22554 * cb - 46802 * cr, 16)
    blue = luma + _shift_right(116130 * cb, 16)
    return ops.clip(ops.stack([red, green, blue], axis=-1), 0.0, 255.0)


# --- chroma subsampling ------------------------------------------------------------------------------------------


def _subsample(planes):
    """(2, batch, height, width) to (2, batch, height / 2, width / 2), rounded up, the width to whole blocks."""
    # jcsample.c's h2v2_downsample. At the right edge pixels are repeated up to the last block before averaging; at
    # the bottom the averages are repeated, which is left to `_quantise_blocks`.
    planes = _pad_edge(_pad_edge(planes, axis=2, multiple=2), axis=3, multiple=16)
    _, _, height, width = planes.shape
    pairs = ops.reshape(planes, (2, -1, height // 2, 2, width // 2, 2))
    sums = pairs[:, :, :, 0, :, 0] + pairs[:, :, :, 0, :, 1] + pairs[:, :, :, 1, :, 0] + pairs[:, :, :, 1, :, 1]
    return ops.floor(sums * 0.25 + np.resize(np.float32([0.25, 0.5]), width // 2))  # rounds down and up alternately


def _upsample(planes):
    """(2, batch, height, width) to (2, batch, 2 height, 2 width)."""
    if planes.shape[3] <= 2:
        return ops.repeat(ops.repeat(planes, 2, axis=2), 2, axis=3)
    # jdsample.c's h2v2_fancy_upsample: weights of 3/4 and 1/4 in each direction, rounded once.
    rows = _interleave(*_weighted_neighbours(planes, axis=2), axis=2)
    left, right = _weighted_neighbours(rows, axis=3)
    return ops.floor(_interleave(left / 16 + 8 / 16, right / 16 + 7 / 16, axis=3))


def _weighted_neighbours(planes, axis: int):
    """Three times each value plus the one before it, and plus the one after it; at an edge, itself."""
    before = ops.concatenate([_slice_axis(planes, axis, 0, 1), _slice_axis(planes, axis, 0, -1)], axis)
    after = ops.concatenate([_slice_axis(planes, axis, 1, None), _slice_axis(planes, axis, -1, None)], axis)
    return 3 * planes + before, 3 * planes + after


def _interleave(even, odd, axis: int):
    shape = [-1 if length is None else length for length in even.shape]
    shape[axis] *= 2
    return ops.reshape(ops.stack([even, odd], axis + 1), shape)


# --- blocks ----------------------------------------------------------------------------------------------------


def _quantise_blocks(planes, tables):
    """Planes after DCT, quantisation, dequantisation and inverse DCT.

    Args:
        planes: (kinds, batch, height, width), integers in 0..255.
        tables: (8, 8, kinds, batch), the divisor of each coefficient.

    Returns:
        As `planes`.
    """
    kinds, _, height, width = planes.shape
    planes = _pad_edge(_pad_edge(planes, axis=2, multiple=8), axis=3, multiple=8)
    rows, columns = planes.shape[2] // 8, planes.shape[3] // 8
    blocks = ops.reshape(planes - 128, (-1, rows, 8, columns, 8))
    blocks = ops.reshape(ops.transpose(blocks, (2, 4, 0, 1, 3)), (8, 8, -1, rows * columns))
    blocks = _inverse_dct(_quantise(_dct(blocks), ops.reshape(tables, (8, 8, -1, 1))))
    blocks = ops.transpose(ops.reshape(blocks, (8, 8, -1, rows, columns)), (2, 3, 0, 4, 1))
    planes = ops.reshape(blocks, (kinds, -1, 8 * rows, 8 * columns))[:, :, :height, :width]
    return ops.clip(planes + 128, 0.0, 255.0)


def _pad_edge(planes, axis: int, multiple: int):
    """The last value repeated along an axis, up to a length that is a multiple of `multiple`."""
    missing = -planes.shape[axis] % multiple
    if not missing:
        return planes
    return ops.concatenate([planes, ops.repeat(_slice_axis(planes, axis, -1, None), missing, axis)], axis)


def _slice_axis(planes, axis: int, start: int, stop: int | None):
    return planes[(slice(None),) * axis + (slice(start, stop),)]


def _quantise(coefficients, tables):
    # The coefficients are multiples of 1/8. libjpeg rounds halves away from 0. Rounding to even does the same after a
    # scaling that makes halves slightly larger, and that is too small to affect anything else.
    levels = ops.round(coefficients * ((1 + 2.0**-16) / 8 / tables))
    return levels * tables


# --- DCT -------------------------------------------------------------------------------------------------------
# jfdctint.c and jidctint.c: the factorisation of Loeffler, Ligtenberg and Moschytz (1989), scaled by the square root
# of 8, with 13-bit constants. Two more bits are kept between rows and columns. Blocks are (8, 8, planes, blocks of a
# plane), so that the same row of all blocks is contiguous in memory.


def _dct(blocks):
    rows = _shift_right(ops.stack(_dct_of_eight([blocks[:, i] for i in range(8)]), axis=1), 11)
    return _shift_right(ops.stack(_dct_of_eight([rows[i] for i in range(8)])), 15)


def _inverse_dct(coefficients):
    columns = _shift_right(ops.stack(_inverse_dct_of_eight([coefficients[i] for i in range(8)])), 11)
    return _shift_right(ops.stack(_inverse_dct_of_eight([columns[:, i] for i in range(8)]), axis=1), 18)


def _dct_of_eight(x: list) -> list:
    sums = [x[i] + x[7 - i] for i in range(4)]
    differences = [x[i] - x[7 - i] for i in range(4)]
    outer, inner = sums[0] + sums[3], sums[1] + sums[2]
    y2, y6 = _rotate(sums[0] - sums[3], sums[1] - sums[2])
    y1, y3, y5, y7 = _odd_half(*differences)
    return [(outer + inner) * 8192, y1, y2, y3, (outer - inner) * 8192, y5, y6, y7]


def _inverse_dct_of_eight(y: list) -> list:
    outer, inner = (y[0] + y[4]) * 8192, (y[0] - y[4]) * 8192
    p, q = _rotate(y[2], y[6])
    even = [outer + p, inner + q, inner - q, outer - p]
    odd = _odd_half(y[1], y[3], y[5], y[7])
    x = list(zip(even, odd, strict=True))
    return [e + o for e, o in x] + [e - o for e, o in reversed(x)]


def _rotate(p, q):
    common = (p + q) * 4433
    return common + p * 6270, common - q * 15137


def _odd_half(a, b, c, d):
    """The odd half, whose matrix is symmetric: the same for both directions."""
    total = (a + b + c + d) * 9633
    ac, bd = total - (a + c) * 3196, total - (b + d) * 16069
    ad, bc = (a + d) * 7373, (b + c) * 20995
    return a * 12299 - ad + ac, b * 25172 - bc + bd, c * 16819 - bc + ac, d * 2446 - ad + bd


def _shift_right(x, bits: int):
    """Integers shifted right by some bits, rounded to nearest, halves up."""
    return ops.floor(x * 2.0**-bits + 0.5)
