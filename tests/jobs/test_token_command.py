"""`mystocks-scan token`, and who may reach what `run` serves."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from data.errors import SettingsError, UsageError
from data.history import SignalHistory
from data.settings import load_settings
from jobs.cli import cli
from jobs.serving import open_server
from streaming.tokens import Tokens

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "tokens.json"
    monkeypatch.setenv("MYSTOCKS_SCAN__SERVE__TOKENS", str(path))
    return path


@pytest.fixture
def token(path: Path) -> Callable[..., Result]:
    return lambda *args: CliRunner().invoke(cli, ["token", *args], catch_exceptions=False)


def test_a_token_is_shown_once_and_its_name_stays(token: Callable[..., Result], path: Path) -> None:
    made = token("new", "--name", "phone")
    secret = made.stdout.strip()
    assert "shown this once" in made.stderr
    assert secret not in made.stderr
    other = json.loads(token("new", "--json").stdout)
    assert other["name"] == "token-1"
    listed = token("list")
    assert ["phone" in line for line in listed.stdout.splitlines()] == [False, True, False]
    assert [json.loads(line)["name"] for line in token("list", "--json").stdout.splitlines()] == ["phone", "token-1"]
    known = Tokens(path)
    known.load()
    assert known.digest_of(secret)
    assert known.digest_of(other["token"])
    token("revoke", "phone")
    known.refresh()
    assert known.digest_of(secret) is None
    for shown in (listed.stdout, token("list", "--json").stdout, path.read_text()):
        assert secret not in shown
        assert other["token"] not in shown
    with pytest.raises(UsageError, match="no token 'phone'"):
        token("revoke", "phone")


def test_where_there_is_none_it_is_said_how_to_make_one(token: Callable[..., Result]) -> None:
    assert "token new" in token("list").stderr


def test_the_settings_of_the_server_reach_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: Callable[..., Result]
) -> None:
    monkeypatch.setenv("MYSTOCKS_SCAN__SERVE__MAX_CONNECTIONS", "7")
    monkeypatch.setenv("MYSTOCKS_SCAN__SERVE__MAX_CONNECTIONS_PER_ADDRESS", "3")
    monkeypatch.setenv("MYSTOCKS_SCAN__SERVE__ORIGINS", '["https://scanner.example"]')
    monkeypatch.setenv("MYSTOCKS_SCAN__SERVE__REQUIRE_TOKEN", "true")
    server = open_server(load_settings().serve, SignalHistory(tmp_path), {}, {})
    assert (server.door.limits.connections, server.door.limits.per_address) == (7, 3)
    assert server._access.required
    for name, value in (("ORIGINS", '["scanner.example"]'), ("CERTIFICATE", str(tmp_path / "none.pem"))):
        monkeypatch.setenv(f"MYSTOCKS_SCAN__SERVE__{name}", value)
        with pytest.raises(SettingsError, match=f"serve.{name.lower()}"):
            open_server(load_settings().serve, SignalHistory(tmp_path), {}, {})
        monkeypatch.delenv(f"MYSTOCKS_SCAN__SERVE__{name}")


def test_run_on_an_address_that_others_reach_says_what_to_type(path: Path, tmp_path: Path) -> None:
    args = ["run", "--host", "0.0.0.0", "--port", "0", "--symbols", "50", "--cluster", "inline", "--engine", "talib"]
    with pytest.raises(SettingsError, match=r"serve\.host 0\.0\.0\.0.*'mystocks-scan token new'"):
        CliRunner().invoke(cli, [*args, "--store", str(tmp_path / "store")], catch_exceptions=False)
    assert not (tmp_path / "store").exists()  # nothing has been started


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(300, 700, (444, 700)), (700, 700, (444, 700)), (300, 5000, (1000, 1256))]
)
def test_connections_leave_handles_to_the_rest_of_the_service(
    soft: int, hard: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from pathlib import Path
from data.history import SignalHistory
from data.settings import ServeSettings
from jobs.serving import open_server
server = open_server(ServeSettings(max_connections=1000), SignalHistory(Path({str(tmp_path)!r})), {{}}, {{}})
print(server.door.limits.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert tuple(map(int, done.stdout.split())) == expected
    assert ("ulimit" in done.stderr) is (expected[0] < 1000)
