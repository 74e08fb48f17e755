"""The catalog names as a topic's readers who reads it: a topic that nobody reads keeps nothing, whatever the documents say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from loquat_events import catalog
from loquat_events.catalog import SERVICES, TOPICS, Service, Topic

HOME = Path(__file__).resolve().parents[1]


def read_by(service: Service) -> set[str]:
    """Topics in the service's wiring. It names one only to read it: what is published goes where its type belongs."""
    (wiring,) = (HOME / "services" / service / "src").glob("*/app.py")
    imported = {
        name.name
        for node in ast.walk(ast.parse(wiring.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "loquat_events.catalog"
        for name in node.names
    }
    return {topic.name for name in imported if isinstance(topic := getattr(catalog, name), Topic)}


@pytest.mark.promise("P6")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_what_the_catalog_says_it_reads(service: Service) -> None:
    assert read_by(service) == {t.name for t in TOPICS if service in t.consumers}
