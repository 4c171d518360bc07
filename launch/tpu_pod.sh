#!/usr/bin/env bash
# Runs one command on every worker of a TPU pod (or a single TPU VM), from your own machine.
#   TPU=my-pod ZONE=us-east5-a REPO=https://... bash launch/tpu_pod.sh \
#       --config=configs/dit_dino.py --workdir=/mnt/shared/runs/a [...]
# TPU, ZONE  name and zone of the TPU; REPO what to clone there, BRANCH of it (default main).
# The workers find each other through the TPU's metadata. WORKDIR must be on storage that all of
# them share. After a preemption or a lost connection run the same line again: it continues.
set -euo pipefail
: "${TPU:?name of the TPU}" "${ZONE:?its zone}" "${REPO:?git address of this repository}"

arguments=""
for argument in "$@"; do arguments+=" $(printf '%q' "$argument")"; done

# SKIP_INSTALL=1 saves a minute when nothing changed.
install="test -d rae_dit || git clone --quiet $(printf '%q' "$REPO") rae_dit; cd rae_dit"
install+=" && git fetch --quiet && git checkout --quiet $(printf '%q' "${BRANCH:-main}") && git pull --quiet --ff-only"
install+=" && python3 -m pip install --quiet -r requirements.txt 'jax[tpu]'"
[ -z "${SKIP_INSTALL:-}" ] || install="cd rae_dit"

exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="set -e; $install; exec python3 -m rae_dit.main$arguments"
