"""The command that makes all tables of the benchmarks knows them all, and goes on."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "benchmarks"
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / "all.py"))


def test_every_script_and_every_command_of_the_page_is_known(script: dict[str, Any]) -> None:
    known = {table.script.name for table in script["TABLES"].values()}
    there = {path.name for path in SCRIPTS.glob("*.py")} - {"all.py"}
    assert known == there, "add the script to TABLES of examples/benchmarks/all.py"
    assert set(re.findall(r"python examples/benchmarks/(\w+\.py)", BENCHMARKS)) <= {
        *known,
        "all.py",
    }


def test_tables_stand_under_headings_of_the_page(script: dict[str, Any]) -> None:
    headings = set(re.findall(r"^#+ (.+)$", BENCHMARKS, re.MULTILINE))
    assert {table.section for table in script["TABLES"].values() if table.section} <= headings


def test_tables_need_only_what_can_be_given(script: dict[str, Any]) -> None:
    for table in script["TABLES"].values():
        assert set(table.given) <= set(script["GIVEN"])


class Command:
    """The command, with three tables of small scripts, in a process of its own making."""

    def __init__(
        self, folder: Path, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.main = folder, script["main"]
        scope = self.main.__globals__
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        self.write("good.py", "print('table', *sys.argv[1:])")
        self.write("bad.py", "print('half'); sys.exit(1)")
        tables = {
            "good": script["Table"]("", "good.py {eval} --output {results}"),
            "bad": script["Table"]("", "bad.py"),
            "extra": script["Table"]("", "good.py", "no_such_module"),
        }
        for name, value in (("SCRIPTS", folder), ("WEIGHTS", folder), ("TABLES", tables)):
            monkeypatch.setitem(scope, name, value)
        self.monkeypatch = monkeypatch

    def write(self, name: str, code: str) -> None:
        (self.folder / name).write_text(f"import sys\n{code}\n")

    def run(self, *arguments: str) -> None:
        output = ("--output", str(self.folder / "out"))
        self.monkeypatch.setattr(sys, "argv", ["all.py", *output, *arguments])
        self.main()

    def files(self) -> list[Path]:
        return sorted((self.folder / "out").glob("*/*.md"))


@pytest.fixture
def command(tmp_path: Path, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, script, monkeypatch)


def test_a_table_is_made_once_for_a_checkpoint_and_a_version_of_its_script(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--eval", str(command.folder), "--only", "good")
    command.run(*given)
    (file,) = command.files()
    lines = file.read_text().splitlines()
    assert re.fullmatch(r"<!-- checkpoint \w{8}, version .+, script \w{8} -->", lines[0])
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d, checkpoint {file.parent.name}:", lines[1])
    assert "python examples/benchmarks/good.py EVAL --output RESULTS" in lines
    assert lines[-1].startswith(f"table {command.folder} --output {file.parent}")
    capsys.readouterr()
    command.run(*given)
    assert "good (good.py): there" in capsys.readouterr().out
    command.write("good.py", "print('another table')")
    command.run(*given)
    assert file.read_text().endswith("another table\n")
    (command.folder / "model.safetensors").write_bytes(b"other weights")
    command.run(*given)
    assert len(command.files()) == 2
    command.run(*given, "--again")
    assert "good (good.py): to be made" in capsys.readouterr().out


def test_what_cannot_be_made_is_skipped_and_said_so(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command.run("--only", "good", "extra")
    printed = capsys.readouterr().out
    assert "[1/2] good (good.py): skipped, needs --eval" in printed
    assert "[2/2] extra (good.py): skipped, needs no_such_module" in printed
    command.run("--list")
    assert "bad (bad.py): to be made" in capsys.readouterr().out
    assert not command.files()
    with pytest.raises(SystemExit):
        command.run("--eval", str(command.folder / "nowhere"))


def test_a_failure_leaves_no_table_and_stops_no_other(command: Command) -> None:
    with pytest.raises(SystemExit, match="failed: bad"):
        command.run("--only", "bad", "good", "--eval", str(command.folder))
    assert [file.name for file in command.files()] == ["good.md"]
    assert not list((command.folder / "out").glob("*/.*"))
