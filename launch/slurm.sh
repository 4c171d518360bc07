#!/usr/bin/env bash
#SBATCH --job-name=rae_dit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
# One process per node, all GPUs of a node in it. Submit from the repository's root:
#   sbatch [--nodes=4 ...] launch/slurm.sh --config=configs/dit_dino.py --workdir=/shared/runs/a [...]
# JAX reads from SLURM who the other processes are. WORKDIR must be on storage that all nodes share.
# PYTHON is the interpreter; default that of the active environment, .venv's, or python3.
# SIGTERM, 300 s before the time limit or at a preemption, makes the run save and end with status 0;
# submit the same line again, or let --requeue do it after a preemption: it continues.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
. launch/interpreter.sh
find_installed

# Under SLURM, JAX gives each task one GPU unless it is told which ones the task has.
JAX_LOCAL_DEVICE_IDS="$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:-8} - 1)))"
export JAX_LOCAL_DEVICE_IDS
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"

# --kill-on-bad-exit: when one process dies, the others would only wait for it.
# --cpus-per-task: from 22.05 to 23.02, srun does not take over sbatch's, and a task gets one core.
exec srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:?}" "$python" -m rae_dit.main "$@"
