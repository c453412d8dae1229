"""`mystocks-scan scan`: what it prints, records and ends with."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.history import SignalHistory
from data.signal import iso
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.cli import main

MARKET = SimulatedMarket(150, seed=5)
SESSIONS = MARKET.sessions[:120]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of daily bars that stands for a real market, so that its age counts."""
    folder = tmp_path_factory.mktemp("market")
    BarStore(folder, origin="market").append(MARKET.bars("1d", *SESSIONS), "1d")
    return folder


@pytest.fixture
def scan(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["scan", "--store", str(root), "--cluster", "inline", *args])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def strategies(tmp_path: Path, *rules: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text("strategies:\n" + "".join(f"  - {rule}\n" for rule in rules))
    return str(file)


EVERY = "{name: every, when: close > 0, action: ALERT}"
NEVER = "{name: never, when: close < 0, action: ALERT}"


def test_json_is_one_line_with_the_promised_keys(scan: Any) -> None:
    code, out, err = scan("--json", "--indicators", "all", "--dry-run")

    assert code == 0, err
    (line,) = out.splitlines()
    found = json.loads(line)
    promised = ["frame", "bar_end", "engine", "symbols", "bars", "indicators", "elapsed_s", "signals"]
    assert list(found)[: len(promised)] == promised
    last = newest()
    assert (found["frame"], found["bar_end"]) == ("1d", iso(last))
    assert found["engine"] in ("vector", "talib")  # as kernels are compiled by now, or not
    assert found["bars"] == len(SESSIONS)
    assert 100 < found["symbols"] <= 150
    assert found["indicators"] >= 26
    assert all(type(found[key]) is int for key in ("symbols", "bars", "indicators"))
    assert all(signal["bar_end"] == found["bar_end"] for signal in found["signals"])


def newest() -> int:
    return int(MARKET.bars("1d", SESSIONS[-1])["bar_end"].cast("int64")[0].as_py())


def test_the_table_names_what_fired_and_how_long_it_took(scan: Any, tmp_path: Path) -> None:
    code, out, err = scan("--strategies", strategies(tmp_path, EVERY), "--limit", "3", "--dry-run")

    assert code == 0, err
    assert "every" in out
    assert "more (--limit 0 shows all)" in out
    assert "engine vector" in out  # it needs no kernel


def test_old_data_are_warned_of(scan: Any) -> None:
    _, _, err = scan("--json", "--dry-run")

    assert f"the newest bar is of {SESSIONS[-1]}" in err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--max-age", "3d"), 3, "--max-age is 3d"),
        (("--max-age", "soon"), 2, "must be a number with s, m, h or d"),
        (("--as-of", "2023-12-01"), 3, "holds no 1d bars at or before 2023-12-01"),
        (("--as-of", "yesterday"), 2, "2025-05-23"),
        (("--frame", "5m"), 3, "holds no 5m bars"),
        (("--universe", "etf"), 3, "holds no 1d bars of etf"),
        (("--universe", "shares"), 2, "universe must be of"),
        (("--engine", "talip"), 2, "did you mean 'talib'?"),
        (("--cluster", "moon"), 2, "cluster must be auto, local, cuda, inline or tcp://host:port"),
        (("--indicators", "RSJ(14)"), 2, "did you mean 'RSI'?"),
        (("--strategies", "nowhere.yaml"), 2, "there is no such file"),
        (("--adjusted", "qfq"), 3, "holds no bars"),
    ],
)
def test_exit_codes_and_remedies(scan: Any, args: tuple[str, ...], code: int, words: str) -> None:
    ended, out, err = scan("--dry-run", *args)

    assert (ended, words in err) == (code, True), err
    assert "Traceback" not in err + out


def test_fail_on_empty(scan: Any, tmp_path: Path) -> None:
    file = strategies(tmp_path, NEVER)

    assert scan("--strategies", file, "--json")[0] == 0
    assert scan("--strategies", file, "--json", "--fail-on-empty")[0] == 3


def test_no_store_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scan", "--store", str(tmp_path / "none")])

    assert ended.value.code == 2
    assert "mystocks-scan import PATH" in capsys.readouterr().err


def test_scanning_twice_records_once_and_says_the_same(scan: Any, root: Path, tmp_path: Path) -> None:
    file = strategies(tmp_path, "{name: twice, when: close > 0, action: ALERT}")
    first, second = (json.loads(scan("--json", "--strategies", file)[1]) for _ in range(2))

    ids = [signal["id"] for signal in first["signals"]]
    assert ids == [signal["id"] for signal in second["signals"]]
    kept = SignalHistory(root / "signals").query(strategies=["twice"])["id"].to_pylist()
    assert sorted(kept) == sorted(ids)


def test_a_cooldown_counts_bars_across_processes(scan: Any, tmp_path: Path) -> None:
    file = strategies(tmp_path, "{name: cool, when: close > 0, action: ALERT, cooldown: 2}")
    counts = []
    for session in SESSIONS[-6:]:
        found = json.loads(scan("--json", "--strategies", file, "--as-of", str(session))[1])
        counts.append({signal["symbol"] for signal in found["signals"]})

    whole = set.intersection(*(set(day) for day in (counts[0], counts[3])))
    assert len(whole) > 50
    assert not counts[1] & whole
    assert not counts[2] & whole
    assert whole <= counts[3]


def test_as_of_sees_nothing_later(scan: Any, tmp_path: Path, root: Path) -> None:
    at = SESSIONS[60]
    early = BarStore(tmp_path / "early", origin="market")
    early.append(MARKET.bars("1d", *SESSIONS[:61]), "1d")
    found = json.loads(scan("--json", "--dry-run", "--as-of", str(at))[1])
    alone = json.loads(scan("--json", "--dry-run", "--store", str(early.root))[1])

    def seen(result: dict[str, Any]) -> list[Any]:
        return [(s["id"], s["values"], s["price"]) for s in result["signals"]]

    assert found["bars"] == 61
    assert seen(found) == seen(alone)
    assert found["signals"]


def test_history_bars_bound_what_indicators_see(scan: Any) -> None:
    found = json.loads(scan("--json", "--dry-run", "--history-bars", "40")[1])

    assert found["bars"] == 40
