# Sourced by quickstart.sh and test.sh: leaves $python in a virtual environment that has what is in
# the requirements files named as arguments. An active environment is used as it is; otherwise
# .venv is made. Installing is skipped when these files were installed before.
# PYTHON chooses the interpreter that makes .venv (3.11 or newer).

if [ -n "${VIRTUAL_ENV:-}" ]; then
  python="$VIRTUAL_ENV/bin/python"
else
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  python="$PWD/.venv/bin/python"
fi

"$python" - <<'CHECK'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"rae_dit needs Python 3.11 or newer, this is {sys.version.split()[0]}; set PYTHON")
CHECK

wanted="$("$python" -c 'import sys; print(sys.prefix)')/.rae_dit_$(cat "$@" | sha256sum | cut -c1-16)"
if [ ! -e "$wanted" ]; then
  echo "installing $* (some minutes, once)"
  "$python" -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@")
  touch "$wanted"
fi
