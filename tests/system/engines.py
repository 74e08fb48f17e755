"""The engines that system tests run on."""

from __future__ import annotations

import pytest
from loquat_embedded.kafka import missing

LACK = missing()
ENGINES = [
    pytest.param("postgres", id="postgres"),
    pytest.param(
        "kafka", id="kafka", marks=[pytest.mark.kafka, pytest.mark.skipif(LACK is not None, reason=f"no real Kafka here: {LACK}")]
    ),
]
