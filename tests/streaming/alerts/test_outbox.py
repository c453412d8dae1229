"""Outbox: batches, pieces, the cap and its digest, retries; by the numbers of a clock that the test holds."""

from collections.abc import Sequence
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from streaming.alerts.outbox import Alert, Batch, Message, Outbox

EPOCH = "e1"


def said(number: int) -> tuple[str, str]:
    return f"head {number}", f"text {number}"


def batch(first: int, n: int = 1, *, confidence: float = 0.5, title: str = "scan") -> Batch:
    """Alerts with the sequence numbers from `first` on."""
    return Batch(title, [Alert((EPOCH, i), partial(said, i), "BUY", confidence) for i in range(first, first + n)])


def outbox(longest: int = 10_000, **given: float) -> Outbox:
    return Outbox(lambda title, body: len(title) + len(body) <= longest, sender="us", **given)  # type: ignore[arg-type]


def drain(box: Outbox, now: float) -> list[Message]:
    """What can be sent now, and is."""
    sent = []
    while (message := box.take(now)) is not None:
        box.sent()
        sent.append(message)
    return sent


def seqs(messages: Sequence[Message]) -> list[int]:
    return [alert.place[1] for message in messages for alert in message.alerts]


def test_a_scan_s_alerts_are_one_message() -> None:
    box = outbox()
    box.put(batch(1, 3))
    (message,) = drain(box, 0)
    assert (message.title, message.body) == ("scan", "head 1\ntext 1\n\nhead 2\ntext 2\n\nhead 3\ntext 3")
    assert (box.waiting, box.oldest, box.due(0)) == (0, None, None)


def test_what_does_not_fit_is_several_messages_and_each_fits() -> None:
    box = outbox(40, per_minute=100)
    box.put(batch(1, 7))
    messages = drain(box, 0)
    assert len(messages) == 4
    assert seqs(messages) == list(range(1, 8))
    assert all(len(message.title) + len(message.body) <= 40 for message in messages)


def test_one_alert_that_is_too_long_is_cut() -> None:
    box = outbox(30)
    box.put(Batch("t", [Alert((EPOCH, 1), lambda: ("x" * 500, ""))]))
    (message,) = drain(box, 0)
    assert message.body == "x" * 28 + "…"


def test_over_the_cap_all_is_held_for_a_minute_and_told_in_one_digest() -> None:
    box = outbox(per_minute=2)
    for n in range(1, 6):
        box.put(batch(n, confidence=n / 10))
    assert seqs(drain(box, 10)) == [1, 2]
    box.put(batch(6, 4, confidence=0.9))
    assert drain(box, 69.9) == []
    assert (box.held, box.oldest) == (7, (EPOCH, 3))
    assert box.due(69.9) is not None
    assert abs(box.due(69.9) - 0.1) < 1e-6  # type: ignore[operator]
    (digest,) = drain(box, 70)
    assert (digest.digest, digest.alerts, digest.first) == (7, (), (EPOCH, 3))
    assert digest.title == "us: 7 alerts held back"
    assert "2 messages a minute: 7 BUY" in digest.body
    named = [line for line in digest.body.splitlines() if line.startswith("head")]
    assert named == [f"head {n}" for n in (6, 7, 8, 9, 5, 4, 3)]
    box.put(batch(10))
    assert seqs(drain(box, 71)) == [10]


def test_a_digest_names_as_many_as_fit_and_no_more_than_it_may_hold() -> None:
    box = outbox(400, per_minute=1)
    box.put(batch(1))
    drain(box, 0)
    box.put(batch(2, 900))
    drain(box, 1)
    (digest,) = drain(box, 61)
    assert (digest.digest, len(digest.title) + len(digest.body) <= 400) == (900, True)
    assert 5 < digest.body.count("head") <= 20


def test_in_a_hurry_a_digest_does_not_wait() -> None:
    box = outbox(per_minute=1)
    box.put(batch(1, 1))
    drain(box, 0)
    box.put(batch(2, 2))
    assert drain(box, 1) == []
    digest = box.take(1, hurry=True)
    assert digest is not None
    assert digest.digest == 2


def test_an_attempt_that_fails_is_tried_again_ever_later_and_then_given_up() -> None:
    box, now, pauses = outbox(attempts=4, backoff_s=2), 0.0, []
    box.put(batch(1))
    box.put(batch(2))
    for _ in range(3):
        assert box.take(now) is not None
        assert box.take(now) is not None or box.due(now) == 0
        assert box.failed(now) is None
        assert box.take(now) is None
        pauses.append(box.due(now))
        now += pauses[-1] or 0
    assert pauses == [2, 4, 8]
    assert box.oldest == (EPOCH, 1)
    box.take(now)
    dead = box.failed(now)
    assert dead is not None
    assert (dead.attempts, seqs([dead])) == (4, [1])
    assert seqs(drain(box, now)) == [2]


def test_what_is_refused_for_good_is_not_tried_again_and_what_asks_for_patience_gets_it() -> None:
    box = outbox(attempts=6, backoff_s=2)
    box.put(batch(1))
    box.put(batch(2))
    box.take(0)
    assert box.failed(0, for_good=True) is not None
    assert box.take(0) is not None
    assert box.failed(0, pause_s=37) is None
    assert box.due(0) == 37


def test_the_pause_is_never_longer_than_a_minute_of_its_own() -> None:
    box = outbox(attempts=20, backoff_s=50)
    box.put(batch(1))
    for _ in range(5):
        box.take(0)
        box.failed(0)
        assert (box.due(0) or 0) <= 60


def test_a_full_queue_gives_up_its_oldest() -> None:
    box = outbox(size=5)
    assert box.put(batch(1, 3)) == []
    gone = box.put(batch(4, 4))
    assert [alert.place[1] for alert in gone] == [2, 3]
    assert seqs(drain(box, 0)) == [1, 4, 5, 6, 7]


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 30), st.booleans()), max_size=30),
    st.integers(1, 4),
    st.integers(25, 200),
)
def test_each_alert_is_sent_held_or_given_up_once_and_the_cap_holds(
    events: list[tuple[int, int, bool]], per_minute: int, longest: int
) -> None:
    box = outbox(longest, per_minute=per_minute, attempts=2, backoff_s=1, size=20)
    now, seq, ended, begun = 0.0, 1, 0, list[float]()

    def work() -> None:
        nonlocal ended
        while (message := box.take(now)) is not None:
            begun.append(now)
            n = len(message.alerts) or message.digest
            if fails:
                ended += n if box.failed(now) is not None else 0
            else:
                box.sent()
                ended += n

    for n, passes, failing in events:
        fails = failing
        ended += len(box.put(batch(seq, n)))
        seq += n
        oldest = box.oldest
        assert oldest is not None
        work()
        assert box.oldest is None or box.oldest >= oldest
        assert ended + box.waiting == seq - 1
        now += passes
    fails = False
    for _ in range(200):
        now += box.due(now) or 0
        work()
        if not box.waiting:
            break
    assert ended == seq - 1
    first_attempts = [at for at in begun if sum(1 for other in begun if at <= other < at + 60) > 2 * per_minute + 2]
    assert first_attempts == []
