"""The engines that system tests run on."""

from __future__ import annotations

import pytest

ENGINES = [pytest.param("postgres", id="postgres")]
