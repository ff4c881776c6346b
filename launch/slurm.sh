#!/usr/bin/env bash
# A SLURM cluster, one process per GPU, as JAX expects there. See --help.
# The command that every process runs:
#   srun python -m mocme_jax.train --config.parallel.coordinator=auto [flags]
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'HELP'
usage: bash launch/slurm.sh [--nodes=N] [--gpus=G] [--time=HH:MM:SS] [--partition=NAME] [--dry-run] [flags of mocme_jax.train] [-- options of sbatch]

Submits a job of N nodes (2) with G GPUs (8, or as in a100:4) and as many processes on each; --gpus=0 trains on CPUs,
one process per node. The processes find each other through SLURM. The clone, its .venv (with JAX for GPUs) and --workdir
must lie on storage that all nodes share. What follows -- goes to sbatch:
  bash launch/slurm.sh --nodes=4 --config=db15k --config.data.dir=/shared/DB15K --workdir=/shared/runs/db15k \
    -- --account=mine --mem=64G --cpus-per-task=8 --output=logs/%j.out

Two minutes before the time limit SLURM sends SIGUSR1: the run saves, ends with status 75 and is queued again, until it
is finished. So is a run after scancel --signal=USR1 JOB; -- --signal=USR1@300 asks for five minutes. A plain scancel
saves as well, and ends the job. If a process is killed, the others end within a minute and the job fails: submit it
again to resume from the last checkpoint.
HELP
}

nodes=2 gpus=8 time=24:00:00 partition="" stopped=75 dry_run=false flags=() options=()
while (($#)); do
  case "$1" in
    --nodes=*) nodes="${1#*=}" ;;
    --gpus=*) gpus="${1#*=}" ;;
    --time=*) time="${1#*=}" ;;
    --partition=*) partition="${1#*=}" ;;
    --dry-run) dry_run=true ;;
    --nodes | --gpus | --time | --partition | --config.parallel.stopped_status) fail "write $1=VALUE, in one word" ;;
    --help | -h) usage && exit 0 ;;
    --) options=("${@:2}") && break ;;
    --config.parallel.stopped_status=*) stopped="${1#*=}" flags+=("$1") ;;
    *) flags+=("$1") ;;
  esac
  shift
done
need_value --nodes "$nodes" '[1-9][0-9]*' "a number from 1 on"
need_value --gpus "$gpus" '([A-Za-z0-9_.-]+:)?(0|[1-9][0-9]*)' "a number of GPUs per node, or TYPE:NUMBER"
need_value --config.parallel.stopped_status "$stopped" '0|[1-9][0-9]{0,2}' "a number from 0 to 255"

python="${PYTHON:-$venv_python}"
if [[ "${gpus##*:}" == 0 ]]; then
  platform=cpu on_a_node=(--ntasks-per-node=1)
else
  platform=cuda on_a_node=("--ntasks-per-node=${gpus##*:}" "--gpus-per-node=$gpus")
fi
# All nodes start together, but may import packages from a slow file system.
train=(env "JAX_PLATFORMS=$platform" "$python" -m mocme_jax.train --config.parallel.coordinator=auto
  --config.parallel.join_seconds=120 ${flags[@]+"${flags[@]}"})
submit=(sbatch --job-name=mocme_jax "--nodes=$nodes" "${on_a_node[@]}" "--time=$time" --signal=USR1@120 --requeue
  --open-mode=append ${partition:+"--partition=$partition"} ${options[@]+"${options[@]}"})

# A process that is done must not end the others, which may still be saving; after a killed one they end by themselves.
script="#!/usr/bin/env bash
if [[ -n \"\${SLURM_CPUS_PER_TASK:-}\" ]]; then
  export SRUN_CPUS_PER_TASK=\"\$SLURM_CPUS_PER_TASK\"
fi
status=0
srun --kill-on-bad-exit=0 --wait=60 ${train[*]@Q} || status=\$?
if ((status && status == $stopped)); then
  echo 'stopped before it was finished: queued again'
  scontrol requeue \"\$SLURM_JOB_ID\"
fi
exit \$status"
if [[ "$dry_run" == true ]]; then
  printf '%s <<SCRIPT\n%s\nSCRIPT\n' "${submit[*]@Q}" "$script"
  exit 0
fi
if [[ "$platform" == cuda ]]; then
  need_gpu_python "$python"
else
  need_python "$python"
fi
command -v sbatch >/dev/null || fail "sbatch is not there; run this on a machine of the cluster from which jobs are submitted"
exec "${submit[@]}" <<<"$script"
