"""A generated part of a hand-written page."""

from __future__ import annotations

import re
from pathlib import Path

from leancore.torch.train.files import write_file


def section_of(text: str, name: str) -> str:
    """What stands between the lines <!-- NAME --> and <!-- /NAME -->. Raises ValueError where they are not."""
    found = re.findall(rf"^<!-- {re.escape(name)} -->\n(.*?)^<!-- /{re.escape(name)} -->$", text, re.M | re.S)
    if len(found) != 1:
        raise ValueError(f"{len(found)} sections from <!-- {name} --> to <!-- /{name} -->, expected one")
    return str(found[0])


def replace_section(page: str | Path, name: str, content: str) -> None:
    """Replace that part of a file. Raises ValueError, which names the file, and OSError."""
    page = Path(page)
    text = page.read_text(encoding="utf-8")
    try:
        old = section_of(text, name)
    except ValueError as error:
        raise ValueError(f"{page}: {error}") from error
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    write_file(page, text.replace(begin + old + end, begin + content + end, 1))
