#!/usr/bin/env bash
# The whole method on scikit-learn's handwritten digits: a few minutes on two CPU cores.
#   bash launch/quickstart.sh [WORKDIR] [--config.seed=1 ...]
# RECIPE=raev2 runs RAEv2's recipe in place of RAE's, into runs/quickstart_raev2 by default.
# Every step is one `python -m rae_dit.main`, as on ImageNet. Run it again after an interruption:
# finished steps are not repeated. Further arguments are passed to every step.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${RECIPE:-rae}" in
  rae) work="runs/quickstart" edition="" ;;
  raev2) work="runs/quickstart_raev2" edition=2 ;;
  *) echo "RECIPE: got $RECIPE; expected rae or raev2" >&2; exit 2 ;;
esac
case "${1:-}" in "" | --*) ;; *) work="$1"; shift ;; esac
. launch/environment.sh requirements.txt
started=$SECONDS

run() {
  echo "--- $*"
  "$python" -m rae_dit.main "$@"
}

encoder="$work/encoder" rae="$work/rae" dit="$work/dit"

# 1. A representation encoder, learned from labels; frozen from here on.
run --config="configs/encoder${edition}_digits.py" --workdir="$encoder" "$@"

# 2. Stage 1: a decoder for the encoder's tokens; statistics of the latents.
frozen=(--config.encoder.checkpoint="$encoder")
run --config="configs/rae${edition}_digits.py" --workdir="$rae" "${frozen[@]}" "$@"
run --config="configs/rae${edition}_digits.py" --workdir="$rae" --mode=reconstruct "${frozen[@]}" "$@"
run --config="configs/rae${edition}_digits.py" --workdir="$rae" --mode=stats "${frozen[@]}" "$@"

# 3. Stage 2: DiT^DH on normalized latents; then samples, scored by a classifier fitted on real digits.
frozen+=(--config.encoder.statistics="$rae/statistics.npz" --config.decoder.checkpoint="$rae")
run --config="configs/dit${edition}_digits.py" --workdir="$dit" "${frozen[@]}" "$@"
run --config="configs/dit${edition}_digits.py" --workdir="$dit" --mode=evaluate "${frozen[@]}" "$@"

"$python" launch/summarize.py "$work" --seconds $((SECONDS - started))
