#!/usr/bin/env bash
# A slice of Cloud TPU VMs: the same command on every worker, which find each other by the slice's metadata. See --help.
# The command that every worker runs:
#   python -m mocme_jax.train --config.parallel.coordinator=auto [flags]
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'HELP'
usage: bash launch/tpu_pod.sh --name=TPU --zone=ZONE [--folder=DIR] [--dry-run] [flags of mocme_jax.train]

Runs the training command on all workers of a TPU slice that exists, over gcloud's ssh. This is for slices made with
"gcloud compute tpus tpu-vm", which TPU7x and later do not have: use GKE with launch/kubernetes.sh --tpus=C there. Each worker needs the clone in
DIR (mocme_jax, in the home folder) with a .venv that holds "jax[tpu]" and the package; --workdir must be a folder that
all workers share. Ctrl-C ends all. Rerunning the same command resumes from the last checkpoint. Not run on such a slice.
  bash launch/tpu_pod.sh --name=my-slice --zone=us-central2-b --config=mkg_y --config.data.dir=/mnt/MKG-Y
HELP
}

name="" zone="" folder=mocme_jax dry_run=false flags=()
for argument in "$@"; do
  case "$argument" in
    --name=*) name="${argument#*=}" ;;
    --zone=*) zone="${argument#*=}" ;;
    --folder=*) folder="${argument#*=}" ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    *) flags+=("$argument") ;;
  esac
done
if [[ -z "$name" || -z "$zone" ]]; then
  fail "name the slice: --name=TPU --zone=ZONE; see --help"
fi

train=(env JAX_PLATFORMS=tpu .venv/bin/python -m mocme_jax.train --config.parallel.coordinator=auto ${flags[@]+"${flags[@]}"})
command=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all
  "--command=cd ${folder@Q} && ${train[*]@Q}")
if [[ "$dry_run" == true ]]; then
  echo "${command[@]@Q}"
  exit 0
fi
command -v gcloud >/dev/null || fail "gcloud is not there; install the Google Cloud CLI"
exec "${command[@]}"
