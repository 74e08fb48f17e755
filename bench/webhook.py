"""Webhook to durable: the gateway and the bus alone, against a bare aiohttp handler that only checks the signature."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import uuid4

from loquat_cli.settings import StackSettings
from loquat_cli.stack import Stack
from loquat_common.bus.kafka import KafkaBus
from loquat_common.bus.postgres import PostgresBus
from loquat_common.db import open_pool
from loquat_common.settings import BusSettings
from loquat_events.envelope import Event, Payload
from loquat_events.numbers import NumberAttached

from bench.processes import cpu, tree
from tests.system import webhooks

Bus = Literal["postgres", "kafka"]
NUMBER, ROUNDS, SECONDS, CONNECTIONS = "106540352242922", 5, 3.0, 256


async def webhook(bus: Bus) -> None:
    """Closed loop, 256 connections, rounds interleaved, the ratio inside each round. Goal: at least 0.5."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        settings = StackSettings.for_tests(home, bus=bus, durable=True, environment="development")
        async with Stack(settings, with_demo=False) as stack:
            await _attach(stack, bus)
            for name in ("provisioner", "schema-manager", "conversation-log", "bot-runner", "connector", "simulator"):
                await stack.process(name).stop()  # the gateway and the bus alone
            secret = stack.owner.app_secret
            bare = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.bare", secret, stdout=asyncio.subprocess.PIPE)
            assert bare.stdout is not None
            bare_url = f"http://127.0.0.1:{(await bare.stdout.readline()).decode().strip()}/"
            os.sched_setaffinity(bare.pid, {0})
            gateway = stack.process("gateway").pid
            assert gateway is not None
            os.sched_setaffinity(gateway, {0})
            os.sched_setaffinity(0, {1})
            ours = [gateway, *(pid for pid in tree(os.getpid()) if pid not in {gateway, bare.pid, os.getpid()})]
            used, bodies = 0.0, 0.0
            pairs = list[tuple[float, float]]()
            try:
                for _ in range(ROUNDS):
                    base, before = await _round(bare_url, secret), cpu(ours)
                    rate = await _round(f"{stack.gateway}/webhooks/whatsapp", secret)
                    used, bodies = used + cpu(ours) - before, bodies + rate * SECONDS
                    pairs.append((base, rate))
            finally:
                bare.kill()
                await bare.wait()
                os.sched_setaffinity(0, {0, 1})
    ratios = sorted(rate / base for base, rate in pairs)
    print(
        f"webhook to durable: {statistics.median(ratios):.2f} of a bare HMAC handler (goal 0.5), rounds {', '.join(f'{r:.2f}' for r in ratios)};"
        f" {statistics.median(o for _, o in pairs):.0f} per second against {statistics.median(b for b, _ in pairs):.0f}"
    )
    print(f"  CPU per message over all processes of the platform: {used / bodies * 1e6:.0f} µs")
    print("  core 0: the server measured; core 1: the generator; the bus' engine on both")


async def _attach(stack: Stack, bus: Bus) -> None:
    env = stack.plan.environment("connector")
    dsn = env["LOQUAT_PLATFORM_DSN"]
    pool = await open_pool(dsn, search_path="connector, pg_catalog", max_size=2)
    made = (
        KafkaBus(pool, BusSettings(kafka_servers=env["LOQUAT_KAFKA_SERVERS"]), "connector")
        if bus == "kafka"
        else PostgresBus(pool, dsn, "connector")
    )
    await made.start()
    now = datetime.now(UTC)
    attached = NumberAttached(phone_number_id=NUMBER, project_id="prj_bench", waba_id=webhooks.WABA, attached_at=now)
    await made.publish(Event[Payload].of(attached, id=uuid4(), source="/connector", time=now, project="numbers", lane=NUMBER))
    await made.stop()
    await pool.close()
    await asyncio.sleep(1)


async def _round(url: str, secret: str) -> float:
    """Answers of 200 per second."""
    address = urlsplit(url)
    arguments = [address.hostname or "", str(address.port), address.path, secret, str(SECONDS), str(CONNECTIONS), NUMBER]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.load", *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return float(out)
