"""Draw the picture of the README, docs/images/report.png: the top of the report that `scripts/quickstart.sh` writes.

    scripts/quickstart.sh && .venv/bin/python scripts/readme_picture.py

Needs Chromium (`apt-get install chromium`) and Playwright, which `scripts/install.sh dev` installs.
"""

import argparse
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "artifacts/quickstart/artifacts/runs/latest/evaluation/test/report.html"
PICTURE = ROOT / "docs/images/report.png"
WIDTH, HEIGHT, COLOURS = 1000, 640, 128


def main() -> None:
    """Take a screenshot and store it with few colours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, default=REPORT, help="A report.html of `ddk evaluate`.")
    report = parser.parse_args().report
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not report.is_file() or not chromium:
        sys.exit(f"{report} is missing; run scripts/quickstart.sh" if chromium else "Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        page.goto(report.resolve().as_uri())
        page.screenshot(path=PICTURE)
        browser.close()
    with Image.open(PICTURE) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
