# Sourced by the other scripts: a virtual environment, in $LEANCORE_VENV, by default .venv beside the README.
#
#   make_environment EXTRAS   with torch and the given extras of this checkout, e.g. train, or dev,zoo
#   make_build_tools          with CMake and Ninja, and on the PATH
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" PIP_DISABLE_PIP_VERSION_CHECK=1

# Debian packages, installed where that is possible without asking.
install_packages() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@"
  else
    echo "Not found, or not all of them; on Debian and Ubuntu: apt install $*" >&2
    return 1
  fi
}

# A C++20 compiler and python3's venv.
need_tools() {
  type c++ >/dev/null 2>&1 && python3 -c "import ensurepip" 2>/dev/null || install_packages g++ python3-venv
}

make_venv() {
  venv="${LEANCORE_VENV:-$PWD/.venv}"
  need_tools
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
}

make_environment() {
  make_venv
  # These before anything that depends on them, so that the pins decide which ones are installed; and in one call, since
  # a torchvision is made for one torch.
  local pinned=(torch)
  [[ ",$1," != *,zoo,* ]] || pinned+=(torchvision)
  "$venv/bin/pip" install --quiet -c constraints.txt "${pinned[@]}"
  "$venv/bin/pip" install --quiet -c constraints.txt ".[$1]"
}

# In case the system has none; the compiler is the system's.
make_build_tools() {
  make_venv
  "$venv/bin/pip" install --quiet "cmake>=3.22" "ninja>=1.11"
  export PATH="$venv/bin:$PATH"
}
