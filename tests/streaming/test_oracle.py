"""Every subscriber has every signal of its filter, once, whatever dies: the short form of `benchmarks/oracle.py`."""

from argparse import Namespace

from benchmarks.oracle import run


def test_storms_kills_in_mid_broadcast_and_a_ring_that_overflows() -> None:
    faults, done = run(Namespace(world="light", kills=2, dies=[], subscribers=16, messages=6, seed=3))
    assert not faults, done
    assert done.startswith("light, seed 3: {'light': 2} killed")


def test_the_live_service_killed_before_its_signals_are_durable_and_before_they_are_sent() -> None:
    faults, done = run(Namespace(world="real", kills=0, dies=["kept", "keeping"], subscribers=8, messages=6, seed=3))
    assert not faults, done
    assert done.startswith("real, seed 3: {'kept': 1, 'keeping': 1} killed")
