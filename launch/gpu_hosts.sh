#!/usr/bin/env bash
# One process per host, on hosts that reach each other: run the same line on each, with its own ID.
#   COORDINATOR=10.0.0.1:8476 NUM=2 ID=0 bash launch/gpu_hosts.sh \
#       --config=configs/dit_dino.py --workdir=/shared/runs/a [--config.sharding.fsdp=8 ...]
# COORDINATOR  address of host 0 and a free port there; NUM hosts in all; ID of this one, from 0.
# PYTHON  the interpreter; default that of the active environment, .venv's, or python3.
# WORKDIR must be on storage that all hosts share. After an interruption run the same lines again.
# Over ssh, from a machine that reaches them all:
#   id=0; for host in gpu-a gpu-b; do
#     ssh "$host" "cd rae_dit && COORDINATOR=gpu-a:8476 NUM=2 ID=$id bash launch/gpu_hosts.sh ..." &
#     id=$((id + 1))
#   done; wait
set -euo pipefail
: "${COORDINATOR:?HOST:PORT of host 0}" "${NUM:?number of hosts}" "${ID:?number of this host, from 0}"
cd "$(dirname "$0")/.."
. launch/interpreter.sh
find_installed

# Lets collectives run beside computation. On two GPUs of one host it gained nothing (experiment 15 of
# docs/performance.md); links between hosts are slower. Other platforms know the flag and ignore it.
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
# Hosts of several networks: name the fast one, for example  export NCCL_SOCKET_IFNAME=ib0

exec "$python" -m rae_dit.main "$@" \
  --coordinator_address="$COORDINATOR" --num_processes="$NUM" --process_id="$ID"
