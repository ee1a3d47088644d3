"""What is installed: the module, its stub, the C++ library beside it, and what importing it costs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leancore
from helpers import REPOSITORY, run_script
from leancore import _core

MODULE = Path(_core.__file__)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")


def printed(*command: object) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def test_import_brings_in_neither_numpy_nor_torch() -> None:
    code = """
import sys, time
start = time.perf_counter()
import leancore
print(f"{1000 * (time.perf_counter() - start):.1f} ms", *sorted({m.partition(".")[0] for m in sys.modules}))
"""
    done = run_script("-c", code)
    assert done.returncode == 0, done.stderr
    took, unit, *modules = done.stdout.split()
    print(f"import leancore: {took} {unit}")
    assert "leancore" in modules
    assert not {"numpy", "torch", "jax", "scipy", "rich", "jsonargparse", "argparse"} & set(modules)


def test_versions_agree() -> None:
    assert leancore.__version__ == _core.version() == importlib.metadata.version("leancore")


def test_wheel_is_for_every_python_from_3_10() -> None:
    metadata = importlib.metadata.distribution("leancore")
    assert metadata.metadata["Requires-Python"] == ">=3.10"
    wheel = metadata.read_text("WHEEL")
    assert wheel is not None
    assert re.search(r"^Tag: cp310-abi3-", wheel, re.MULTILINE), wheel
    assert MODULE.name.endswith((".abi3.so", ".pyd"))


def test_required_at_run_time_are_numpy_and_the_nanobind_runtime_alone() -> None:
    required = importlib.metadata.requires("leancore") or []
    names = {re.split(r"[^\w-]", r)[0] for r in required if "extra ==" not in r}
    assert names == {"numpy", "nanobind-backend"}


def test_the_stub_describes_every_function() -> None:
    stub = ast.parse((MODULE.parent / "_core.pyi").read_text())
    described = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert described == {name for name in vars(_core) if not name.startswith("_")}
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            assert node.returns is not None, node.name
            assert all(a.annotation is not None for a in node.args.args), node.name


@linux
def test_needs_plain_libgomp_and_no_search_path() -> None:
    dynamic = printed(tool("readelf"), "-dW", MODULE)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    allowed = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}
    if leancore.thread_backend() == "openmp":
        assert "libgomp.so.1" in needed
        allowed.add("libgomp.so.1")
    assert needed <= allowed, needed
    assert not re.search(r"\((RPATH|RUNPATH)\)", dynamic)
    assert re.search(r"BIND_NOW|\bNOW\b", dynamic)


@linux
def test_exports_the_module_and_nothing_of_ours() -> None:
    symbols = printed(tool("nm"), "-D", "--defined-only", "-C", MODULE)
    assert "PyInit__core" in symbols
    assert "leancore" not in symbols, symbols


def test_cmake_dir() -> None:
    folder = Path(printed(sys.executable, "-m", "leancore", "--cmake-dir").strip())
    assert (folder / "leancoreConfig.cmake").is_file()
    root = folder.parents[2]
    assert (root / "include" / "leancore" / "leancore.hpp").is_file()
    assert any((root / "lib").glob("*leancore.*"))


def test_the_example_builds_against_the_installed_package(tmp_path: Path) -> None:
    example = REPOSITORY / "examples" / "cpp_consumer"
    if not example.is_dir():
        pytest.skip("not in a checkout")
    prefix = printed(sys.executable, "-m", "leancore", "--cmake-dir").strip()
    printed(tool("cmake"), "-S", example, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release")
    printed(tool("cmake"), "--build", tmp_path, "--config", "Release")
    program = next(
        p for p in tmp_path.rglob("consumer*") if p.is_file() and p.stem == "consumer" and p.suffix in ("", ".exe")
    )
    assert f"leancore {leancore.__version__}, {leancore.thread_backend()} threads: ok" in printed(program)


def test_public_functions_have_documentation() -> None:
    for name in leancore.__all__:
        function: Any = getattr(leancore, name)
        assert function.__doc__, name
