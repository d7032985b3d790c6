"""Explanations as pictures: heat over the image, under it what the model says, and many of them on one sheet."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ddkeras.explanation.explainer import Explained, Explanation
from ddkeras.reporting import contact_sheet
from ddkeras.reporting.document import printable, shortened
from ddkeras.reporting.figures import FONTS
from ddkeras.reporting.palette import LIGHT
from pipelines import atomic

TABLE, SHEET = "explanations.csv", "sheet.png"
_ON_SHEET, _ACROSS = 24, 4  # images at most, and how many of them in a row
_SIDE, _SIDE_ON_SHEET = 320, 180  # pixels that an image is drawn with, at least
_TEXT, _TEXT_ON_SHEET = 15, 12  # pixels of a line's height
_GAP = 4  # between an image and its overlay
_COLOUR = 0.75  # its share where the heat is 1
_LUMINANCE = (0.299, 0.587, 0.114)
_FIELDS = ("explained", "logit", "fake_probability", "verdict", "category", "category_probability")
_LEGEND = {"real": "speaks for real", "fake": "speaks for fake", "other": "speaks for the category"}


class _Line(NamedTuple):
    text: str
    colour: str = LIGHT["ink"]
    bold: bool = False


# --- one image -------------------------------------------------------------------------------------------------


def overlaid(image: np.ndarray, heat: np.ndarray, explained: str) -> np.ndarray:
    """The image in grey, and over it the heat in the colour of what it speaks for.

    Args:
        image: uint8 (height, width, 3), RGB.
        heat: (height, width), from 0 to 1.
        explained: real is blue, fake orange, a category violet.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    colour = np.array(ImageColor.getrgb(LIGHT[_kind(explained)]))
    share = _COLOUR * heat[..., np.newaxis]
    grey = (image @ np.array(_LUMINANCE))[..., np.newaxis]
    return np.rint(grey * (1 - share) + colour * share).astype(np.uint8)


def pair(image: np.ndarray, found: Explanation, side: int) -> tuple[Image.Image, Image.Image]:
    """The image, uint8 (height, width, 3), and its overlay, both `side` pixels high and wide."""
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    heat = Image.fromarray(found.heat).resize((side, side), Image.Resampling.BILINEAR)
    return large, Image.fromarray(overlaid(np.asarray(large), np.asarray(heat), found.explained))


def picture(explained: Explained, side: int = _SIDE, text: int = _TEXT) -> np.ndarray:
    """An image, its overlay beside it, and under them what the model says; or why there is no explanation.

    Args:
        side, text: pixels that the image is drawn with, and that a line of text is high.

    Returns:
        uint8 (height, width, 3), RGB; as large for every file.
    """
    both = Image.new("RGB", (2 * side + _GAP, side), LIGHT["card"])
    found = explained.explanation
    if found is None:
        both.paste(LIGHT["line"], (0, 0, *both.size))
        lines = [_Line("not explained", LIGHT["fail"], True), _Line(explained.error)]
    else:
        image, over = pair(explained.image, found, side)
        both.paste(image, (0, 0))
        both.paste(over, (side + _GAP, 0))
        lines = list(_told(found))
    lines.append(_Line(explained.path, LIGHT["dim"]))
    return np.concatenate([np.asarray(both), _written(lines, text, both.width)])


def _kind(explained: str) -> str:
    return explained if explained in ("real", "fake") else "other"


def _told(found: Explanation) -> Iterator[_Line]:
    colour = LIGHT["dim"] if found.verdict == "unsure" else LIGHT[found.verdict]
    yield _Line(f"{found.verdict}, fake with probability {found.fake_probability:.1%}", colour, True)
    named = f"{found.category} ({found.category_probability:.1%}); " if found.category else ""
    yield _Line(f"{named}colour speaks for {found.explained}")


def _written(lines: list[_Line], text: int, width: int) -> np.ndarray:
    paper = Image.new("RGB", (width, len(lines) * _step(text) + text // 2), LIGHT["card"])
    draw = ImageDraw.Draw(paper)
    for row, line in enumerate(lines):
        font, shown = _font(text, line.bold), shortened(printable(line.text))
        while font.getlength(shown) > width - text:
            shown = shortened(shown, len(shown) - 1)
        draw.text((2, row * _step(text) + text // 4), shown, line.colour, font)
    return np.asarray(paper)


def _step(text: int) -> int:
    return round(1.4 * text)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


# --- many of them ----------------------------------------------------------------------------------------------


def write(
    folder: Path,
    explained: Iterable[Explained],
    title: str,
    *,
    total: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Write a picture of each image, a table of all, and where there are several, a sheet.

    Args:
        folder: an empty one.
        title: of the sheet, one line.
        total: how many images there will be; where they are too many for a sheet, some are taken from everywhere.
        progress: called with (done, total) after each.

    Returns:
        `images`, `errors`, `explained` (how many of what), `on_sheet` (how many), and of a single image its
        `explanation`, the row of the table.
    """
    number = min(total, _ON_SHEET) if total > 1 else 0
    shown = {place * total // number for place in range(number)}
    counts, tiles, row = Counter(), [], {}
    with (folder / TABLE).open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictWriter(file, ("path", "picture", *_FIELDS, "error"))
        table.writeheader()
        for place, one in enumerate(explained):
            row = _row(one, f"{place + 1:0{len(str(total))}}")
            table.writerow(row)
            counts[row["explained"]] += 1
            if row["picture"]:
                drawn = Image.fromarray(picture(one, max(_SIDE, len(one.image))))
                drawn.save(folder / row["picture"], "PNG", compress_level=3)  # 6 takes thrice as long for a 20th less
            if place in shown:
                tiles.append(picture(one, _SIDE_ON_SHEET, _TEXT_ON_SHEET))
            if progress:
                progress(place + 1, total)
    errors = counts.pop(None, 0)
    if tiles:
        _write_sheet(folder / SHEET, tiles, title, total, {_kind(name) for name in counts})
    told = {"images": total, "errors": errors, "explained": dict(sorted(counts.items())), "on_sheet": len(tiles)}
    return {**told, "explanation": row} if total == 1 else told


def _row(one: Explained, number: str) -> dict:
    if one.explanation is None:
        return {"path": one.path, "picture": None, **dict.fromkeys(_FIELDS), "error": one.error}
    stem = re.sub(r"[^\w.-]", "_", Path(one.path).stem)[:40]
    found = {name: getattr(one.explanation, name) for name in _FIELDS}
    return {"path": one.path, "picture": f"{number}-{stem}.png", **found, "error": ""}


def _write_sheet(path: Path, tiles: list[np.ndarray], title: str, total: int, kinds: set[str]) -> None:
    number = f"{len(tiles)} of {total} images" if len(tiles) < total else f"{total} images"
    lines = [_Line(title, bold=True), _Line(f"{number}, each with a scale of its own")]
    lines += [_Line(f"\N{BLACK SQUARE} {_LEGEND[kind]}", LIGHT[kind], True) for kind in _LEGEND if kind in kinds]
    rows = [tiles[first : first + _ACROSS] for first in range(0, len(tiles), _ACROSS)]
    heading = _written(lines, _TEXT_ON_SHEET + 2, len(rows[0]) * tiles[0].shape[1])
    with atomic.file(path) as partial:
        contact_sheet.draw(rows, heading).save(partial, "PNG")
