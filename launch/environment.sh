# Sourced by quickstart.sh, test.sh and tpu_pod.sh, in the root of the repository: leaves $python in a
# virtual environment that has what is in the requirements files named as arguments. An active
# environment is used as it is; otherwise .venv is made, by PYTHON, else by the newest python3 here
# that is 3.11 or newer, else by uv. A .venv that cannot be used (an older Python, a broken one, or no
# pip and no way to get it) is moved to .venv.old and made again. Installing is skipped when these
# files were installed before.
. launch/interpreter.sh

# Prints the interpreter that may make .venv; nothing if there is none.
find_base() {
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.14 python3.13 python3.12 python3.11 python3; fi
  for candidate; do
    if is_new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
}

make_environment() {
  base="$(find_base)"
  if [ -n "$base" ]; then
    "$base" -m venv .venv && return
    rm -rf .venv  # Debian leaves one without pip behind where its package python3-venv is missing
  fi
  if [ -n "$base" ] || [ -z "${PYTHON:-}" ]; then
    command -v uv >/dev/null && uv venv --quiet --seed --python "${base:-3.12}" .venv && return
  fi
  echo "$(hostname): ${PYTHON:-python3} is $(version_of "${PYTHON:-python3}"); expected Python 3.11" \
    "or newer with its module venv; name one by PYTHON, or install uv, which fetches one" >&2
  return 1
}

has_pip() {
  "$1" -m pip --version >/dev/null 2>&1 || "$1" -m ensurepip --upgrade >/dev/null 2>&1
}

is_usable() {
  [ ! -e .venv ] || { is_new_enough .venv/bin/python && has_pip .venv/bin/python; }
}

if [ -n "${VIRTUAL_ENV:-}" ]; then
  python="$VIRTUAL_ENV/bin/python"
  is_new_enough "$python" || {
    echo "$(hostname): $python is $(version_of "$python"); expected Python 3.11 or newer; deactivate that" \
      "environment and run this again" >&2
    exit 1
  }
  has_pip "$python" || {
    echo "$(hostname): $python has no pip; expected one, such as from $python -m ensurepip" >&2
    exit 1
  }
else
  is_usable || {
    echo ".venv has $(version_of .venv/bin/python); expected Python 3.11 or newer with pip: moved to .venv.old"
    rm -rf .venv.old
    mv .venv .venv.old
  }
  [ -e .venv ] || make_environment || exit 1
  python="$PWD/.venv/bin/python"
fi

wanted="$("$python" - "$@" <<'STAMP'
import hashlib, pathlib, sys
content = b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])
print(f"{sys.prefix}/.rae_dit_{hashlib.sha256(content).hexdigest()[:16]}")
STAMP
)"
if [ ! -e "$wanted" ]; then
  echo "installing $* (some minutes, once)"
  "$python" -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@")
  touch "$wanted"
fi
