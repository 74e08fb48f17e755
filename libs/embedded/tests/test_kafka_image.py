"""Kafka where there is no Java: what the `docker` command is told, and what its absence says."""

from __future__ import annotations

from pathlib import Path

import pytest
from loquat_embedded import kafka, kafkaimage


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs there is."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kafka, "DEPLOY", tmp_path)  # no jars fetched before
    kafkaimage.engine_answers.cache_clear()
    return tmp_path


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_without_java_and_docker_the_reason_names_all_that_is_missing(tools: Path) -> None:
    assert kafka.missing() == "neither Docker nor Maven and Java: no Docker engine answers, java and mvn not found"
    program(tools, "java", "exit 0")
    assert kafka.missing() == "neither Docker nor Maven and Java: no Docker engine answers, mvn not found"
    program(tools, "mvn", "exit 0")
    assert kafka.missing() is None


def test_a_docker_command_without_an_engine_is_no_docker(tools: Path) -> None:
    program(tools, "docker", "echo 'Cannot connect' >&2; exit 1")
    assert kafka.missing() is not None
    kafkaimage.engine_answers.cache_clear()
    program(tools, "docker", "exit 0")
    assert kafka.missing() is None


def test_the_image_gets_the_same_limits_as_the_jars_and_is_reached_on_this_machine_only() -> None:
    told = kafkaimage.command("loquat-kafka-x", 9092)
    settings = (Path(__file__).resolve().parents[3] / "deploy" / "kafka-local" / "server.properties").read_text()
    largest = next(line for line in settings.splitlines() if line.startswith("message.max.bytes")).partition("=")[2]
    assert f"KAFKA_MESSAGE_MAX_BYTES={largest}" in told
    assert "KAFKA_AUTO_CREATE_TOPICS_ENABLE=false" in told
    assert "127.0.0.1:9092:9092" in told
    assert "KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:9092" in told
    assert told[-1].startswith("apache/kafka:4.")
    assert len([part for part in told if part.startswith("KAFKA_LISTENERS=")]) == 1


def test_a_home_keeps_its_container_and_another_one_has_its_own(tmp_path: Path) -> None:
    assert kafkaimage.name_of(tmp_path) == kafkaimage.name_of(tmp_path)
    assert kafkaimage.name_of(tmp_path) != kafkaimage.name_of(tmp_path / "other")
