"""Kills of the live service while it tells people of signals: whether every signal was told, and how often.

    python -m benchmarks.crash_alerts [--kills 20]

A simulated market of 60 symbols, five bars a second, and a webhook on this machine that refuses some messages. SIGKILL
at any moment; then one run to its end. Ends with 1 where a signal of the history was never told.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from data.history import SignalHistory
from data.signal import from_table
from jobs.alert_text import said_of
from tests.streaming.alerts.fakes.vendors import Fault, serving

RUN = [sys.executable, "-c", "import sys; from jobs.cli import main; main(['run', *sys.argv[1:]])"]
OPTIONS = ["--symbols", "60", "--speed", "300", "--port", "0", "--dashboard-port", "0"]
OPTIONS += ["--cluster", "inline", "--engine", "talib", "--json"]


def main() -> int:
    """Kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, serving() as (webhook, port):
        store = Path(folder) / "store"
        settings = {"CHANNELS__OWN__URL": f"json://127.0.0.1:{port}", "CHANNELS__OWN__PER_MINUTE": "1000"}
        settings |= {"RULES": '[{"cooldown_s": 0}]', "BACKOFF_S": "0.2", "CHANNELS__OWN__ATTEMPTS": "20"}
        environment = os.environ | {f"MYSTOCKS_SCAN__ALERTS__{name}": value for name, value in settings.items()}
        command = [*RUN, "--store", str(store), *OPTIONS]
        for _ in range(given.kills):
            webhook.faults.extend([Fault(503)] * chance.randint(0, 4))
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            webhook.wait(len(webhook.asked) + chance.randint(1, 8), 120)
            time.sleep(chance.random() * 0.3)
            process.send_signal(signal.SIGKILL)
            process.wait()
        webhook.faults.clear()
        subprocess.run([*command, "--intervals", "3"], env=environment, capture_output=True, check=True)
        signals = from_table(SignalHistory(store / "signals").query())
        told = Counter(line for text in webhook.texts for line in text.splitlines())
    times = Counter(told[said_of(one)[0]] for one in signals)
    print(f"{given.kills} kills, {len(signals)} signals; so many of them told so often: {dict(sorted(times.items()))}")
    return 1 if times[0] else 0


if __name__ == "__main__":
    sys.exit(main())
