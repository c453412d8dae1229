"""The page: static files, and BokehJS out of the installed bokeh package, as routes of the server of signals.

Nothing is built and nothing comes from another host. The files say nothing of the market: who may not see that may
still load them, and is asked for a token there.
"""

import asyncio
import importlib.util
import secrets
from collections.abc import Mapping
from pathlib import Path

from data.errors import MarketDataError
from streaming.http import Answer, Route

FOLDER = Path(__file__).parent
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
BOKEH = "/page/bokeh.min.js"
POLICY = (
    "default-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; object-src 'none';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""BokehJS styles what it draws by <style> elements, to which the page gives the nonce, and has its icons as data. It
needs neither unsafe-inline nor unsafe-eval, but for CustomJS, of which the charts have none."""


def page_routes() -> dict[str, Route]:
    """`/` and `/page/...`: what a browser loads before it asks for anything of the market."""
    files = {f"/page/{path.name}": _file(path) for path in FOLDER.iterdir() if path.suffix in TYPES}
    return {"/": _index, BOKEH: _bokeh} | files


async def _index(query: Mapping[str, str]) -> Answer:
    nonce = secrets.token_urlsafe(16)
    text = (FOLDER / "index.html").read_text(encoding="utf-8").replace("{nonce}", nonce)
    return Answer(200, TYPES[".html"], text.encode(), {"Content-Security-Policy": POLICY.format(nonce=nonce)})


def _file(path: Path) -> Route:
    async def read(query: Mapping[str, str]) -> Answer:
        return Answer(200, TYPES[path.suffix], path.read_bytes(), {"Cache-Control": "no-cache"})

    return read


async def _bokeh(query: Mapping[str, str]) -> Answer:
    """Found without importing bokeh, and kept by browsers: a megabyte."""
    found = importlib.util.find_spec("bokeh")
    if found is None or found.origin is None:
        raise MarketDataError("bokeh, which draws the charts, is not installed: pip install bokeh")
    path = Path(found.origin).parent / "server" / "static" / "js" / "bokeh.min.js"
    body = await asyncio.to_thread(path.read_bytes)
    return Answer(200, TYPES[".js"], body, {"Cache-Control": "max-age=86400"})
