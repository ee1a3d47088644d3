# Sourced by the other scripts: a virtual environment with torch and the given extras of this checkout.
#
#   make_environment EXTRAS     e.g. train, or dev,train; in $LEANCORE_VENV, by default .venv beside the README
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" PIP_DISABLE_PIP_VERSION_CHECK=1

# A C++ compiler and python3's venv, installed where that is possible without asking.
need_tools() {
  { command -v c++ || command -v g++; } >/dev/null && python3 -c "import ensurepip" 2>/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq g++ python3-venv
  else
    echo "A C++20 compiler and python3's venv are needed (Debian, Ubuntu: apt install g++ python3-venv)." >&2
    return 1
  fi
}

make_environment() {
  venv="${LEANCORE_VENV:-$PWD/.venv}"
  need_tools
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  # torch before anything that depends on it, so that the pin decides which one is installed.
  "$venv/bin/pip" install --quiet -r constraints.txt
  "$venv/bin/pip" install --quiet -c constraints.txt ".[$1]"
}
