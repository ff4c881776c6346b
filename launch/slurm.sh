#!/usr/bin/env bash
# A SLURM cluster, one process a GPU, as JAX expects there. See --help.
# The command that every process runs:
#   srun --kill-on-bad-exit=1 python -m mocme_jax.train --config.parallel.coordinator=auto [flags]
set -euo pipefail

usage() {
  cat <<'HELP'
usage: bash launch/slurm.sh [--nodes=N] [--gpus=G] [--time=HH:MM:SS] [--partition=NAME] [--dry-run] [flags of mocme_jax.train]

Submits a job of N nodes (2) with G GPUs (8) each; the processes find each other through SLURM. The clone, its .venv
(with jax's CUDA plugin) and --workdir must lie on storage that all nodes share. A requeued job resumes from
its last checkpoint. Where a process fails, all are ended: submit again to go on.
  bash launch/slurm.sh --nodes=4 --config=db15k --config.data.dir=/shared/DB15K --workdir=/shared/runs/db15k
HELP
}

nodes=2 gpus=8 time=24:00:00 partition="" dry_run=false flags=()
for argument in "$@"; do
  case "$argument" in
    --nodes=*) nodes="${argument#*=}" ;;
    --gpus=*) gpus="${argument#*=}" ;;
    --time=*) time="${argument#*=}" ;;
    --partition=*) partition="${argument#*=}" ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    *) flags+=("$argument") ;;
  esac
done

python="${PYTHON:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin/python}"
train=("$python" -m mocme_jax.train --config.parallel.coordinator=auto ${flags[@]+"${flags[@]}"})
submit=(sbatch --job-name=mocme_jax "--nodes=$nodes" "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus" "--time=$time"
  --requeue ${partition:+"--partition=$partition"} --wrap "srun --kill-on-bad-exit=1 ${train[*]@Q}")
if [[ "$dry_run" == true ]]; then
  echo "${submit[@]@Q}"
  exit 0
fi
exec "${submit[@]}"
