"""Draw the picture of the README, docs/images/report.png: the report of a small run on sample data.

    .venv/bin/python scripts/readme_picture.py

Takes a minute or two. Needs Chromium (`apt-get install chromium`) and Playwright (`scripts/install.sh dev`).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import ddkeras as ddk
from pipelines.datasets.sample_data import write_sample_data

PICTURE = Path(__file__).parents[1] / "docs/images/report.png"
WIDTH, HEIGHT, COLOURS = 1000, 700, 128


def main() -> None:
    """Train, evaluate, and take a screenshot of the report."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        screenshot(evaluate(Path(folder)), chromium)
    with Image.open(PICTURE) as picture:
        few_colours = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few_colours.save(PICTURE, optimize=True)


def evaluate(folder: Path) -> Path:
    """The report.html of a run that is trained on sample data."""
    data = folder / "data"
    data.mkdir()
    write_sample_data(data, images=480, size=64)
    records = ddk.convert(data, folder / "records")
    run = ddk.fit(
        records, runs=folder / "runs", backbone="small-cnn", image_size=64, batch=16, epochs=8, augment="flip"
    )
    ddk.evaluate(run, records, ["test"], degrade=40)["test"].report(folder / "report")
    return folder / "report/report.html"


def screenshot(page_path: Path, chromium: str) -> None:
    """The top of a page, at twice the resolution of the screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        page.goto(page_path.as_uri())
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main()
