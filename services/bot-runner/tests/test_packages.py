"""`requirements.lock`, what a wheel may bring, and pip's words: decided without any of them being there."""

from __future__ import annotations

import pytest
from loquat_bot_runner.domain.bundle import BundleRefused, checked
from loquat_bot_runner.domain.packages import MOST, flaws, layer_name, lock_of, packages_of
from loquat_bot_runner.domain.pipwords import read
from loquat_bot_runner.domain.wheels import Member, WheelRefused, placed

HASH = "--hash=sha256:" + "a1" * 32
GOOD = f"""# written by a tool, --index-url https://example.org
Tiny_Thing[fast]==1.0+local.1 \\
    {HASH} \\
    --hash=sha256:{"b2" * 32}
    # via -r requirements.txt

colorama==0.4.6 ; sys_platform == 'win32' and python_full_version < "3.13" {HASH}\r
"""

REFUSED = [
    (f"tiny {HASH}", 1, "'tiny' names no version: name==version"),
    (f"tiny>=1.0 {HASH}", 1, "names no version"),
    (f"tiny==1.* {HASH}", 1, "is not name==version"),
    (f"\n\ntiny==1.0; python_version == '3.11'\nother==1 {HASH}", 3, "tiny: it has no hash"),
    ("tiny==1.0 --hash=md5:aa", 1, "is not --hash=sha256:"),
    (f"tiny==1.0 {HASH} --hash=sha256:AA", 1, "is not --hash=sha256:"),
    ("-r other.txt", 1, "the option -r is not taken: where packages come from is the platform's to say"),
    (f"x==1 {HASH}\n--index-url=https://example.org/", 2, "the option --index-url is not taken"),
    ("-e .", 1, "the option -e"),
    (f"tiny @ https://example.org/tiny.whl {HASH}", 1, "is an address or a path"),
    ("./tiny.whl", 1, "is an address or a path"),
    (f"tiny==1.0 ; sys_platform == '${{SECRET}}' {HASH}", 1, "is no condition"),
    (f"tiny==1.0 ; __import__ == 'x' {HASH}", 1, "is no condition"),
    (f"tiny==1.0 {HASH}\nTINY==2.0 {HASH}", 1, "'tiny' stands there twice"),
    ("\n".join(f"p{n}==1 {HASH}" for n in range(MOST + 1)), 1, f"there are {MOST + 1} packages; {MOST} are the limit"),
    (f"{'a' * 40_000}==1 {HASH}", 1, "32768 are the limit"),
]


def test_a_lock_is_read_and_given_to_pip_without_anything_else() -> None:
    assert not [*flaws(GOOD)]
    thing, colorama = packages_of(GOOD)
    assert (thing.name, thing.version, len(thing.hashes), thing.marker) == ("tiny-thing", "1.0+local.1", 2, "")
    marker = "sys_platform == 'win32' and python_full_version < \"3.13\""
    assert lock_of([colorama]) == f"colorama==0.4.6 ; {marker} {HASH}\n"
    assert packages_of(lock_of([thing, colorama])) == (thing, colorama)


@pytest.mark.parametrize(("content", "line", "said"), REFUSED, ids=[said[:30] for _, _, said in REFUSED])
def test_what_pip_would_take_and_the_platform_does_not_is_refused_with_its_line(content: str, line: int, said: str) -> None:
    found = next(flaws(content))
    assert said in found.message
    assert found.line == line


def test_a_bad_lock_is_a_flaw_of_the_bot_with_file_and_line() -> None:
    with pytest.raises(BundleRefused) as refused:
        checked({"bot.py": "", "requirements.lock": "\ntiny\n"})
    (flaw,) = refused.value.flaws
    assert (flaw.code, flaw.file, flaw.line) == ("lock", "requirements.lock", 2)
    assert "loquat bot lock" in flaw.advice


def test_a_layer_is_named_by_what_is_in_it() -> None:
    packages = packages_of(GOOD)
    name = layer_name(packages, "cpython-311 x86_64", ["loquat"])
    assert name == layer_name(packages_of(f"# other words\n{GOOD}"), "cpython-311 x86_64", {"loquat"})
    others = {layer_name(packages[:1], "cpython-311 x86_64", ["loquat"]), layer_name(packages, "cpython-312 x86_64", ["loquat"])}
    assert name not in others | {layer_name(packages, "cpython-311 x86_64", ["loquat", "tiny"])}


def names(*paths: str) -> list[str]:
    return [target for _, target in placed("tiny 1.0", [Member(path, 1) for path in paths], {"asyncpg", "loquat"})]


def test_of_a_wheel_only_what_can_be_imported_is_placed() -> None:
    brought = ("tiny/a.py", "tiny/", "tiny/__pycache__/a.pyc", "tiny-1.0.data/scripts/t", "tiny-1.0.data/purelib/more/b.py", "t.abi3.so")
    assert names(*brought, "asyncpg-1.dist-info/RECORD") == ["tiny/a.py", "more/b.py", "t.abi3.so", "asyncpg-1.dist-info/RECORD"]


@pytest.mark.parametrize(
    "path",
    ["../x.py", "/x.py", "a/../../x.py", "a\\x.py", "a//x.py", "x\n.py", "tiny-1.0.data/purelib/../x.py", "n" * 256, "a/" * 50 + "x"],
)
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(WheelRefused, match=r"tiny 1\.0 holds .*leads out"):
        names(path)


@pytest.mark.parametrize("path", ["loquat/__init__.py", "asyncpg.py", "loquat.cpython-311.so", "tiny-1.0.data/platlib/loquat/x.py"])
def test_no_wheel_brings_a_module_of_the_platforms(path: str) -> None:
    with pytest.raises(WheelRefused, match=r"brings a module '(loquat|asyncpg)', which is the platform's own"):
        names(path)


def test_what_would_run_by_itself_and_what_is_no_file_is_refused() -> None:
    for path in ("x.pth", "tiny-1.0.data/purelib/x.pth"):
        with pytest.raises(WheelRefused, match="every interpreter would run"):
            names(path)
    with pytest.raises(WheelRefused, match="a link or a device"):
        list(placed("tiny 1.0", [Member("tiny/a.py", 9, 0o120777)], ()))


def test_an_index_that_does_not_answer_and_words_that_nobody_knows_are_not_the_bots_fault_and_others_are() -> None:
    missing = "ERROR: No matching distribution found for tiny==1.0"
    away = "Could not fetch URL https://example.org/tiny/: connection error: refused - skipping"
    assert read([away, missing]).refusal() is None
    assert read(["ERROR: a plague of frogs"]).refusal() is None
    assert read(["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"]).refusal() is None
    windows = "  Skipping link: none of the wheel's tags (x-y-win32) are compatible (run pip): https://example.org/tiny-1.0-x-y-win32.whl#a (from b)"
    source = (
        "  Skipping link: No sources permitted for tiny: https://example.org/tiny-1.0.tar.gz#sha256=ab (from https://example.org/tiny/)"
    )
    other = source.replace("tiny-1.0", "tiny-1.0.1")
    assert "has no wheel of it, only its source" in (read([source, missing]).refusal() or "")
    assert "has wheels for x-y-win32 only" in (read([source, windows, missing]).refusal() or "")
    assert (read([other, missing]).refusal() or "").endswith("the index has no such version")
    assert "larger than" in (read(["ERROR: Could not install packages due to an OSError: [Errno 27] File too large"]).refusal() or "")
    assert read(["ERROR: tiny has an invalid wheel, .dist-info directory not found"]).refusal() == "tiny is no wheel that can be read"
    unknown = "Could not fetch URL https://example.org/tiny/: 404 Client Error: Not Found - skipping"
    assert read([unknown, away, missing]).refusal() is None
    assert "knows no such package" in (read([unknown, missing]).refusal() or "")


def test_a_name_in_a_wheel_that_looks_like_pips_words_a_million_times_is_read_no_longer_than_a_short_one() -> None:
    hostile = "ERROR: tiny has an invalid wheel, multiple .dist-info directories found: " + "Requested a==" * 1_000_000
    assert read([hostile]).refusal() == "tiny is no wheel that can be read"


@pytest.mark.parametrize(
    "last",
    [
        "MemoryError",
        "RecursionError: maximum recursion depth exceeded",
        "pip._vendor.packaging.markers.UndefinedComparison: Undefined <Op('~=')> on 'linux' and 'linux'.",
        "pip._vendor.packaging.version.InvalidVersion: Invalid version: 'x y'",
        "zlib.error: Error -3 while decompressing data: invalid block type",
        "ERROR: Error decoding metadata for /tmp/x.whl: 'utf-8' codec can't decode byte 0xff",
    ],
)
def test_what_ends_pip_for_what_the_packages_are_is_not_the_platforms_fault(last: str) -> None:
    assert "cannot be read" in (read(["ERROR: Exception:", "Traceback (most recent call last):", last]).refusal() or "")
