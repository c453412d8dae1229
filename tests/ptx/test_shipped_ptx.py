"""The shipped PTX: what it is made of, what it takes, what it must not hold, and its bits."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from scanner import ptx
from scanner.engines.base import Series, joint_span, load
from scanner.engines.machine import Advance
from scanner.engines.on_gpu import CudaMachine
from scanner.indicators import catalog, kernels
from scanner.indicators.spec import Indicator
from scanner.ptx import arguments
from scanner.ptx.on_cpu import PtxMachine
from scanner.ptx.sources import digest

every_kernel = pytest.mark.parametrize("indicator", kernels(), ids=lambda i: i.name)
REMEDY = "make them anew where numba-cuda is: python -m scanner.ptx.build"


def text_of(indicator: Indicator) -> str:
    if indicator.name not in ptx.entries():
        pytest.fail(f"{indicator.name} has no PTX; {REMEDY}")
    return ptx.text(indicator.name)


def test_it_was_made_of_the_kernels_as_they_are() -> None:
    made = {name: entry.source for name, entry in ptx.entries().items()}
    wanted = {indicator.name: digest(indicator) for indicator in kernels()}
    stale = sorted(name for name in {*made, *wanted} if made.get(name) != wanted.get(name))
    assert not stale, f"the PTX of {', '.join(stale)} is not that of the kernels: {REMEDY}"


def test_the_manifest_lists_the_files_that_are_there() -> None:
    there = {Path(str(file)).name: file.read_bytes() for file in ptx.KERNELS.iterdir()}
    listed = {entry.file: entry.sha256 for entry in ptx.entries().values()}
    assert set(there) == {*listed, "manifest.json"}
    assert {name: hashlib.sha256(there[name]).hexdigest() for name in listed} == listed
    made_with = ptx.manifest()["made_with"]
    assert ptx.manifest()["target"] == "compute_75"
    assert set(made_with) == {"python", "numba-cuda", "nvvm"}


def test_a_file_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rsi.ptx").write_bytes(ptx.text("RSI").encode().replace(b"div.rn.f64", b"mul.rn.f64"))
    monkeypatch.setattr(ptx, "KERNELS", tmp_path)
    with pytest.raises(EngineError, match=r"rsi\.ptx is not what its manifest says"):
        ptx.text("RSI")
    with pytest.raises(EngineError, match="MAMA has no PTX"):
        ptx.text("MAMA")


@every_kernel
def test_it_takes_what_the_declaration_says(indicator: Indicator) -> None:
    entry, text = ptx.entries()[indicator.name], text_of(indicator)
    kinds = ["i64[]", "i64[]", *["f64[,]"] * (len(indicator.inputs) + 1 + len(indicator.outputs))]
    kinds += ["i64" if param.kind is int else "f64" for param in indicator.params]
    assert list(entry.arguments) == kinds == list(arguments.layout(indicator))
    words = 14 + 9 * (len(indicator.inputs) + 1 + len(indicator.outputs)) + len(indicator.params)
    assert entry.words == words == len(re.findall(r"^\.param \.(?:u64|f64) p\d+,?$", text, re.MULTILINE))
    floats = [place for place, kind in enumerate(re.findall(r"^\.param \.(\w+)", text, re.MULTILINE)) if kind == "f64"]
    assert floats == [words - len(kinds) + place for place, kind in enumerate(kinds) if kind == "f64"]
    assert re.findall(r"^\.visible \.entry (\w+)\($", text, re.MULTILINE) == [entry.name]
    assert text.splitlines()[:3] == [".version 6.3", ".target sm_75", ".address_size 64"]


ROUNDED = {"add.rn.f64", "sub.rn.f64", "mul.rn.f64", "div.rn.f64", "rcp.rn.f64", "sqrt.rn.f64", "cvt.rn.f64.s64"}
EXACT = re.compile(r"(?:ld\.param|ld\.global|st\.global|mov|selp|abs|neg|min|max|setp\.\w+)\.f64")


@every_kernel
def test_a_gpu_rounds_it_as_a_cpu_does_and_no_thread_meets_another(indicator: Indicator) -> None:
    text = text_of(indicator)
    opcodes = set(re.findall(r"^(?:@!?%\w+ )?([a-z][\w.]*)(?: .*)?;$", text, re.MULTILINE))
    assert {op for op in opcodes if "f64" in op and not EXACT.fullmatch(op)} <= ROUNDED
    assert not [op for op in opcodes if op.startswith(("fma", "call", "atom", "red", "bar", "shfl", "vote", "mad.rn"))]
    assert not [op for op in opcodes if re.search(r"\.(?:f32|f16|local|shared|const|ftz|approx)\b", op)]
    directives = set(re.findall(r"(?<![\w.])\.[a-z]\w*", text))
    assert directives <= {
        ".version", ".target", ".address_size", ".visible", ".entry", ".param", ".reg", ".pred", ".b32", ".b64",
        ".f64", ".u64", ".pragma",
    }  # fmt: skip


@every_kernel
def test_its_bits_are_those_of_the_compiled_kernel(shipped: CudaMachine, proof: Any, indicator: Indicator) -> None:
    inputs = proof.market(indicator)
    for args in proof.settings(indicator):
        assert proof.differing(shipped, indicator, args, inputs) == 0, args


@every_kernel
def test_so_they_are_on_a_single_bar_and_on_nothing(shipped: CudaMachine, proof: Any, indicator: Indicator) -> None:
    for n_symbols, bars in ((5, 1), (3, 2), (0, 40), (3, 0)):
        inputs = [
            Series(np.ascontiguousarray(series.by_bar[:bars, :n_symbols]), np.minimum(series.lengths, bars)[:n_symbols])
            for series in proof.market(indicator, 5, 40)
        ]
        if bars and n_symbols:
            assert proof.differing(shipped, indicator, (), inputs) == 0
        else:
            assert {m.shape for m in proof.run(shipped, indicator, (), inputs)} == {(bars, n_symbols)}


@every_kernel
def test_one_bar_at_a_time_gives_the_same_on_rings(shipped: CudaMachine, proof: Any, indicator: Indicator) -> None:
    """Columns that stand at different bars in one call; rings no longer than a kernel may look back."""
    assert indicator.kernel
    params, inputs = indicator.bind(), proof.market(indicator, 9)
    first, stop = joint_span(indicator, inputs)
    wanted = load("vector").run(indicator, params, inputs)
    ring = indicator.lookback(**params) + 2
    rings = [shipped.zeros(ring, len(first)) for _ in inputs]
    state = shipped.zeros(indicator.kernel.rows(params), len(first))
    outputs = [shipped.zeros(1, len(first)) for _ in wanted]
    step = shipped.chain([Advance(indicator, params, rings, state, outputs)])
    rng, t = np.random.default_rng(8), first.copy()
    got = [np.full(matrix.shape, np.nan) for matrix in wanted]
    while (t < stop).any():
        has = (t < stop) & (rng.random(len(t)) < 0.7)
        (now,) = np.nonzero(has)
        for matrix, series in zip(rings, inputs, strict=True):
            matrix[t[now] % ring, now] = series.by_bar[t[now], now]
        step(t, has)
        for matrix, output in zip(got, outputs, strict=True):
            matrix[t[now], now] = output[0, now]
        t += has
    for one, other in zip(got, wanted, strict=True):
        different = one.view(np.uint64) != other.view(np.uint64)
        assert not (different & ~(np.isnan(one) & np.isnan(other))).any()


def test_the_last_rows_alone_are_the_last_rows(shipped: CudaMachine, proof: Any) -> None:
    for name in ("RSI", "KDJ", "TRANGE"):
        inputs = proof.market(catalog[name])
        whole = proof.run(shipped, catalog[name], (), inputs)
        for keep in (1, 3):
            for all_rows, last in zip(whole, proof.run(shipped, catalog[name], (), inputs, keep), strict=True):
                np.testing.assert_array_equal(np.roll(last, -(len(all_rows) % keep), axis=0), all_rows[-keep:])


def test_a_launch_is_refused_where_its_arguments_do_not_fit(gcc: None) -> None:
    rsi, machine = catalog["RSI"], PtxMachine({"RSI": ptx.text("RSI")})
    spans, matrix = np.zeros(3, dtype=np.int64), np.zeros((4, 3))

    def launch(begin: Any = spans, x: Any = matrix, state: Any = matrix, out: Any = matrix) -> None:
        machine.launch(arguments.plan(rsi, rsi.bind(), begin, spans, [x], state, [out]))

    launch()
    with pytest.raises(ValueError, match=r"arguments of \[3, 4\] columns"):
        launch(x=np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"argument 2 must be f64\[,\], C-contiguous; got float32 of 2 dimensions"):
        launch(x=matrix.astype(np.float32))
    with pytest.raises(ValueError, match="argument 4 must be"):
        launch(out=np.asfortranarray(np.zeros((4, 3))))
    with pytest.raises(ValueError, match="argument 0 must be"):
        launch(begin=spans.astype(np.int32))
    with pytest.raises(ValueError, match="RSI takes 1 inputs and 1 outputs; got 2 and 1"):
        arguments.plan(rsi, rsi.bind(), spans, spans, [matrix, matrix], matrix, [matrix])
    full = np.full(3, 4)
    with pytest.raises(RuntimeError, match="RSI: its PTX went outside its arrays"):
        machine.launch(arguments.plan(rsi, rsi.bind(), spans, full, [matrix], np.zeros((1, 3)), [matrix]))


def test_words_are_those_of_numba_s_kernels() -> None:
    rsi = catalog["RSI"]
    spans, matrix = np.arange(3), np.zeros((4, 3))
    call = arguments.plan(rsi, {"timeperiod": -2}, spans, spans, [matrix], matrix, [matrix])
    assert (call.columns, call.blocks) == (3, 1)
    array, one = [0, 0, 12, 8, matrix.ctypes.data, 4, 3, 24, 8], [0, 0, 3, 8, spans.ctypes.data, 3, 8]
    assert call.words.tolist() == [*one, *one, *array * 3, 2**64 - 2]
    assert arguments.pack(["f64"], [1.0]).tolist() == [0x3FF0000000000000]
    many = arguments.plan(rsi, rsi.bind(), np.arange(65), np.arange(65), [np.zeros((4, 65))] * 1, *two(65))
    assert many.blocks == 2


def two(columns: int) -> tuple[Any, list[Any]]:
    return np.zeros((4, columns)), [np.zeros((4, columns))]


def test_the_manifest_is_read_as_it_is_written() -> None:
    raw = json.loads((ptx.KERNELS / "manifest.json").read_text(encoding="utf-8"))
    assert list(raw["entries"]) == list(ptx.entries())
