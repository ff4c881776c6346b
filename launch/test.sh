#!/usr/bin/env bash
# Sets up and runs every check and test; see --help.
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
  cat <<'HELP'
usage: bash launch/test.sh [arguments of pytest]

Makes .venv in the clone, installs mocme_jax with the extras dev and docs into it, then runs ruff, mypy, shellcheck
and pytest on two processes. All run even if one fails; the exit status is 0 only if all passed.
-m "not slow" leaves out what trains for real or starts processes.
Needs Python 3.11 to 3.13 with the venv module; PYTHON=/path/to/python chooses one.
HELP
  exit 0
fi

prepare_environment development dev,docs
cd "$root"
failed=()

say "ruff"
"$venv_python" -m ruff check --quiet --output-format concise . || failed+=("ruff check")
"$venv_python" -m ruff format --quiet --check . || failed+=("ruff format")

say "mypy"
"$venv_python" -m mypy || failed+=(mypy)

if [[ -x .venv/bin/shellcheck ]]; then
  shellcheck=.venv/bin/shellcheck
else
  shellcheck="$(command -v shellcheck || true)"
fi
if [[ -n "$shellcheck" ]]; then
  say "shellcheck"
  "$shellcheck" -x launch/*.sh .ci/run || failed+=(shellcheck)
else
  say "shellcheck is not there: skipped"
fi

say "pytest"
# A file's tests share what they train and compile, so one process takes them all. xdist would begin with the files of
# many tests; tests/conftest.py begins with those that take long, most of which have few.
"$venv_python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 10 "$@" || failed+=(pytest)

if ((${#failed[@]})); then
  say "FAILED: ${failed[*]}"
  exit 1
fi
say "all checks passed"
