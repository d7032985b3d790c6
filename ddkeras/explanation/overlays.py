"""Explanations as pictures: heatmaps over images, with captions, and contact sheets of them."""

import csv
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ddkeras.explanation.explainer import ExplainedFile, Explanation
from ddkeras.reporting import contact_sheet
from ddkeras.reporting.document import printable, shortened
from ddkeras.reporting.fonts import FONTS
from ddkeras.reporting.palette import LIGHT
from pipelines import atomic, spreadsheets
from pipelines.wording import count_of

TABLE, SHEET = "explanations.csv", "sheet.png"
_COLUMNS = {  # of the table, and the fields of an Explanation that they show
    "explained": "target",
    "logit": "logit",
    "fake_probability": "fake_probability",
    "verdict": "verdict",
    "reason": "reason",
    "predicted_category": "category",
    "category_probability": "category_probability",
}
_MAX_ON_SHEET, _SHEET_COLUMNS = 24, 4
_SIDE, _SHEET_SIDE = 320, 180  # the longer one of an image as drawn, pixels
_FONT_SIZE, _SHEET_FONT_SIZE = 15, 12  # pixels
_GAP = 4  # between an image and its overlay, pixels
# 7 to 14% larger than at the default level, 6, in a quarter of the time.
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}
_OPACITY = 0.75  # of the colour where the heatmap is 1
_PALE = 0.65  # of white, where the network did not look
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_LEGEND = {"real": "evidence for real", "fake": "evidence for fake", "other": "evidence for the category"}


class _Line(NamedTuple):
    text: str
    colour: str = LIGHT["ink"]
    bold: bool = False


# --- one image -------------------------------------------------------------------------------------------------


def blend(image: np.ndarray, heatmap: np.ndarray, target: str) -> np.ndarray:
    """The image in grey, with the heatmap over it in the colour of the target.

    Args:
        image: uint8 (height, width, 3), RGB.
        heatmap: (height, width), 0 to 1, or NaN where the network did not look, which is drawn pale.
        target: real is blue, fake is orange, a category is violet.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    colour = np.array(ImageColor.getrgb(LIGHT[_colour_name(target)]))
    opacity = _OPACITY * np.nan_to_num(heatmap)[..., np.newaxis]
    grey = (image @ np.array(_LUMINANCE))[..., np.newaxis]
    grey = np.where(np.isnan(heatmap)[..., np.newaxis], grey * (1 - _PALE) + 255 * _PALE, grey)
    return np.rint(grey * (1 - opacity) + colour * opacity).astype(np.uint8)


def image_and_overlay(explanation: Explanation, side: int) -> tuple[Image.Image, Image.Image]:
    """The image and the overlay, the longer side of each `side` pixels."""
    height, width = explanation.heatmap.shape
    scale = side / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    image = Image.fromarray(explanation.image).resize(size, Image.Resampling.BICUBIC)
    unseen = np.isnan(explanation.heatmap)
    heatmap = Image.fromarray(np.nan_to_num(explanation.heatmap)).resize(size, Image.Resampling.BILINEAR)
    is_unseen = Image.fromarray(unseen).resize(size, Image.Resampling.NEAREST)
    seen = np.where(np.asarray(is_unseen), np.nan, np.asarray(heatmap))
    return image, Image.fromarray(blend(np.asarray(image), seen, explanation.target))


def draw(file: ExplainedFile, side: int = _SIDE, font_size: int = _FONT_SIZE) -> np.ndarray:
    """Draw an image and its overlay side by side, over what the model says; or the error.

    Args:
        side: the longer side of the image as drawn, pixels.
        font_size: of the caption, pixels.

    Returns:
        uint8 (height, width, 3), RGB; the size does not depend on the file.
    """
    panel = Image.new("RGB", (2 * side + _GAP, side), LIGHT["card"])
    if file.explanation is None:
        panel.paste(LIGHT["line"], (0, 0, *panel.size))
        lines = [_Line("not explained", LIGHT["fail"], bold=True), _Line(file.error)]
    else:
        image, overlay = image_and_overlay(file.explanation, side)
        left, top = (side - image.width) // 2, (side - image.height) // 2
        panel.paste(image, (left, top))
        panel.paste(overlay, (side + _GAP + left, top))
        lines = list(_caption(file.explanation))
    lines.append(_Line(file.path, LIGHT["dim"]))
    return np.concatenate([np.asarray(panel), _draw_text(lines, font_size, panel.width)])


def _colour_name(target: str) -> str:
    return target if target in ("real", "fake") else "other"


def _caption(explanation: Explanation) -> Iterator[_Line]:
    colour = LIGHT["dim"] if explanation.verdict == "unsure" else LIGHT[explanation.verdict]
    yield _Line(f"{explanation.verdict}, fake with probability {explanation.fake_probability:.1%}", colour, bold=True)
    category = f"{explanation.category} ({explanation.category_probability:.1%}); " if explanation.category else ""
    pale = "; pale: in no window" if np.isnan(explanation.heatmap).any() else ""
    yield _Line(f"{category}in colour: evidence for {explanation.target}{pale}")


def _draw_text(lines: list[_Line], font_size: int, width: int) -> np.ndarray:
    """Lines of text, each cut at its start to fit the width."""
    line_height = round(1.4 * font_size)
    paper = Image.new("RGB", (width, len(lines) * line_height + font_size // 2), LIGHT["card"])
    canvas = ImageDraw.Draw(paper)
    for index, line in enumerate(lines):
        font, text = _font(font_size, line.bold), shortened(printable(line.text))
        while font.getlength(text) > width - font_size:
            text = shortened(text, len(text) - 1)
        canvas.text((2, index * line_height + font_size // 4), text, line.colour, font)
    return np.asarray(paper)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), size)


# --- many images -----------------------------------------------------------------------------------------------


def write(
    folder: Path,
    files: Iterable[ExplainedFile],
    title: str,
    *,
    total: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Write a picture of each image, a table of all, and for several images a contact sheet.

    Args:
        folder: an empty folder.
        title: of the sheet, one line.
        total: number of files. If they do not all fit on the sheet, it shows a selection at regular intervals.
        progress: called with (files done, total).

    Returns:
        `images`, `errors` and `on_sheet`, which are counts; `explained`, a count for each target; and for a single
        file its `explanation`, the row of the table.
    """
    number = min(total, _MAX_ON_SHEET) if total > 1 else 0
    on_sheet = {index * total // number for index in range(number)}
    targets: Counter[str] = Counter()
    tiles: list[np.ndarray] = []
    row: dict = {}
    with (folder / TABLE).open("w", newline="", encoding="utf-8", errors="surrogateescape") as csv_file:
        table = csv.DictWriter(csv_file, ("path", "picture", *_COLUMNS, "error"))
        table.writeheader()
        for index, file in enumerate(files):
            row = _row(file, f"{index + 1:0{len(str(total))}}")
            table.writerow({name: spreadsheets.harmless(cell) for name, cell in row.items()})
            if file.explanation:
                targets[file.explanation.target] += 1
                picture = Image.fromarray(draw(file, max(_SIDE, *file.explanation.heatmap.shape)))
                picture.save(folder / row["picture"], "PNG", **_PNG)
            if index in on_sheet:
                tiles.append(draw(file, _SHEET_SIDE, _SHEET_FONT_SIZE))
            if progress:
                progress(index + 1, total)
    if tiles:
        _write_sheet(folder / SHEET, tiles, title, total, {_colour_name(target) for target in targets})
    summary = {
        "images": total,
        "errors": total - targets.total(),
        "explained": dict(sorted(targets.items())),
        "on_sheet": len(tiles),
    }
    return {**summary, "explanation": row} if total == 1 else summary


def _row(file: ExplainedFile, number: str) -> dict:
    if file.explanation is None:
        return {"path": file.path, "picture": None, **dict.fromkeys(_COLUMNS), "error": file.error}
    stem = re.sub(r"[^\w.-]", "_", Path(file.path).stem)[:40]
    values = {name: getattr(file.explanation, field) for name, field in _COLUMNS.items()}
    return {"path": file.path, "picture": f"{number}-{stem}.png", **values, "error": ""}


def _write_sheet(path: Path, tiles: list[np.ndarray], title: str, total: int, colours: set[str]) -> None:
    number = f"{len(tiles)} of {total} images" if len(tiles) < total else count_of(total, "image")
    lines = [_Line(title, bold=True), _Line(f"{number}, each on a scale of its own")]
    lines += [
        _Line(f"\N{BLACK SQUARE} {text}", LIGHT[name], bold=True) for name, text in _LEGEND.items() if name in colours
    ]
    rows = [tiles[start : start + _SHEET_COLUMNS] for start in range(0, len(tiles), _SHEET_COLUMNS)]
    heading = _draw_text(lines, _SHEET_FONT_SIZE + 2, len(rows[0]) * tiles[0].shape[1])
    with atomic.file(path) as partial:
        contact_sheet.draw(rows, heading).save(partial, "PNG", **_PNG)
