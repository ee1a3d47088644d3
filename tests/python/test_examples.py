"""The Python examples run, in their --quick form, and print what they announce."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import REPOSITORY, run_script

EXAMPLES = REPOSITORY / "examples"
HEAD = Path("/usr/share/mricron/templates/ch2.nii.gz")
CASES = {
    "convert_resnet.py": (["torch", "sklearn"], ["random", "project", "calibrate", "12 of 15 convolutions replaced"]),
    "export_onnx.py": (["torch", "onnx", "onnxruntime", "onnxscript"], ["15 Conv", "largest difference"]),
    "quantize.py": (["torch", "sklearn", "onnx", "onnxruntime", "onnxscript"], ["float.onnx", "int8.onnx"]),
    "unet_3d_mri.py": (["torch", "nibabel"], ["one subject", "lean, calibrated", "9 of 11 convolutions replaced"]),
}


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_quick(name: str) -> None:
    modules, printed = CASES[name]
    for module in modules:
        pytest.importorskip(module, reason=f"{name} needs {module} (extra leancore[examples])")
    if name == "unet_3d_mri.py" and not HEAD.exists():
        pytest.skip("needs Debian's mricron-data")
    done = run_script(EXAMPLES / name, "--quick", timeout=600)
    assert done.returncode == 0, done.stderr
    for text in printed:
        assert text in done.stdout


def test_the_head_volume_missing(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = run_script(EXAMPLES / "unet_3d_mri.py", "--data", tmp_path)
    assert done.returncode != 0
    assert "apt-get install mricron-data" in done.stderr
