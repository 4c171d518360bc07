# Sourced by slurm.sh, gpu_hosts.sh and environment.sh, in the root of the repository.
#   is_new_enough PROGRAM    true if it is a Python that rae_dit runs on
#   version_of PROGRAM       prints its version
#   find_installed           sets $python to PYTHON, the active environment's, .venv's or python3
# Both scripts above run what is installed; environment.sh makes an environment.

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Prints the version of a Python, or that it is none.
version_of() {
  "$1" -V 2>/dev/null || echo "no Python that runs"
}

find_installed() {
  python="${PYTHON:-${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}}"
  if [ -z "$python" ]; then
    if [ -x .venv/bin/python ]; then python="$PWD/.venv/bin/python"; else python=python3; fi
  fi
  is_new_enough "$python" || {
    echo "$(hostname): $python is $(version_of "$python"); expected Python 3.11 or newer;" \
      "make .venv (launch/quickstart.sh does), or name one by PYTHON" >&2
    return 1
  }
}
