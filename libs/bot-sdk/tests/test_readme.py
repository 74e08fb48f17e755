"""What the README shows works, and passes the strict type checker as it stands; so do the starter bot and the examples."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loquat_embedded.postgres import Cluster

SDK = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (SDK / "README.md").read_text(), re.MULTILINE | re.DOTALL)


async def test_every_block_of_the_readme_runs_and_its_tests_pass(platform_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUAT_SCRATCH_DATABASE", platform_cluster.dsn())
    names: dict[str, Any] = {"__name__": "readme"}
    passed: list[str] = []
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102
        for name, value in list(names.items()):  # with the bot as it is at this block
            if name.startswith("test_") and name not in passed and inspect.iscoroutinefunction(value):
                await value()
                passed.append(name)
    assert len(passed) == 16


def test_bots_written_with_the_public_names_pass_the_strict_type_checker(tmp_path: Path) -> None:
    imports = [line for block in BLOCKS for line in block.splitlines() if re.match(r"from loquat|import ", line)]
    rest = [line for block in BLOCKS for line in block.splitlines() if not re.match(r"from loquat|import ", line)]
    (tmp_path / "readme.py").write_text("\n".join(imports + rest) + "\n")
    starter = SDK.parents[1] / "bots" / "starter"
    for name in ("bot.py", "db_services.py"):
        (tmp_path / name).write_text((starter / name).read_text())
    for example in (SDK.parents[1] / "examples").glob("*/bot.py"):
        (tmp_path / f"{example.parent.name}.py").write_text(example.read_text())
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "pythonVersion": "3.11"}))
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55, cwd=tmp_path)  # noqa: S603
    assert run.returncode == 0, run.stdout
