"""The browser in which the dashboard is tested: the machine's own. As a program it fails where there is none."""

import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_PROGRAMS = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)


def find_browser() -> str | None:
    """The path of a Chromium, or of a Chrome; None where there is none."""
    on_path = next((found for name in NAMES if (found := shutil.which(name))), None)
    return on_path or next((str(program) for program in MAC_PROGRAMS if program.exists()), None)


if __name__ == "__main__":
    sys.exit(find_browser() is None)
