"""What the documents promise of the code, and what the rooms promise of each other."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import jobs.cli
from data.settings import load_settings
from scanner.loading import load

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "scanner", "streaming", "jobs")
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
HEAVY = {
    "apprise", "bokeh", "cudf", "cupy", "dask", "distributed", "exchange_calendars", "httpx", "matplotlib", "numba",
    "numpy", "pandas", "pyarrow", "pydantic", "pydantic_settings", "redis", "rich", "talib", "websockets", "yaml",
}  # fmt: skip
THE_PLAN = {
    "UnifiedDataManager", "DataSourcesRegistry", "StreamManager", "WebSocketCapability", "EventBus",
    "GpuIndicatorAdapter", "GpuGenericIndicator", "IndicatorInterface", "IndicatorPluginFactory", "IndicatorFactory",
    "TalibGenericIndicator", "SmartScheduler", "SignalEngine", "StrategyRegistry", "BaseStrategy", "MarketContext",
    "/ws/signals",
}  # fmt: skip


def block(name: str) -> str:
    """The code under the README's mark of that name."""
    found = re.findall(rf"^<!-- {name} -->\n```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, name
    return str(found[0])


def commands_of(group: click.Group, name: str = "mystocks-scan") -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand by its full name."""
    context = click.Context(group)
    for command_name in group.list_commands(context):
        command = group.get_command(context, command_name)
        assert command is not None
        yield f"{name} {command_name}", command
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{name} {command_name}")


def readme_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    parts = [part.strip() for text in blocks for line in text.splitlines() for part in line.split("&&")]
    return [part for part in parts if part.startswith("mystocks-scan")]


def test_help_and_version_load_nothing_heavy() -> None:
    for flag in ("--help", "--version"):
        program = (
            f"import sys, jobs.cli\ntry: jobs.cli.main(['{flag}'])\n"
            "except SystemExit: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        loaded = set(done.stderr.split())
        assert "click" in loaded
        assert loaded & HEAVY == set()


def test_every_command_has_help_and_so_has_every_option() -> None:
    for name, command in commands_of(jobs.cli.cli):
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, f"{name} {option.opts[-1]}"


def test_the_readme_s_table_is_the_list_of_commands() -> None:
    table = re.findall(r"^\| `mystocks-scan (\w+)` \| (.+) \|$", README, re.MULTILINE)
    assert table == [(name, line) for name, (_, line) in jobs.cli.COMMANDS.items()]


def test_the_readme_begins_with_the_two_lines_for_a_fresh_machine() -> None:
    assert block("run") == "pip install . && mystocks-scan run\n"
    assert block("test") == "pip install '.[test]' && pytest -n auto --dist loadfile\n"


@pytest.mark.parametrize("line", readme_commands())
def test_commands_of_the_readme_are_spelled_as_they_are_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quotes").mkdir()
    (tmp_path / "first.yaml").touch()
    _, *args = shlex.split(line)
    command: click.Command = jobs.cli.cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), args.pop(0))
        assert found is not None, line
        command = found
    command.make_context(line, args)


def test_the_readme_s_first_strategy_loads(tmp_path: Path) -> None:
    path = tmp_path / "first.yaml"
    path.write_text(block("first strategy"))
    assert list(load([path])) == ["golden_cross_with_volume"]


def test_the_readme_s_first_program_runs() -> None:
    names: dict[str, object] = {}
    exec(block("first program"), names)
    panel, rsi = names["panel"], names["rsi"]
    assert rsi.shape == (len(panel.times), len(panel.symbols))  # type: ignore[attr-defined]


def test_the_readme_s_settings_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mystocks-scan.yaml"
    path.write_text(block("settings"))
    settings = load_settings(path)
    assert (settings.scan.workers, settings.serve.port) == (2, 8765)
    (variable,) = re.findall(r"`(MYSTOCKS_SCAN__\w+)=7?2?`", README)
    monkeypatch.setenv(variable, "9")
    assert load_settings(path).scan.workers == 9


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_name_of_the_plan_has_its_place() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| ?(.*?) ?\|$", ARCHITECTURE, re.MULTILINE)
    rows = [row for row in rows if not row[0].endswith("/")]
    assert {name for name, _, _ in rows} == THE_PLAN
    for name, what, where in rows:
        places = re.findall(r"`(\w+)` in `([\w./]+)`", where)
        assert places or "comes with a later part" in what, name
        for symbol, file in places:
            assert symbol in defined_in(ROOT / file), f"{name}: {symbol} in {file}"


def defined_in(file: Path) -> set[str]:
    """The names that a module defines at its top."""
    names = set[str]()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_files_that_the_architecture_names_are_there() -> None:
    for path in re.findall(r"`((?:data|scanner|streaming|jobs|docs|tests)/[\w./-]*)`", ARCHITECTURE):
        assert (ROOT / path).exists(), path


def test_no_file_is_longer_than_400_lines() -> None:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    assert {str(file.relative_to(ROOT)): n for file in files if (n := len(file.read_text().splitlines())) > 400} == {}


PYTEST = f"{sys.executable} -m pytest -rfE --continue-on-collection-errors -p no:cacheprovider -c /dev/null".split()
SKIPS = {
    "in_a_test": "def test(): pytest.skip('a toaster is missing')",
    "in_a_fixture": "@pytest.fixture\ndef toaster(): pytest.skip('a toaster is missing')\ndef test(toaster): pass",
    "by_mark": "@pytest.mark.skipif(True, reason='a toaster is missing')\ndef test(): pass",
    "of_a_module": "pytest.skip('a toaster is missing', allow_module_level=True)",
    "declared": "def test(): pytest.skip('a kettle is missing')",
    "expected_to_fail": "@pytest.mark.xfail\ndef test(): assert False",
}


def test_a_skip_is_a_failure_in_ci_unless_ci_lacks_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    for name, code in SKIPS.items():
        (tmp_path / f"test_{name}.py").write_text(f"import pytest\n{code}\n")

    def failed(**environment: str) -> set[str]:
        done = subprocess.run(
            [*PYTEST, str(tmp_path)],
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "CI"} | environment,
        )
        return {name for name in SKIPS if re.search(rf"^(FAILED|ERROR) .*test_{name}\.py", done.stdout, re.MULTILINE)}

    assert failed() == set()
    assert failed(CI="true", CI_LACKS="a fridge|a kettle") == {"in_a_test", "in_a_fixture", "by_mark", "of_a_module"}

    def passes(lacks: str, *workers: str) -> bool:
        environment = {**os.environ, "CI": "true", "CI_LACKS": lacks}
        done = subprocess.run([*PYTEST, *workers, str(tmp_path)], capture_output=True, text=True, env=environment)
        assert (done.returncode == 0) is ("where CI_LACKS says" not in done.stdout), done.stdout
        return done.returncode == 0

    assert passes("a kettle|a toaster")
    assert passes("a kettle=1|a toaster=4|a fridge=0")
    assert passes("a kettle=1|a toaster=4|a fridge=0", "-n2")
    assert not passes("a kettle=1|a toaster=3")
    assert not passes("a kettle|a toaster|a fridge=1")
