"""The README's Python code runs."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_has_code() -> None:
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("code", BLOCKS)
def test_code_block_runs(code: str) -> None:
    if "torch" in code:
        pytest.importorskip("torch")
    exec(compile(code, str(README), "exec"), {})
