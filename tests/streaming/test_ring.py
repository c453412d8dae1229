"""The ring: what a filter gets from the indexes is what it would get signal by signal."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from data.signal import ACTIONS, Signal
from streaming.filter import Filter
from streaming.ring import Ring, Sent, Stretch

END = 1_748_223_000 * 10**9
SYMBOLS = [f"{600_000 + number}.SH" for number in range(6)]
STRATEGIES = ["macd", "rsi", "第三"]
CONFIDENCES = [0.0, 0.25, 0.5, 1.0]


def row(seq: int, symbol: str, strategy: str, action: str, confidence: float) -> dict[str, Any]:
    one = Signal(
        strategy, "v1", symbol, "1m", END, action, confidence, 10.5, "talib", END, {"a": 0.1}, epoch="e", seq=seq
    )
    return one.to_dict()


kinds = st.tuples(
    st.sampled_from(SYMBOLS), st.sampled_from(STRATEGIES), st.sampled_from(ACTIONS), st.sampled_from(CONFIDENCES)
)
filters = st.builds(
    Filter.of,
    symbols=st.none() | st.sets(st.sampled_from([*SYMBOLS, "000001.SZ"]), min_size=1),
    strategies=st.none() | st.sets(st.sampled_from([*STRATEGIES, "none"]), min_size=1),
    actions=st.none() | st.sets(st.sampled_from(ACTIONS), min_size=1),
    min_confidence=st.none() | st.sampled_from([*CONFIDENCES, 0.3]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(kinds, min_size=1, max_size=30), filters)
def test_the_indexes_find_what_the_filter_wants_in_order(fired: list[tuple[str, str, str, float]], by: Filter) -> None:
    rows = [row(seq, *kind) for seq, kind in enumerate(fired, 1)]
    found = Stretch([Sent.of(each) for each in rows]).wanted(by)
    assert [json.loads(text) for text in found] == [each for each in rows if by.wants(each)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 5), max_size=12), st.integers(0, 50))
def test_it_holds_the_newest_and_what_followed_a_place(size: int, scans: list[int], place: int) -> None:
    ring, last = Ring(size), 0
    for count in scans:
        ring.add([row(last + number, SYMBOLS[0], "macd", "BUY", 1.0) for number in range(1, count + 1)])
        last += count
    held = list(range(last + 1 if ring.first is None else ring.first, last + 1))
    assert min(size, last) <= len(held) < size + 5
    after = ring.after(place)
    assert ([] if after is None else [one.seq for one in after.sent]) == [seq for seq in held if seq > place]
    ring.clear()
    assert (ring.first, ring.after(0)) == (None, None)
