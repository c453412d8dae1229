"""What drawing charts for the page costs the scan: a live service, in turns with one chart after the other and without.

python benchmarks/page.py --intervals 160
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

INDICATORS = "SMA(5),SMA(20),SMA(60),SMA(volume,5),MACD,KDJ"
WARM_UP, TURN = 16, 10
"""Intervals."""


class Reader:
    """Asks for charts of one stock after the other, while it is told to."""

    def __init__(self, url: str) -> None:
        self.url, self.on, self.took_s = url, threading.Event(), list[float]()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        self.on.wait()
        stocks = json.loads(self._get("api/symbols?q=60"))["symbols"]
        while True:
            self.on.wait()
            symbol = stocks[len(self.took_s) % len(stocks)]["symbol"]
            start = time.perf_counter()
            self._get(f"api/chart?symbol={symbol}&frame=1m&indicators={INDICATORS}")
            self.took_s.append(time.perf_counter() - start)

    def _get(self, path: str) -> bytes:
        with self._opener.open(self.url + path) as answer:
            body: bytes = answer.read()
        return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--intervals", type=int, default=160)
    parser.add_argument("--port", type=int, default=8795)
    given = parser.parse_args()
    reader = Reader(f"http://127.0.0.1:{given.port}/")
    rows: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-c", "from jobs.cli import main; main()", "run", "--json", "--store", store]
        command += ["--symbols", str(given.symbols), "--intervals", str(given.intervals), "--cluster", "inline"]
        command += ["--port", str(given.port), "--dashboard-port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            if number >= WARM_UP:
                rows[reader.on.is_set()].append(json.loads(line))
                if (number - WARM_UP) % TURN == TURN - 1:
                    reader.on.clear() if reader.on.is_set() else reader.on.set()
            if number >= given.intervals - 2:
                reader.on.clear()
        process.wait()
    for on, found in rows.items():
        for name in ("scan_ms", "latency_ms"):
            values = sorted(row[name] for row in found)
            p90 = values[len(values) * 9 // 10]
            shown = f"least {values[0]:.0f}, median {statistics.median(values):.0f}, p90 {p90:.0f}"
            print(f"{'with' if on else 'without'} charts, {len(values)} intervals: {name} {shown}")
    print(f"{len(reader.took_s)} charts, median {statistics.median(reader.took_s) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
