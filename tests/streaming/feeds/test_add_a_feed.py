"""docs/add-a-feed.md, done as it says: a package that brings a vendor is built, installed and read from."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "add-a-feed.md").read_text()
LINES = b"600519|20260723094907|1277.99|1270.00|1281.50|1268.00|1265.10|1052|134312204.00\n000001|20260723094907|1|2\n"


def block(mark: str) -> str:
    (found,) = re.findall(rf"^<!-- {re.escape(mark)} -->\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the page's package is installed in."""
    project, folder = tmp_path_factory.mktemp("acme"), tmp_path_factory.mktemp("site")
    for name in re.findall(r"^<!-- file (\S+) -->$", PAGE, re.MULTILINE):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(block(f"file {name}"))
    wheel = next(WheelBuilder(str(project)).build(directory=str(project / "dist"), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:  # what an installer does with a wheel of nothing but Python
        archive.extractall(folder)
    return folder


SERVER = """
async def serve(reader, writer):
    asked = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
    print(asked.split(" ")[1], "Bearer ..." in asked)
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(LINES) + LINES)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    rows, symbols = await quotes(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    print(symbols)
    (row,) = rows
    print(row["symbol"], row["last"], row["volume"], row["quote_time"].isoformat())
    server.close()


asyncio.run(main())
"""


def run(installed: Path, program: str) -> str:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:0] = [{str(installed)!r}, {str(root)!r}]\n{program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_package_with_an_entry_point_brings_a_vendor(installed: Path) -> None:
    said = run(installed, f"{block('program')}\nLINES = {LINES!r}\n{SERVER}")
    assert said.splitlines() == [
        "/quotes?c=600519,000001 True",
        "('600519.SH', '000001.SZ')",
        "600519.SH 1277.99 105200.0 2026-07-23T01:49:07+00:00",
    ]


def test_it_stands_among_the_feeds_by_its_name(installed: Path) -> None:
    listed = run(installed, "from streaming.feeds import feed_names; print('acme' in feed_names())")
    assert listed == "True\n"


def test_the_page_s_parser_leaves_out_bad_lines_alone(installed: Path) -> None:
    program = "from streaming.feeds.connections import find_vendor\nacme = find_vendor('acme')\n"
    program += f"parsed = acme.parse({LINES!r}, acme.universe(['600519.SH', '000001.SZ']))\n"
    assert run(installed, program + "print(parsed.ticks.num_rows, dict(parsed.dropped))") == "1 {'short': 1}\n"


def test_an_entry_and_its_vendor_have_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    from data.errors import UsageError
    from streaming.feeds import GROUP, connections
    from streaming.feeds.vendors import VENDORS

    points = EntryPoints(
        [
            EntryPoint("mine", "streaming.feeds.vendors:_DECLARED", GROUP),
            EntryPoint("file", "streaming.feeds.simulated:open_feed", GROUP),
        ]
    )
    monkeypatch.setattr(connections, "entry_points", lambda **wanted: points.select(**wanted))
    assert connections.find_vendor("file") is None
    assert connections.find_vendor("nobody") is None
    assert connections.find_vendor("sina") is VENDORS["sina"]
    monkeypatch.setattr("streaming.feeds.vendors._DECLARED", VENDORS["tencent"])
    with pytest.raises(UsageError, match=r"entry point 'mine' .* is the vendor 'tencent'"):
        connections.find_vendor("mine")
