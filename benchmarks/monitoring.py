"""Asks a real Prometheus every expression of the dashboard and of the alert rules, about a real service it scrapes.

    python benchmarks/monitoring.py [--seconds 60] [--symbols 2000] [--json]

Runs `mystocks-scan run` on the simulated market with a subscriber, and Debian's `prometheus` beside it. Each expression
must be understood, and give series wherever the service shows all the metrics that it names; what a simulated market
has not (vendors, a GPU, Redis, alerts) stays empty, and is listed. Every rule must have been evaluated. Exit code 1
where anything is not so. Then it prints what metering costs, the least of many: a batch of quotes, a batch of bars, an
interval, reading it all.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "mystocks-scan.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "mystocks-scan.json"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def expressions() -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL) of the dashboard, with its variables as Grafana fills them in, and of the rules."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", filled(target["expr"])
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def filled(expr: str) -> str:
    """PromQL with Grafana's variables at their defaults."""
    return expr.replace("$__rate_interval", "20s").replace("$instance", ".*").replace("$frame", ".*")


def selectors(expr: str) -> list[str]:
    """The selectors in an expression, without their ranges."""
    return re.findall(r"\b(?:mystocks|process)_\w+(?:\{[^}]*\})?|\bup\{[^}]*\}", expr)


@contextmanager
def running(command: list[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process to the end of the block, its output in a file."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environ)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


async def subscribe(url: str, seconds: float) -> int:
    """Signals that a subscriber gets meanwhile."""
    from streaming.client import signals

    n = 0

    async def read() -> None:
        nonlocal n
        async for _ in signals(url, notice=lambda text: None):
            n += 1

    task = asyncio.create_task(read())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return n


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, patience_s: float = 180) -> None:
    """Return when `url` answers 200."""
    end = time.monotonic() + patience_s
    while True:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{url} does not answer:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def ask(prometheus: str) -> list[dict[str, Any]]:
    """Every expression: how many series it gives, and whether it should have given some."""
    rows = []
    with httpx.Client(base_url=prometheus, timeout=30) as client:

        def query(expr: str) -> dict[str, Any]:
            answer: dict[str, Any] = client.get("/api/v1/query", params={"query": expr}).json()
            return answer

        for where, expr in expressions():
            answer = query(expr)
            n = len(answer["data"]["result"]) if answer["status"] == "success" else 0
            shown = all(query(selector)["data"]["result"] for selector in selectors(expr))
            rows.append({"where": where, "expr": expr, "series": n, "shown": shown, "error": answer.get("error")})
        rules = [rule for group in client.get("/api/v1/rules").json()["data"]["groups"] for rule in group["rules"]]
    sick = [rule for rule in rules if rule["health"] != "ok"]
    return rows + [{"where": f"rule {one['name']}", "expr": one["query"], "error": one["health"]} for one in sick]


def faulty(row: dict[str, Any]) -> bool:
    """Whether it was not understood, or a panel is empty though the service shows what it asks for."""
    return bool(row["error"] or (row["where"].startswith("panel") and row["shown"] and not row["series"]))


def costs(n_symbols: int) -> dict[str, float]:
    """What metering takes, us: the least of many."""
    from data import metrics
    from data.schema import BAR
    from data.signal import Signal
    from jobs.metering import meter, meter_bars
    from jobs.revising import Stamps
    from jobs.scanning import Scanned
    from jobs.stages.feeding import Intake
    from jobs.stages.scanning import Interval
    from scanner.market import ScanResult

    def least(act: Callable[[], object], times: int = 2000) -> float:
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            act()
            taken.append(time.perf_counter() - start)
        return round(min(taken) * 1e6, 1)

    now = time.time_ns()
    flags = pa.array(np.arange(n_symbols) % 4, pa.uint8())
    bars = pa.record_batch({"flags": flags.cast(BAR.field("flags").type)})
    about = {b"frame": b"1m", b"revision": b"0", b"developing": b"0", b"fold_ms": b"1.5"}
    about |= {name: str(now).encode() for name in (b"bar_end", b"received_ns", b"quote_ns")}
    one = Signal("s", "1", "600000.SH", "1m", now, "BUY", 1.0, 10.0, "vector", 0, received_ns=now)
    published = (one.numbered("e", 1, now),) * 50
    scanned = Scanned(
        ScanResult("1m", now, "vector", n_symbols, n_symbols, 1, 20, (), (), {}, elapsed_s=0.02),
        published,
        published,
        silent=0,
        origin=0,
        stamps=Stamps(now, now, now, now),
    )
    interval = Interval(1, "1m", now, n_symbols, scanned, 1.0, 20.0, 30.0, 0)
    quotes, intake = pa.record_batch({"x": pa.array(np.arange(n_symbols))}), Intake()
    return {
        "a batch of quotes": least(lambda: intake.take(quotes)),
        "a batch of bars": least(lambda: meter_bars(bars, about, by_receipt=True)),
        "an interval with 50 signals": least(lambda: meter(interval)),
        "the text of all metrics": least(metrics.exposition, 200),
    }


def main() -> None:
    """Run both, ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--symbols", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if shutil.which("prometheus") is None:
        raise SystemExit("prometheus is missing: apt-get install prometheus")
    with tempfile.TemporaryDirectory(prefix="monitoring-") as name:
        folder, port, asked = Path(name), free_port(), f"http://127.0.0.1:{free_port()}"
        scrape = {"job_name": "mystocks-scan", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        config = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [scrape | {"params": {"format": ["openmetrics"]}}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        service = [sys.executable, "-c", "import jobs.cli; jobs.cli.main()", "run", "--symbols", str(given.symbols)]
        service += ["--port", str(port), "--dashboard-port", "0", "--store", str(folder / "sim")]
        watcher = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'db'}"]
        watcher += [f"--web.listen-address={asked.removeprefix('http://')}", "--enable-feature=exemplar-storage"]
        watcher += ["--log.level=warn"]
        with (
            running(service, folder / "service.log") as process,
            running(watcher, folder / "prometheus.log") as other,
        ):
            wait_for(f"{asked}/-/ready", other, folder / "prometheus.log")
            wait_for(f"http://127.0.0.1:{port}/readyz", process, folder / "service.log")
            n_signals = asyncio.run(subscribe(f"ws://127.0.0.1:{port}/ws/signals", given.seconds))
            rows = ask(asked)
            scrapes = []
            for _ in range(20):
                start = time.perf_counter()
                n_bytes = len(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).content)
                scrapes.append((time.perf_counter() - start) * 1e3)
            since = time.time() - given.seconds
            params = {"query": "mystocks_signal_latency_seconds_bucket", "start": str(since), "end": str(time.time())}
            found = httpx.get(f"{asked}/api/v1/query_exemplars", params=params, timeout=30).json()["data"]
            exemplars = sum(len(series["exemplars"]) for series in found)
    empty = [row for row in rows if not row["error"] and not row["series"] and row["where"].startswith("panel")]
    bad = [row for row in rows if faulty(row)]
    facts = {
        "expressions": len(rows),
        "with series": sum(bool(row.get("series")) for row in rows),
        "panels' expressions that a simulated market has nothing for": len(empty),
        "faults": len(bad),
        "signals seen by the subscriber": n_signals,
        "exemplars": exemplars,
        "one scrape, ms": round(min(scrapes), 1),
        "one scrape, bytes": n_bytes,
    } | {f"metering {what}, us": us for what, us in costs(5500).items()}
    if given.json:
        print(json.dumps({"facts": facts, "rows": rows}, indent=1))
    else:
        for name, value in facts.items():
            print(f"{name:62} {value}")
        print("\nempty:", *sorted({row["where"].removeprefix("panel ") for row in empty}), sep="\n  ")
        print(
            "\nalerts that are true at this moment:",
            *[row["where"] for row in rows if row["where"].startswith("alert") and row["series"]],
            sep="\n  ",
        )
        for row in bad:
            print(f"\nFAULT {row['where']}: {row['error'] or 'no series'}\n  {row['expr']}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
