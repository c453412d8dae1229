"""What a process that does not serve signals shows of itself: --role feed, as it is run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobs.cli import main

ROOT = Path(__file__).parents[2]


def test_a_feed_says_whether_it_is_ready_and_has_its_own_metrics(tmp_path: Path, redis_server: Any) -> None:
    command = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--role", "feed", "--symbols", "8"]
    command += ["--bus", redis_server.url, "--metrics-port", "0", "--store", str(tmp_path / "sim")]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if line.startswith("metrics"))
        url = line.split()[1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        next(iter(process.stdout))  # bars have gone to the bus
        with httpx.Client(base_url=url.removesuffix("/metrics"), trust_env=False) as client:
            while (answer := client.get("/readyz")).status_code == 503:
                assert answer.json()["checks"].keys() <= {"start", "feed", "bus", "store"}
            assert {name for name, check in answer.json()["checks"].items() if check["ok"]} == {"feed", "bus", "store"}
            shown = client.get("/metrics").text
            assert client.get("/healthz").text == "ok\n"
            assert client.get("/ws/signals").status_code == 404
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    for name in ('bars_total{frame="1m"}', 'feed_ticks_total{provider="sim"}', 'build_info{role="feed"'):
        assert f"\nmystocks_{name}" in shown
    assert "mystocks_ws_clients 0.0" in shown


def test_in_one_process_there_is_no_second_port(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--metrics-port", "0"])
    assert ended.value.code == 2
    assert "in one process /metrics is on --port" in " ".join(capsys.readouterr().err.split())
