"""A runner that is an ordinary user, and no more visible to bots of the same user than a real one: namespaces without root."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from loquat_sandbox import Level

from tests.ordinary import REFUSED, USER

PROGRAM = """
    import asyncio, json, sys
    from pathlib import Path
    from loquat import protocol
    from loquat_sandbox import Level, Limits, kernel, measure

    async def main():
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        home = Path(sys.argv[1])
        found = await measure(home, Level(int(sys.argv[2])))
        made = await found.sandbox.run("prj", home / "bot", Limits())
        await asyncio.get_running_loop().sock_sendall(made.control, protocol.pack(protocol.Start(made.folder, "postgresql://x@127.0.0.1/x")))
        how = await made.ended()
        said = made.output.read(1000).decode()
        await made.close()
        await found.sandbox.close()
        print(json.dumps({"report": found.sandbox.report(), "missing": found.missing, "how": how, "said": said}))

    asyncio.run(main())
"""
BOT = "import os\nprint(os.getuid(), os.getpid() == 1, flush=True)\nos._exit(5)\n"


@pytest.fixture
def home(clusters_home: Path) -> Path:
    folder = clusters_home / "ordinary"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bot").mkdir(parents=True)
    (folder / "bot" / "bot.py").write_text(BOT)
    os.chown(folder, USER, USER)
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: every test of this package runs as an ordinary user already")
@pytest.mark.parametrize("level", [Level.CONFINED, Level.CONTAINED], ids=lambda level: level.label)
@pytest.mark.promise("P4")
async def test_walls_stand_without_root(home: Path, level: Level) -> None:
    program, root = textwrap.dedent(PROGRAM), Path(__file__).parents[3]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.ordinary", program, str(home), str(int(level)), cwd=root, stdout=-1, stderr=-1
    )
    said, errors = await process.communicate()
    if process.returncode == REFUSED:
        pytest.skip("root may not make a mount namespace here, so no ordinary user can be played")
    if process.returncode:
        pytest.fail(f"the program failed: {errors.decode()[-2000:]}")
    told = json.loads(said)
    if told["report"]["isolation"] < level:
        pytest.skip(f"this machine does not give an ordinary user isolation level {level:d}: {'; '.join(told['missing'])}")
    inside = (1000, True) if level is Level.CONTAINED else (USER, False)
    assert (told["how"], told["said"]) == ("exit 5", f"{inside[0]} {inside[1]}\n")
    assert told["report"]["user_per_project"] is False
