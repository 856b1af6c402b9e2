"""The page itself: template, style and scripts of this folder with the data put in."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from timepro.report.content import content_of
from timepro.system.files import replacing

_HERE = Path(__file__).parent
_SCRIPTS = ("base", "tables", "curves", "player", "clips", "list")  # in this order; the last one begins


def write_report(runs: Sequence[Path], out: Path, audio: int = 24) -> int:
    """Write one HTML page on some runs, in one step; returns its size in bytes.

    Args:
        audio: clips whose sound is put into the page.

    Raises:
        ValueError: runs that cannot be read or compared.
    """
    content = content_of(runs, audio)
    # In a script element "</script" would end it and "<!--" change how it is read; JSON may spell "<" otherwise.
    data = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    data = data.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    scripts = "\n".join((_HERE / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    parts = {
        "title": html.escape(content["title"]),
        "data": data,
        "css": (_HERE / "page.css").read_text(encoding="utf-8"),
    }
    parts["js"] = f'"use strict";\n(() => {{\n{scripts}}})();'
    before, *rest = page.split("{{")
    pieces = [before]
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [parts[name], after]
    with replacing(out) as file:
        file.write("".join(pieces))
    return out.stat().st_size
