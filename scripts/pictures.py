"""Make the pictures of the README again, from a market that is being collected (scripts/dev.sh, for some minutes).

    PYTHONPATH=.:tests DATABASE_URL=postgresql://… .venv/bin/python scripts/pictures.py http://127.0.0.1:8000/

Writes scripts/pictures/status.svg and scripts/pictures/dashboard.png; each is judged by eye before it is committed.
"""

import io
import sys
from pathlib import Path

from browser import find_browser
from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console

from collector.commands.status import look
from collector.commands.status_document import Document
from collector.commands.status_report import print_status
from collector.settings import load_settings

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = 92  # as many as the widest table takes
WIDTH, HEIGHT = 1280, 800  # pixels; the page is taken to its end
COLORS = 128  # a third of the bytes, and no difference to the eye
FILLED = 15  # seconds, in which the page has drawn everything, and has a little of what it draws second by second
# Rich's own frame names a host for its font. Letters are placed by their lengths, so that any monospaced one will do.
FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
.{unique_id}-title {{ font: bold 18px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def draw_status(document: Document) -> str:
    """What `status` prints, as SVG."""
    console = Console(record=True, width=COLUMNS, highlight=False, force_terminal=True, file=io.StringIO())
    print_status(document, console)
    return console.export_svg(title="python -m collector status", code_format=FRAME)


def photograph(address: str, picture: Path) -> None:
    """Save what the page at an address looks like in a light browser."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=find_browser()) as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(address)
        page.wait_for_timeout(FILLED * 1000)
        pixels = io.BytesIO(page.screenshot(full_page=True))
    image = Image.open(pixels).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    image.save(picture, optimize=True)


def main(address: str) -> None:
    """Write both pictures."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "status.svg").write_text(draw_status(look(load_settings())))
    photograph(address, PICTURES / "dashboard.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
