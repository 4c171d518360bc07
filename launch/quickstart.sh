#!/usr/bin/env bash
# The whole method on scikit-learn's handwritten digits: a few minutes on two CPU cores.
#   bash launch/quickstart.sh [WORKDIR] [--config.seed=1 ...]
# RECIPE=raev2 runs RAEv2's recipe in place of RAE's, into runs/quickstart_raev2 by default.
# Every step is one `python -m rae_dit.main`, as on ImageNet. Run it again after an interruption:
# finished steps are not repeated. Further arguments are passed to every step.
set -euo pipefail
caller="$PWD"
cd "$(dirname "$0")/.."
case "${RECIPE:-rae}" in
  rae) work="runs/quickstart" edition="" ;;
  raev2) work="runs/quickstart_raev2" edition=2 ;;
  *) echo "RECIPE: got $RECIPE; expected rae or raev2" >&2; exit 2 ;;
esac
case "${1:-}" in
  "" | --*) ;;
  /*) work="$1"; shift ;;
  *) if [ "$caller" = "$PWD" ]; then work="$1"; else work="$caller/$1"; fi; shift ;;
esac
. launch/environment.sh requirements.txt
started=$SECONDS

# Says which of the six steps it is, what it leaves, and the command.
act=0
run() {
  act=$((act + 1))
  echo "--- $act of 6, $(date +%T): $1"
  shift
  echo "    python -m rae_dit.main $*"
  "$python" -m rae_dit.main "$@"
}

encoder="$work/encoder" rae="$work/rae" dit="$work/dit"

cat <<WHERE
Six steps, in minutes on two CPU cores; an interrupted one continues when this is run again. Pictures:
  after step 3  $rae/reconstructions.png: digits, and what the decoder makes of their tokens
  in step 5     $dit/pictures/step_*.png: what the DiT^DH generates by then
  at the end    $work/samples.png, $work/reconstructions.png, $work/loss_curves.png
WHERE

run "an encoder learns from labels; it is frozen from here on" \
  --config="configs/encoder${edition}_digits.py" --workdir="$encoder" "$@"

frozen=(--config.encoder.checkpoint="$encoder")
run "stage 1: a decoder learns to draw digits from the encoder's tokens" \
  --config="configs/rae${edition}_digits.py" --workdir="$rae" "${frozen[@]}" "$@"
run "reconstructions of held-out digits: $rae/reconstructions.png" \
  --config="configs/rae${edition}_digits.py" --workdir="$rae" --mode=reconstruct "${frozen[@]}" "$@"
run "statistics of the latents" \
  --config="configs/rae${edition}_digits.py" --workdir="$rae" --mode=stats "${frozen[@]}" "$@"

frozen+=(--config.encoder.statistics="$rae/statistics.npz" --config.decoder.checkpoint="$rae")
run "stage 2: a DiT^DH learns to generate latents: $dit/pictures/step_*.png" \
  --config="configs/dit${edition}_digits.py" --workdir="$dit" --config.metrics.sample_every=1000 \
  "${frozen[@]}" "$@"
run "samples, scored by a classifier fitted on real digits" \
  --config="configs/dit${edition}_digits.py" --workdir="$dit" --mode=evaluate "${frozen[@]}" "$@"

"$python" launch/summarize.py "$work" --seconds $((SECONDS - started))
