"""InfluxWriter: what a database takes, refuses, or cannot take now; over real sockets."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from streaming.influx import Database, InfluxWriter
from streaming.points import Point, lines_of
from tests.streaming.influx.databases import TOKEN, Fault, Influx, free_port, serving


class Counts:
    """What a writer told."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.troubles: Counter[str] = Counter()

    def count(self, result: str, n: int) -> None:
        self.results[result] += n

    def trouble(self, reason: str) -> None:
        self.troubles[reason] += 1


def points(first: int, n: int = 1, text: str = "good") -> list[bytes]:
    return lines_of(Point("m", at, {"tag": "t"}, {"n": at, "text": text}) for at in range(first, first + n))


def play(
    scene: Callable[[InfluxWriter, Counts], Awaitable[None]],
    url: str,
    *,
    token: str = TOKEN,
    org: str = "desk",
    **given: float,
) -> Counts:
    """Run a writer beside a scene, and to its end."""

    async def run() -> Counts:
        counts = Counts()
        chosen = {"flush_s": 0.01, "backoff_s": 0.01} | given
        writer = InfluxWriter(
            Database(url, "market", org, token),
            on_result=counts.count,
            on_trouble=counts.trouble,
            **chosen,  # type: ignore[arg-type]
        )
        work = asyncio.create_task(writer.run())
        async with asyncio.timeout(20):
            await scene(writer, counts)
            writer.end()
            await work
        return counts

    return asyncio.run(run())


def putting(*batches: list[bytes]) -> Callable[[InfluxWriter, Counts], Awaitable[None]]:
    async def scene(writer: InfluxWriter, counts: Counts) -> None:
        for batch in batches:
            writer.put(batch)

    return scene


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.002)


def times(influx: Influx) -> list[int]:
    return [at for _, _, at in influx.of("m")]


def test_points_go_in_batches_and_in_order() -> None:
    with serving(Influx()) as influx:
        counts = play(putting(points(0, 7), points(7, 6)), influx.url, batch=5)
    assert times(influx) == list(range(13))
    assert influx.requests == [5, 5, 3]
    assert counts.results == {"written": 13}
    tags, fields, _ = influx.of("m")[0]
    assert (tags, fields) == ({"tag": "t"}, {"n": 0, "text": "good"})


def test_influxdb_3_has_no_organisation() -> None:
    with serving(Influx(3)) as influx:
        play(putting(points(0, 2)), influx.url, org="")
    assert times(influx) == [0, 1]


@pytest.mark.parametrize("version", [2, 22, 3])
def test_of_a_batch_the_bad_points_are_left_out_and_counted(version: int) -> None:
    mixed = points(0, 50) + points(50, 1, "poison") + points(51, 30) + points(81, 2, "poison") + points(83, 17)
    with serving(Influx(version)) as influx:
        counts = play(putting(mixed, points(100, 5)), influx.url)
    assert times(influx) == [at for at in range(105) if at not in (50, 81, 82)]
    assert counts.results == {"written": 102, "refused": 3}
    assert len(influx.requests) < (2 if version != 2 else 40)


def test_a_batch_of_which_nothing_is_right_costs_few_requests() -> None:
    with serving(Influx()) as influx:
        counts = play(putting(points(0, 500, "poison"), points(5000, 3)), influx.url)
    assert counts.results["refused"] + counts.results["written"] == 503
    assert counts.results["refused"] >= 500
    assert len(influx.requests) < 120


def test_what_fails_is_written_when_the_database_is_back() -> None:
    with serving(Influx()) as influx:
        influx.faults += [Fault(503), Fault(500), Fault(429, {"Retry-After": "0.05"}), Fault(302)]
        counts = play(putting(points(0, 5)), influx.url)
    assert times(influx) == list(range(5))
    assert counts.results == {"written": 5}
    assert counts.troubles == {"error": 3, "limited": 1}


def test_a_database_that_is_down_at_the_start_gets_it_all_later(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()

    async def scene(writer: InfluxWriter, counts: Counts) -> None:
        writer.put(points(0, 3))
        await until(lambda: counts.troubles["unreachable"] >= 3)
        writer.put(points(3, 3))
        assert writer.waiting == 6
        context = serving(Influx(), port)
        influx = await asyncio.to_thread(context.__enter__)
        try:
            await until(lambda: counts.results["written"] == 6)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
        assert times(influx) == list(range(6))

    play(scene, f"http://127.0.0.1:{port}")
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2  # once that it is down, once that it is back
    assert TOKEN not in caplog.text


def test_a_database_that_hangs_is_asked_again() -> None:
    with serving(Influx()) as influx:
        influx.faults.append(Fault(hang=True))
        counts = play(putting(points(0, 3)), influx.url, timeout_s=0.2)
        assert times(influx) == [0, 1, 2]
    assert counts.troubles == {"timeout": 1}


def test_a_wrong_token_is_said_and_tried_again_for_it_may_be_set_right(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Influx()) as influx:

        async def scene(writer: InfluxWriter, counts: Counts) -> None:
            writer.put(points(0, 3))
            await until(lambda: counts.troubles["denied"] >= 2)
            assert writer.waiting == 3
            influx.token = "wr0ng-token"

        counts = play(scene, influx.url, token="wr0ng-token")
    assert counts.results == {"written": 3}
    assert "HTTP 401" in caplog.text
    assert "wr0ng" not in caplog.text


def test_a_token_that_no_header_can_hold_ends_nothing_and_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Influx()) as influx:

        async def scene(writer: InfluxWriter, counts: Counts) -> None:
            writer.put(points(0, 3))
            await until(lambda: counts.troubles["error"] >= 2)
            writer._database = Database(influx.url, "market", "desk", TOKEN)

        counts = play(scene, influx.url, token="密s3cret")
    assert counts.results == {"written": 3}
    assert "s3cret" not in caplog.text


def test_memory_is_bounded_and_the_oldest_go() -> None:
    port = free_port()

    async def scene(writer: InfluxWriter, counts: Counts) -> None:
        for first in range(0, 10_000, 100):
            writer.put(points(first, 100))
        await until(lambda: counts.troubles["unreachable"] >= 1)
        writer.put(points(10_000, 1))
        n = writer.waiting
        assert 100 < n < 3000
        assert counts.results == {"dropped": 10_001 - n}
        influx = Influx()
        with serving(influx, port):
            await until(lambda: counts.results["written"] == n)
        assert times(influx) == list(range(10_001 - n, 10_001))

    play(scene, f"http://127.0.0.1:{port}", most_bytes=1 << 16)
