"""Tables as notebooks show them."""

import html
from collections.abc import Iterable, Sequence


def html_table(rows: Iterable[Sequence[object]], head: Sequence[str] = (), caption: str = "") -> str:
    """Rows as an HTML table; all of it is text, whatever it looks like. Numbers have six digits."""

    def line(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(_text(cell))}</{tag}>" for cell in cells) + "</tr>"

    top = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{top}{line(head, 'th') if head else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
