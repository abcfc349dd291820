"""The dashboard and the alert rules for Grafana and Prometheus: all that they ask for is told by a collector."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from exposed import made
from prometheus_client import CollectorRegistry, ProcessCollector

from collector.statistics import PairStatistics, Statistics

FOLDER = Path(__file__).parent.parent / "scripts" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PANELS = DASHBOARD["panels"]
GRID_WIDTH = 24
UNSURE = {"instance", "job", "le"}  # labels that the scrape adds, and that of histograms


def told() -> dict[str, set[str]]:
    """Every sample that a collector has, with its labels."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    families = [*made(Statistics(pairs={"BTC/USD": PairStatistics()})).values(), *registry.collect()]
    samples: dict[str, set[str]] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def queries() -> Iterator[tuple[str, str]]:
    """Every query, as Prometheus gets it, and where it is."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$pair", ".*")
    for rule in RULES:
        yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("place", "query"), list(queries()))
def test_query_asks_for_what_is_told(place: str, query: str) -> None:
    """Prevents a panel that stays empty, and an alert that never comes, since a name is not right."""
    promql_parser.parse(query)  # raises for what Prometheus would refuse to load
    samples = told()
    names = set(re.findall(r"\b(?:kraken_collector|process)_[a-z_]+\b", query))
    assert names, place
    assert names <= samples.keys(), place
    labels = {
        label for listed in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query) for label in re.split(r",\s*", listed)
    } | set(re.findall(r"\b([a-z]+)=~?\"", query))
    assert labels <= set().union(*(samples[name] for name in names)) | UNSURE, place


def test_alerts_say_what_to_look_at() -> None:
    """Prevents an alert that wakes somebody and leaves them with its name alone."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert {"KrakenFeedStale", "KrakenGapOpen", "KrakenBacklogGrowing", "KrakenChecksumFailures"} <= set(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            by = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
            assert label == "instance" or any(label in listed for listed in by), rule["alert"]


def test_events_that_alerts_name_are_logged() -> None:
    """Prevents a person from searching the log for an event that is not there."""
    sources = "\n".join(path.read_text() for path in (FOLDER.parent.parent / "collector").rglob("*.py"))
    for rule in RULES:
        for event in re.findall(r"`([a-z]+_?[a-z]+)`", rule["annotations"]["description"]):
            assert f'"{event}"' in sources, rule["alert"]


def test_panels_fill_the_grid_without_overlap() -> None:
    """Prevents a dashboard whose panels lie on each other when it is imported."""
    taken = set()
    for panel in PANELS:
        x, y, width, height = (panel["gridPos"][side] for side in "xywh")
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert not cells & taken
        taken |= cells
        assert x + width <= GRID_WIDTH
        assert panel["description"].endswith(".")
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
    assert len(taken) == GRID_WIDTH * (max(row for _, row in taken) + 1)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_dashboard_can_be_imported_anywhere() -> None:
    """Prevents a dashboard that is tied to one installation's data source."""
    sources = re.findall(r'"uid": "([^"]+)"', (FOLDER / "dashboard.json").read_text())
    assert set(sources) == {"${datasource}", DASHBOARD["uid"]}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "pair"]
