"""The README's picture of `status`: all that it prints, on a page that stands alone."""

import html
import re
from xml.etree import ElementTree as ET

import pytest
from pictures import draw_status

from collector.commands.status import look
from collector.settings import load_settings


def test_status_is_drawn_whole_and_names_no_host(market_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a picture that lacks a table, or that has its reader's browser ask another host for a font."""
    monkeypatch.setenv("DATABASE_URL", market_url)
    document = look(load_settings())
    drawn = draw_status(document)
    assert re.findall(r"\w+://[^\"]+", drawn) == ["http://www.w3.org/2000/svg"]
    shown = html.unescape("".join(ET.fromstring(drawn).itertext())).replace("\N{NO-BREAK SPACE}", " ")
    for text in ("Kraken collector", "Last 24 hours", *document.former_pairs, *(pair.pair for pair in document.pairs)):
        assert text in shown
