#!/usr/bin/env bash
# Several processes on this machine, as they would run on several; see --help.
# The command, for process I of P:
#   python -m mocme_jax.train --config.parallel.coordinator=127.0.0.1:PORT \
#     --config.parallel.processes=P --config.parallel.process=I [flags]
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'HELP'
usage: bash launch/local_cluster.sh [--processes=P] [--devices=D] [--dry-run] [flags of mocme_jax.train]

Runs P processes (2) of D CPU devices (2) each as one run of mocme_jax.train, to try on one machine what several will do.
Process 0 prints. Ctrl-C or SIGTERM (to this script or to any of the processes) stops all of them at the same step, which
is saved, with status 75; a second one ends them at once. If one of them fails or is killed, the others are ended and the
status is 1. Rerunning the same command resumes from the last checkpoint.
PYTHON=/path/to/python chooses the interpreter (default: .venv of the clone); PORT the coordinator's port (default: a
free one).
HELP
}

processes=2 devices=2 stopped=75 dry_run=false flags=()
for argument in "$@"; do
  case "$argument" in
    --processes=*) processes="${argument#*=}" ;;
    --devices=*) devices="${argument#*=}" ;;
    --dry-run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    --config.parallel.stopped_status=*) stopped="${argument#*=}" flags+=("$argument") ;;
    *) flags+=("$argument") ;;
  esac
done
need_value --processes "$processes" '[1-9][0-9]*' "a number from 1 on"
need_value --devices "$devices" '[1-9][0-9]*' "a number from 1 on"

python="${PYTHON:-$venv_python}"
if [[ "$dry_run" == false ]]; then
  need_python "$python"
fi
port="${PORT:-}"
if [[ -z "$port" ]]; then
  if [[ "$dry_run" == true ]]; then
    port=PORT
  else
    port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
  fi
fi

command_of() {
  printf '%s\n' "$python" -m mocme_jax.train "--config.parallel.coordinator=127.0.0.1:$port" \
    "--config.parallel.processes=$processes" "--config.parallel.process=$1" ${flags[@]+"${flags[@]}"}
}

if [[ "$dry_run" == true ]]; then
  for ((i = 0; i < processes; i++)); do
    mapfile -t command < <(command_of "$i")
    echo "JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices" "${command[@]@Q}"
  done
  exit 0
fi

# Groups of their own: a terminal's Ctrl-C reaches this script alone, which passes it on once.
set -m
pids=()
asked=0
pass_on() {
  asked=$((asked + 1))
  kill -TERM "${pids[@]}" 2>/dev/null || true
}
trap pass_on INT TERM
for ((i = 0; i < processes; i++)); do
  mapfile -t command < <(command_of "$i")
  JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices" "${command[@]}" &
  pids+=($!)
done

ending=0
while true; do
  status=0 seen=$asked
  wait -n || status=$?
  # 127: all have ended. A wait that a signal cut short says nothing of a process.
  if ((status == 127)); then
    exit $((asked > 1 ? 143 : ending))
  fi
  if [[ "$status" == "$stopped" ]]; then
    ending=$status
  elif ((status && asked == seen && asked < 2)); then
    # The others would find out by themselves after half a minute, with a page of traces.
    kill -KILL "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    echo "error: a process of the run ended with status $status, and the others with it;" \
      "rerunning the same command resumes from the last checkpoint" >&2
    exit 1
  fi
done
