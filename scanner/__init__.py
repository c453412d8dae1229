"""What a scan is: indicators, terms, engines, rules. Imports `data` alone.

from data.panel import Panel
from scanner import catalog, compute

panel = Panel.from_table(table)
values = compute(["RSI(14)", "MACD(12,26,9).hist"], panel)
values["RSI(14)"]                                   # float64 (bars, symbols), rows = panel.times
"""

from scanner.computing import Values, compute
from scanner.functions import bars_since, count, cross_over, cross_under, every, highest, lowest, prev, rank
from scanner.indicators import catalog
from scanner.strategy import BaseStrategy, Hits, MarketContext, Strategy, SymbolContext, Universe
from scanner.stream import Stream

__all__ = [
    "BaseStrategy",
    "Hits",
    "MarketContext",
    "Strategy",
    "Stream",
    "SymbolContext",
    "Universe",
    "Values",
    "bars_since",
    "catalog",
    "compute",
    "count",
    "cross_over",
    "cross_under",
    "every",
    "highest",
    "lowest",
    "prev",
    "rank",
]
