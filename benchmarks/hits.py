"""Rules over the whole catalogue and the built-in ones, at every bar of a market, on `talib` and on `vector`.

    python benchmarks/hits.py BARS.parquet [--symbols 0] [--json]

Every hit that differs is listed. It may only where the compared values lie within the kernels' declared tolerance of a
tie; ends with 1 if one does not.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime

import pyarrow.parquet as pq

from data.panel import Panel
from scanner.engines.base import choose
from scanner.engines.ties import Difference, compare_engines, rules_of
from scanner.fields import Source
from scanner.indicators import catalog
from scanner.loading import load
from scanner.strategy import Rule


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", help="Parquet: symbol, date, open, high, low, close, volume, amount")
    parser.add_argument("--symbols", type=int, default=0, help="only so many symbols; 0: all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    panel = Panel.from_table(pq.read_table(given.bars), "1d")
    if given.symbols:
        panel = panel.select(panel.symbols[:: max(1, len(panel.symbols) // given.symbols)])
    source = Source(panel.pack())
    builtin = load()
    loaded = [builtin[name] for name in builtin]
    rules = {s.name: str(s.when) for s in loaded if isinstance(s, Rule)} | rules_of(catalog)
    engines = choose("talib")[0], choose("vector")[0]
    hits = 0
    differing: list[Difference] = []
    for compared in compare_engines(rules, source, *engines):
        hits += compared.hits
        differing += compared.differences
        if not given.json and compared.differences:
            print(f"{compared.rule}: {len(compared.differences)} of {compared.hits} hits differ", flush=True)
    faults = [difference for difference in differing if not difference.tie]
    summary = {"rules": len(rules), "symbols": len(panel.symbols), "bars": int(source.packed.lengths.sum())}
    summary |= {"hits": hits, "differing": len(differing), "not_ties": len(faults)}
    if given.json:
        print(json.dumps(summary | {"differences": [asdict(difference) for difference in differing]}))
    else:
        for rule, n in Counter(difference.rule for difference in faults).most_common():
            print(f"NOT A TIE: {rule}, {n} times")
        for d in [*faults[:40], *[d for d in differing if d.tie][:40]]:
            day = datetime.fromtimestamp(d.bar_end / 1e9, UTC).date()
            print(f"{d.rule} | {d.symbol} {day} | apart {d.apart:.3g}, tie within {d.tolerance:.3g}")
        print(summary)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
