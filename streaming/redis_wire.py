"""How the bus lies in Redis: keys, entries and the scripts that touch several keys at once.

    mystocks:BUS:market.tick, ...:market.bar, ...:signal.alert      the streams, one for each kind of topic
    mystocks:BUS:market.bar:head                                    epoch and number of a stream's last entry
    mystocks:BUS:readers                                            who subscribes to what, as JSON
    mystocks:BUS:reader:NAME                                        who reads for a subscription; expires

An entry's id is `epoch-number`. Numbers count by one, so that a gap is a loss and a difference is a backlog. The epoch
changes where Redis has forgotten entries (a restart without persistence), and only grows: what was read of an epoch
is never taken for an entry of the next. An entry's `by` and `no` say who sent it and as its how manieth.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import pyarrow as pa

from data.errors import UsageError
from streaming.redis_link import RedisLink

KINDS = {"market.tick": 256, "market.bar": 512, "signal.alert": 4096}
"""How topics begin that go over Redis -> how many entries their stream keeps, at least twice what may be unread."""

ADD = """
local head = redis.call('HMGET', KEYS[2], 'epoch', 'n')
local epoch, n = head[1], tonumber(head[2] or '0')
if ARGV[1] ~= '' and (epoch ~= ARGV[1] or n < tonumber(ARGV[2])) then return {'lost'} end
if not epoch then
  local now = redis.call('TIME')
  epoch = now[1] .. string.format('%06d', now[2])
end
n = n + 1
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], epoch .. '-' .. n, unpack(ARGV, 4))
redis.call('HSET', KEYS[2], 'epoch', epoch, 'n', n)
return {'ok', epoch, n, redis.call('XINFO', 'GROUPS', KEYS[1])}
"""
"""(stream, head; epoch and number as the sender knows them, how many to keep, fields...) -> `lost`, where Redis knows
of fewer entries than the sender, or `ok`, epoch, number and the groups."""
BEGIN = """
local head = redis.call('HMGET', KEYS[2], 'epoch', 'n')
local epoch, n = tonumber(head[1] or '0'), tonumber(head[2] or '0')
local known, sent = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch < known or (epoch == known and n < sent) then
  local now = redis.call('TIME')
  epoch, n = math.max(now[1] * 1000000 + now[2], known + 1), math.max(n, sent)
end
epoch = string.format('%.0f', epoch)
redis.call('HSET', KEYS[2], 'epoch', epoch, 'n', n)
return {epoch, n}
"""
"""(stream, head; epoch and number as the sender knows them) -> epoch and number to go on from, newer than those."""
LOOK = """
local head = redis.call('HMGET', KEYS[2], 'epoch', 'n')
local groups = {}
if redis.call('EXISTS', KEYS[1]) == 1 then groups = redis.call('XINFO', 'GROUPS', KEYS[1]) end
return {head[1] or '', head[2] or '0', groups}
"""
"""(stream, head) -> epoch, number and the groups."""
ENTER = """
local at = ARGV[2]
local head = redis.call('HMGET', KEYS[2], 'epoch', 'n')
if at == '' then
  at = head[1] and (head[1] .. '-' .. head[2]) or '0-0'
elseif at ~= '0-0' and not head[1] then
  local epoch, n = string.match(at, '(%d+)-(%d+)')
  redis.call('HSET', KEYS[2], 'epoch', string.format('%.0f', epoch + 1), 'n', n)
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], at, 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  for k = 1, #group, 2 do
    if group[k] == 'name' and group[k + 1] == ARGV[1] then return group end
  end
end
"""
"""(stream, head; group, place or `` for now) -> the group, made at that place if it was not there. Where Redis has
forgotten the head, numbers go on from that place in a new epoch, by which publishers know."""
KEEP = """
local who = redis.call('GET', KEYS[1])
if who and who ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""(lease; who, ms) -> 1, or 0 where it is another's."""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Place(NamedTuple):
    """Where an entry stands in its stream."""

    epoch: int
    n: int

    @classmethod
    def of(cls, text: bytes) -> "Place":
        """The place that an id spells."""
        epoch, n = text.split(b"-")
        return cls(int(epoch), int(n))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.n}"


@dataclass(frozen=True)
class Group:
    """How far one group of readers has come in one stream."""

    name: str
    pending: int
    """Entries that a reader has and has not acknowledged."""
    delivered: Place

    @classmethod
    def of(cls, answer: Sequence[Any]) -> "Group":
        """As XINFO GROUPS says it."""
        about = dict(zip(answer[::2], answer[1::2], strict=True))
        return cls(about[b"name"].decode(), int(about[b"pending"]), Place.of(about[b"last-delivered-id"]))

    def unread(self, at: Place) -> int:
        """How many entries up to a place are not acknowledged."""
        return at.n - self.delivered.n + self.pending

    def is_done(self, place: Place) -> bool:
        """Whether an entry is acknowledged, and all before it: readers acknowledge in order."""
        return place.epoch == self.delivered.epoch and place.n <= self.delivered.n - self.pending


@dataclass(frozen=True)
class Reader:
    """A subscription as all processes know it. `limit`: how many unread entries make publishers wait, 0: none do."""

    group: str
    pattern: str
    limit: int
    lasting: bool
    """Whether it outlives its process."""

    def to_json(self) -> str:
        """All but the name."""
        return json.dumps({"pattern": self.pattern, "limit": self.limit, "lasting": self.lasting})

    @classmethod
    def of(cls, group: bytes, about: bytes) -> "Reader":
        """The inverse of `to_json`."""
        return cls(group.decode(), **json.loads(about))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The streams that may hold what it wants."""
        head = self.pattern.partition("*")[0]
        return tuple(kind for kind in KINDS if kind.startswith(head) or head.startswith(kind))


@dataclass(frozen=True)
class Keys:
    """Where the bus of a name lies."""

    name: str

    @property
    def readers(self) -> str:
        """Who subscribes to what."""
        return f"mystocks:{self.name}:readers"

    def stream(self, kind: str) -> str:
        """A kind's stream."""
        return f"mystocks:{self.name}:{kind}"

    def pair(self, kind: str) -> tuple[str, str]:
        """A kind's stream and its head."""
        return self.stream(kind), f"mystocks:{self.name}:{kind}:head"

    def lease(self, group: str) -> str:
        """Who reads for a group."""
        return f"mystocks:{self.name}:reader:{group}"


def kind_of(topic: str) -> str:
    """The stream that a topic goes to. Raises UsageError where there is none."""
    kind = ".".join(topic.split(".")[:2])
    if kind not in KINDS:
        raise UsageError(f"topics of a bus over Redis begin with {', '.join(KINDS)}; got {topic!r}")
    return kind


def to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """A batch as an Arrow IPC stream; dictionaries stay dictionaries."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def from_ipc(payload: bytes) -> pa.RecordBatch:
    """The inverse of `to_ipc`; the columns are views of `payload`."""
    return pa.ipc.open_stream(payload).read_next_batch()


def identity(batch: pa.RecordBatch) -> str:
    """What is the same for two copies of one event, also where its publisher made them in two runs: of ticks provider,
    sequence and receipt (sequences begin anew with each run), of closed bars frame and end, of changes to them the
    rows. Empty where a batch says nothing of the kind: signals are known by their ids, and an open bar may be looked at
    twice."""
    about = batch.schema.metadata or {}
    if about.get(b"developing", b"0") == b"1":
        return ""
    for names in ((b"provider", b"seq", b"received_ns"), (b"frame", b"bar_end", b"revision")):
        if all(name in about for name in names):
            name = "/".join(about[name].decode() for name in names)
            changed = about.get(b"revision", b"0") != b"0"
            return f"{name}/{crc32(to_ipc(batch.replace_schema_metadata(None)))}" if changed else name
    return ""


async def enter(link: RedisLink, keys: Keys, reader: Reader, at: dict[str, Place]) -> dict[str, Group]:
    """See that a reader's groups are there, if they are not made at a place (by kind; else: from now on), and that
    publishers know of it."""
    groups = {}
    for kind in reader.kinds:
        answer = await link.script(ENTER, keys.pair(kind), reader.group, str(at[kind]) if kind in at else "")
        groups[kind] = Group.of(answer)
    await link.do("HSET", keys.readers, reader.group, reader.to_json())
    return groups
