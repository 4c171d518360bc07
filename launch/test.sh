#!/usr/bin/env bash
# Lint, types and tests, in an environment that this script makes. Arguments go to pytest.
#   bash launch/test.sh [-k NAME ...]
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/environment.sh requirements.txt requirements-test.txt requirements-docs.txt

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$python" -m pytest -n 2 --dist loadfile "$@"
