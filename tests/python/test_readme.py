"""The Python code of the README and of the pages in docs/ runs."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def sections(page: Path) -> dict[str, str]:
    """The code under each heading that has some, after that of the page's introduction."""
    introduction, *rest = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)

    def code(text: str) -> str:
        return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))

    found = {"introduction": code(introduction)}
    for text in rest:
        if code(text):
            found[text.partition("\n")[0]] = code(introduction) + "\n" + code(text)
    return {heading: text for heading, text in found.items() if text}


CASES = [(page, heading) for page in PAGES for heading in sections(page)]


def test_the_pages_have_code() -> None:
    assert {"README.md", "torch.md"} <= {page.name for page, _ in CASES}


@contextlib.contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Skips without torch."""
    torch = pytest.importorskip("torch")
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


@pytest.mark.parametrize(("page", "heading"), CASES, ids=[f"{page.name}: {heading}" for page, heading in CASES])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own compiler
def test_code_runs(page: Path, heading: str) -> None:
    code = sections(page)[heading]
    compiled = compile(code, f"{page.name}: {heading}", "exec")
    if "jax" in code:
        pytest.importorskip("jax")
    with torch_settings_kept() if "torch" in code else contextlib.nullcontext():
        exec(compiled, {"__name__": "page"})
