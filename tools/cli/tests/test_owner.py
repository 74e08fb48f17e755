"""The owner's key is on the disk before anybody else hears of it."""

from __future__ import annotations

from pathlib import Path

from loquat_cli.owner import Fresh


def test_an_owner_that_was_noted_is_found_again_and_only_its_user_can_read_it(tmp_path: Path) -> None:
    noted = Fresh.kept(tmp_path / "owner.new.json", "owner@example.org")
    assert Fresh.kept(tmp_path / "owner.new.json", "another@example.org") == noted
    assert (tmp_path / "owner.new.json").stat().st_mode & 0o777 == 0o600
    assert noted.api_key not in repr(noted)
