#!/usr/bin/env bash
# Runs one command on every worker of Cloud TPU slices, from your own machine.
#   TPU=my-pod ZONE=us-east5-a REPO=https://... bash launch/tpu_pod.sh \
#       --config=configs/dit_dino.py --workdir=gs://BUCKET/runs/a [...]
#   QUEUED=my-queue ZONE=... REPO=... bash launch/tpu_pod.sh ...
# TPU     a TPU VM or pod, one slice.
# QUEUED  in place of TPU: a queued resource of one or several slices. If it is to be made: ACCELERATOR
#         (v5litepod-256), RUNTIME (v2-alpha-tpuv5-lite), SLICES (default 1), SPOT=1 for spot capacity;
#         then this waits until it is active, WAIT_SECONDS at most (default a day). One that was
#         preempted (SUSPENDED) or FAILED is deleted and made again with RECREATE=1, else refused.
# ZONE    of either. REPO  what the workers clone; REF of it: a branch, tag or commit, 7 digits of it
#         or more (default main).
# PYTHON  an interpreter >= 3.11 on the workers; default the newest there, else one that uv fetches.
# DRY_RUN=1  prints the commands in place of running them.
# First all workers fetch REF and install what it requires (for gs:// and s3://, too, where an argument has
# such a URL); if that fails on one, nothing is started.
# The workers find each other through the TPU's metadata, and refuse to start on different code.
# WORKDIR must be in a bucket or on storage that all of them share. After a lost connection or a preemption run the same
# line again (with RECREATE=1): it continues.
set -euo pipefail
: "${ZONE:?zone of the TPU}" "${REPO:?git address of this repository}"

# Prints a space and a word, for each word, quoted for any POSIX shell where it has to be.
quoted() {
  for word; do
    case "$word" in
      "" | *[!A-Za-z0-9_./:=,@%+-]*) printf " '%s'" "${word//\'/\'\\\'\'}" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
}

run() {
  if [ -n "${DRY_RUN:-}" ]; then echo "$1$(quoted "${@:2}")"; else "$@"; fi
}

queue() {
  run gcloud compute tpus queued-resources "$1" "$QUEUED" --zone="$ZONE" "${@:2}"
}

state() {
  queue describe --format='value(state.state)' 2>/dev/null
}

create() {
  nodes=(--node-id="$QUEUED-0")
  [ "${SLICES:-1}" = 1 ] || nodes=(--node-count="$SLICES" --node-prefix="$QUEUED")
  queue create --async --accelerator-type="$ACCELERATOR" --runtime-version="${RUNTIME:?}" \
    "${nodes[@]}" ${SPOT:+--spot}
}

# Waits until the queued resource is active; makes it where there is none.
prepare() {
  if [ -n "${DRY_RUN:-}" ]; then create; return; fi
  found="$(state)" || create
  waited=0
  while found="$(state)" || found="not known"; [ "$found" != ACTIVE ]; do
    case "$found" in
      FAILED | SUSPENDED)
        if [ -z "${RECREATE:-}" ]; then
          echo "$QUEUED is $found; RECREATE=1 deletes it and makes it again" >&2
          return 1
        fi
        RECREATE=""
        queue delete --force --quiet
        create
        ;;
    esac
    if [ "$waited" -ge "${WAIT_SECONDS:-86400}" ]; then
      echo "$QUEUED is $found after $waited s (WAIT_SECONDS); run this again to go on waiting" >&2
      return 1
    fi
    echo "waiting for $QUEUED: $found"
    sleep "${POLL_SECONDS:-60}"
    waited=$((waited + ${POLL_SECONDS:-60}))
  done
}

# batch-size: 64 by default, and the next batch would wait for the end of a run that waits for it.
on_all_workers() {
  command="bash -c$(quoted "$1")"
  if [ -n "${QUEUED:-}" ]; then
    queue ssh --node=all --worker=all --batch-size=all --command="$command"
  else
    run gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --batch-size=all \
      --command="$command"
  fi
}

if [ -n "${QUEUED:-}" ]; then
  [ -z "${ACCELERATOR:-}" ] || prepare
else
  : "${TPU:?name of the TPU, or QUEUED}"
fi

requirements="requirements.txt requirements-tpu.txt"
case "$*" in *gs://*) requirements+=" requirements-gcs.txt" ;; esac
case "$*" in *s3://*) requirements+=" requirements-s3.txt" ;; esac

# One command a line: in an `a && b` list, `set -e` does not see that `a` failed.
on_all_workers "set -euo pipefail
${PYTHON:+export PYTHON=$(quoted "$PYTHON" | cut -c2-)}
[ -d rae_dit ] || git clone --quiet$(quoted "$REPO") rae_dit
cd rae_dit
ref=$(quoted "${REF:-${BRANCH:-main}}" | cut -c2-)
if git fetch --quiet$(quoted "$REPO") \"\$ref\"; then
  ref=FETCH_HEAD
elif [[ \"\$ref\" =~ ^[0-9a-f]{7,40}\$ ]]; then
  git fetch --quiet --tags$(quoted "$REPO") '+refs/heads/*:refs/remotes/origin/*'
else
  exit 1
fi
git checkout --quiet --detach \"\$ref\"
. launch/interpreter.sh
PATH=\"\$HOME/.local/bin:\$PATH\"
[ -n \"\${PYTHON:-}\" ] || is_new_enough python3 || command -v uv >/dev/null || python3 -m pip install --quiet --user uv
. launch/environment.sh $requirements
echo \"\$(hostname): \$(git rev-parse HEAD), \$(\"\$python\" -V)\""

on_all_workers "set -euo pipefail
cd rae_dit
. launch/interpreter.sh
find_installed
exec \"\$python\" -m rae_dit.main$(quoted "$@")"
