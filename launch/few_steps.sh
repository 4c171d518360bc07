#!/usr/bin/env bash
# Digits in one to four steps: teacher -> mid-training -> distillation -> samples; minutes on a CPU.
#   bash launch/few_steps.sh [WORKDIR] [--config.seed=1 ...]
# The teacher, an encoder and a decoder are those of launch/quickstart.sh; with TEACHER=QUICKSTART,
# a directory that it left, they are not trained again. FINETUNE=1 adds fine-tuning on data.
# Run it again after an interruption: finished steps are not repeated. Further arguments are passed
# to every step.
set -euo pipefail
cd "$(dirname "$0")/.."
work="runs/few_steps"
case "${1:-}" in "" | --*) ;; *) work="$1"; shift ;; esac
. launch/environment.sh requirements.txt
started=$SECONDS

run() {
  echo "--- $*"
  "$python" -m rae_dit.main "$@"
}

# 1. Autoencoder and teacher, as in the quickstart.
base="${TEACHER:-$work}"
frozen=(--config.encoder.checkpoint="$base/encoder")
if [ -z "${TEACHER:-}" ]; then
  run --config=configs/encoder_digits.py --workdir="$base/encoder" "$@"
  run --config=configs/rae_digits.py --workdir="$base/rae" "${frozen[@]}" "$@"
  run --config=configs/rae_digits.py --workdir="$base/rae" --mode=stats "${frozen[@]}" "$@"
fi
frozen+=(--config.encoder.statistics="$base/rae/statistics.npz" --config.decoder.checkpoint="$base/rae")
if [ -z "${TEACHER:-}" ]; then
  run --config=configs/dit_digits.py --workdir="$base/dit" "${frozen[@]}" "$@"
fi

# 2. Mid-training on the guided teacher's trajectories; 3. distillation from there.
frozen+=(--config.few_step.teacher="$base/dit")
run --config=configs/few_trajectory_digits.py --workdir="$work/trajectory" "${frozen[@]}" "$@"
run --config=configs/few_distil_digits.py --workdir="$work/distil" "${frozen[@]}" \
  --config.ddt.checkpoint="$work/trajectory" "$@"
students=("mid-trained=$work/trajectory" "distilled=$work/distil")
if [ -n "${FINETUNE:-}" ]; then
  run --config=configs/few_finetune_digits.py --workdir="$work/finetune" "${frozen[@]}" \
    --config.ddt.checkpoint="$work/distil" "$@"
  students+=("fine-tuned=$work/finetune")
fi

# 4. Samples beside the teacher's.
"$python" launch/compare_few_steps.py --teacher="$base/dit" --output="$work" "${students[@]}"
echo "seconds, everything: $((SECONDS - started))"
