"""The folder of a stack: its lock, its secrets, its logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from loquat_cli.home import AlreadyRunning, Home, read_json, write_private
from loquat_cli.logfiles import bound, last_lines
from loquat_cli.secrets import SecretsBroken, StackSecrets
from loquat_events.catalog import SERVICES


def test_only_one_process_has_a_home_and_the_other_is_told_who(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "home"), Home(tmp_path / "home")
    first.acquire()
    assert second.running()
    with pytest.raises(AlreadyRunning, match=r"already runs in .*home \(process \d+\)"):
        second.acquire()
    first.release()
    assert not second.running()
    second.acquire()
    second.release()


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    script = f"from pathlib import Path; from loquat_cli.home import Home; h = Home(Path({str(tmp_path)!r})); h.acquire(); import os; os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert not Home(tmp_path).running()


def test_a_private_file_is_read_by_its_owner_alone_and_replaced_whole(tmp_path: Path) -> None:
    write_private(tmp_path / "owner.json", '{"a": 1}')
    write_private(tmp_path / "owner.json", '{"a": 2}')
    assert (tmp_path / "owner.json").stat().st_mode & 0o777 == 0o600
    assert read_json(tmp_path / "owner.json") == {"a": 2}
    assert read_json(tmp_path / "none.json") is None
    assert [p.name for p in tmp_path.iterdir()] == ["owner.json"]


def test_secrets_are_made_once_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    first = StackSecrets.load(file)
    assert StackSecrets.load(file) == first
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(first.signing_keys) == set(first.platform_passwords) == set(SERVICES)
    assert len(set(first.platform_passwords.values()) | set(first.tenant_passwords.values())) == 2 * len(SERVICES)


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    made = StackSecrets.load(tmp_path / "secrets.json")
    shown = repr(made)
    hidden = [made.app_secret, made.verify_token, made.key_ring, made.demo_number.token, *made.platform_passwords.values()]
    assert not [h for h in hidden if h in shown]


def test_a_newer_release_completes_the_secrets_and_keeps_the_old_ones(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    first = json.loads(StackSecrets.load(file).model_dump_json())
    for field in ("platform_passwords", "signing_keys"):
        del first[field]["connector"]
    del first["verify_token"]
    write_private(file, json.dumps(first))
    completed = StackSecrets.load(file)
    assert completed.platform_passwords["gateway"] == first["platform_passwords"]["gateway"]
    assert set(completed.signing_keys) == set(completed.platform_passwords) == set(SERVICES)
    assert StackSecrets.load(file) == completed


def test_a_damaged_file_of_secrets_is_not_replaced_by_new_ones(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text('{"key_ring": 3')
    with pytest.raises(SecretsBroken, match=r"secrets\.json is damaged .* Restore it from a backup"):
        StackSecrets.load(file)
    assert file.read_text() == '{"key_ring": 3'


def test_a_log_over_its_size_is_put_aside_and_goes_on_empty(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        bound(log, 1000)
        assert log.stat().st_size == 400
        bound(log, 300)
        writer.write(b"new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "gateway.log.1").stat().st_size == 400


def test_the_last_lines_of_a_log_are_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    log.write_text("".join(f"line {n}\n" for n in range(20_000)) + "\n")
    assert last_lines(log, 2) == ["line 19998", "line 19999"]
    assert last_lines(tmp_path / "none.log", 2) == []
