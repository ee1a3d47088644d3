"""``python -m leancore``: the command line, and ``--cmake-dir`` for builds that link the C++ library in here."""

import sys
from pathlib import Path


def cmake_dir() -> Path:
    """The folder that holds leancoreConfig.cmake: a value for CMAKE_PREFIX_PATH or leancore_DIR."""
    from leancore import _core

    # Beside the extension module and not beside this file: an editable installation keeps the two apart.
    return Path(_core.__file__).resolve().parent / "lib" / "cmake" / "leancore"


if __name__ == "__main__":
    if sys.argv[1:] == ["--cmake-dir"]:
        print(cmake_dir())
    else:
        from leancore.cli import main

        sys.exit(main())
