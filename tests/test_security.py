"""What docs/security.md promises: its tests are there, its lists are the program's, and what it says of code is so."""

import ast
import re
from pathlib import Path

import pytest

from data.errors import ExpressionError, SettingsError
from data.settings import load_settings
from jobs.page import Page
from jobs.routes import open_routes, routes
from scanner.language import parse
from streaming.door import Limits
from streaming.page import page_routes

ROOT = Path(__file__).resolve().parents[1]
CODE = [file for room in ("data", "scanner", "streaming", "jobs") for file in (ROOT / room).rglob("*.py")]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
THREATS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)+)", TEXT, re.MULTILINE))


def defined_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_threat_has_tests_that_are_there() -> None:
    assert len(THREATS) > 15
    for threat, text in THREATS.items():
        lines = re.findall(r"^- `(tests/[\w/]+\.py)`: (.+)$", text, re.MULTILINE)
        assert lines, threat
        for file, names in lines:
            assert set(re.findall(r"`(test_\w+)`", names)) <= defined_in(ROOT / file), (threat, file)
    assert sum(text.count("`test_") for text in THREATS.values()) == TEXT.count("`test_")


def test_the_routes_are_those_that_are_documented() -> None:
    said = TEXT[TEXT.index("The open routes ask") : TEXT.index("Only GET and HEAD")]
    free, others = (set(re.findall(r"`(/[\w/.*-]*)`", part)) for part in said.split("The others ask"))
    page = {path if path == "/" else "/page/*" for path in page_routes()}
    assert free == page | set(open_routes(None))  # type: ignore[arg-type]
    asking = set(routes(None)) | set(Page.routes(object.__new__(Page)))  # type: ignore[arg-type]
    assert others - {"/ws/signals"} == asking


def test_every_reason_of_a_refusal_is_documented() -> None:
    calls = r"(?:refuse|refusals\.add|DeniedError|_reject)\(\s*(?:\d+,\s*)?\"(\w+)\""
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "streaming").glob("*.py"))
    reasons = set(re.findall(calls, code)) | {"protocol", "utf8", "oversize"}
    assert {"token", "rate", "half_open", "message"} < reasons
    limits = TEXT[TEXT.index("## Limits") : TEXT.index("## Threats")]
    assert reasons == set(re.findall(r"`([a-z0-9_]+)`", limits)) - {
        "mystocks_ws_refused_total",
        "mystocks_ws_evicted_total",
    }


def test_the_numbers_are_the_program_s() -> None:
    limits = Limits()
    for words in (
        f"| {limits.connections:,}, or what",
        f"| {limits.per_address}: HTTP 429",
        f"| {limits.half_open:,}; then the oldest",
        f"| {limits.handshake_s:g} s each",
        f"| {limits.answer_s:g} s |",
        f"| {limits.request_bytes // 1024} KiB: HTTP 431",
        f"| {limits.message_bytes // 1024} KiB: 1009",
        f"| {limits.messages} at once, {limits.messages_per_s:g} a second: 4429",
    ):
        assert words in TEXT


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "().__class__",
        "close.__class__ > 1",
        "open('/etc/passwd')",
        "eval('1')",
        "[x for x in y]",
    ],
)
def test_a_rule_is_no_program(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_yaml_makes_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "mystocks-scan.yaml"
    path.write_text("serve: !!python/object/apply:os.system ['touch harm']")
    with pytest.raises(SettingsError, match="YAML"):
        load_settings(path)
    for file in CODE:
        for loader in re.findall(r"yaml\.\w*load\w*\([^)]*|yaml\.compose\([^)]*", file.read_text(encoding="utf-8")):
            assert "safe_load" in loader or "SafeLoader" in loader, (file, loader)


def test_nothing_that_comes_over_a_wire_is_unpickled() -> None:
    pattern = r"pickle\.loads?\(|allow_pickle=True|read_pickle|marshal|shelve"
    unpickling = {str(file.relative_to(ROOT)) for file in CODE if re.search(pattern, file.read_text(encoding="utf-8"))}
    assert unpickling == {"scanner/cluster.py", "scanner/tasks.py"}  # on Dask's own wire, which carries pickles anyway
