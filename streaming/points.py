"""Points of a time series as lines of InfluxDB's line protocol.

https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/ is the format.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Value = float | int | bool | str
_OF_TAGS = str.maketrans({char: f"\\{char}" for char in ",= "})
_OF_TEXTS = str.maketrans({char: f"\\{char}" for char in '"\\'})


@dataclass(frozen=True)
class Point:
    """One row of a measurement; `time_ns` is UTC. Points of equal measurement, tags and time are one: the last.

    The measurement's name and those of tags and fields are plain words; their values may be any text.
    """

    measurement: str
    time_ns: int
    tags: Mapping[str, str]
    fields: Mapping[str, Value | None]

    def line(self) -> str | None:
        """The point as a line; without what is None, an empty tag or not finite. None where no field is left."""
        fields = [f"{name}={text}" for name, value in self.fields.items() if (text := _field(value)) is not None]
        if not fields:
            return None
        tags = [f"{name}={text}" for name, value in sorted(self.tags.items()) if (text := _tag(value))]
        return f"{','.join([self.measurement, *tags])} {','.join(fields)} {self.time_ns}"


def _one_line(text: str) -> str:
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _tag(text: str) -> str:
    """A tag's value; a backslash at its end would swallow what follows."""
    return _one_line(text).rstrip("\\").translate(_OF_TAGS)


def _field(value: Value | None) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, str):
        return f'"{_one_line(value).translate(_OF_TEXTS)}"'
    return repr(float(value)) if math.isfinite(value) else None


def lines_of(points: Iterable[Point]) -> list[bytes]:
    """Points as they are sent. Thousands take a while: where others share the loop, in a thread."""
    return [line.encode() for point in points if (line := point.line()) is not None]
