#!/usr/bin/env bash
# One host with one GPU or several: a single process drives all of them. See --help.
# The command:
#   python -m mocme_jax.train [flags]
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'HELP'
usage: bash launch/gpu_host.sh [--gpus=0,1,...] [--dry-run] [flags of mocme_jax.train]

Trains on the GPUs of this host, all or those named. The environment must hold jax with its CUDA plugin
(pip install -e ".[gpu]"); PYTHON=/path/to/python chooses it (default: .venv of the clone).
  bash launch/gpu_host.sh --config=db15k --config.data.dir=FOLDER
  bash launch/gpu_host.sh --gpus=0,1 --config.parallel.mapper=shard_map --config.parallel.shard_entities=True
HELP
}

dry_run=false settings=(JAX_PLATFORMS=cuda) flags=()
for argument in "$@"; do
  case "$argument" in
    --gpus=*) settings+=("CUDA_VISIBLE_DEVICES=${argument#*=}") ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    *) flags+=("$argument") ;;
  esac
done

python="${PYTHON:-$venv_python}"
command=(env "${settings[@]}" "$python" -m mocme_jax.train ${flags[@]+"${flags[@]}"})
if [[ "$dry_run" == true ]]; then
  echo "${command[@]@Q}"
  exit 0
fi
need_gpu_python "$python"
exec "${command[@]}"
