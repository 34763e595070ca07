"""Takes docs/page.png and docs/page-phone.png, screenshots of a sweep's page.

    focal-lab inspect --sweep interactions --num-images 500
    focal-lab report interactions --format html --output page.html
    python docs/page_images.py page.html

Needs Debian's chromium, and playwright, which is one of the development dependencies.
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
SCREENSHOTS = {
    "page.png": {"viewport": {"width": 1200, "height": 2900}, "color_scheme": "light"},
    "page-phone.png": {"viewport": {"width": 390, "height": 2300}, "color_scheme": "dark", "is_mobile": True},
}


def main(page: Path) -> None:
    """Take the screenshots of a page."""
    # chromium's sandbox does not run as root
    flags = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for name, context in SCREENSHOTS.items():
            tab = browser.new_context(**context).new_page()
            tab.goto(page.resolve().as_uri())
            image = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
            small = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
            small.save(DOCS / name, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
