"""The console script's manners: help, version, exit codes, where words go."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import FeedError, SettingsError, StaleDataError
from jobs import cli

SCRIPT = [sys.executable, "-c", "import sys; sys.argv[0] = 'mystocks-scan'; from jobs.cli import main; main()"]


def mystocks_scan(*args: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*SCRIPT, *map(str, args)], capture_output=True, text=True, env=os.environ | environment, timeout=60
    )


def test_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert mystocks_scan("--version").stdout == f"mystocks-scan, version {version('mystocks-scan')}\n"


def test_help_lists_every_command() -> None:
    for flag in ("--help", "-h"):
        told = mystocks_scan(flag).stdout
        for name, (_, line) in cli.COMMANDS.items():
            assert f"  {name} " in told
            assert line in told


@pytest.mark.parametrize("args", [["scna"], ["indicators", "--nonsense"], ["strategies", "check"]])
def test_usage_that_is_none_is_exit_2_on_stderr(args: list[str]) -> None:
    done = mystocks_scan(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: mystocks-scan" in done.stderr


@pytest.mark.parametrize(("error", "code"), [(SettingsError, 2), (FeedError, 1), (StaleDataError, 3)])
def test_an_error_on_purpose_is_one_line_and_its_exit_code(
    error: type[Exception], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error("what is wrong, and what to do")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == code
    assert capsys.readouterr() == ("", "Error: what is wrong, and what to do\n")


def test_a_wrong_setting_is_exit_2_whichever_command_reads_it() -> None:
    done = mystocks_scan("strategies", "list", MYSTOCKS_SCAN__SCAN__WORKERS="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: setting scan.workers: ")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_is_exit_130() -> None:
    waiting = "import jobs.cli as c, time; c.cli.main = lambda **_: (print('up', flush=True), time.sleep(60)); c.main()"
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_json_is_alone_on_stdout_and_colourless_where_nobody_watches() -> None:
    done = mystocks_scan("indicators", "RSI", "--json", "-v")
    assert [json.loads(line)["name"] for line in done.stdout.splitlines()] == ["RSI"]
    assert "\x1b" not in mystocks_scan("indicators", "RSI").stdout


def test_a_terminal_of_another_encoding_is_no_error() -> None:
    assert "\\u7b80\\u5355" in mystocks_scan("indicators", "SMA", PYTHONIOENCODING="ascii").stdout
    done = mystocks_scan("indicators", "SMA", "--json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["title_zh"].startswith("简单")


def test_the_live_service_gives_its_allocators_their_orders_before_arrow_is_loaded() -> None:
    script = (
        "import sys; from jobs.cli import cli; assert 'pyarrow' not in sys.modules;"
        " cli.get_command(None, 'run'); import os, pyarrow;"
        " print(pyarrow.default_memory_pool().backend_name, os.environ['MALLOC_ARENA_MAX'])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "ARROW"))}
    done = subprocess.run([sys.executable, "-c", script], env=clean, capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        assert done.stdout.split() == ["system", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux")
def test_what_is_free_in_the_midst_of_a_heap_is_given_back() -> None:
    script = (
        "import re; from pathlib import Path; from jobs.memory import give_back, keep_level; keep_level()\n"
        "held = lambda: int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024\n"
        "parts = [b'x' * (100_000 + k) for k in range(1000)]; top = b'x' * 100_000\n"
        "full = held(); del parts; free = held(); give_back(); print(full - free, full - held())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 20
    assert after > 80
