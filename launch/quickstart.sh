#!/usr/bin/env bash
# Sets up and trains; see --help.
set -euo pipefail

# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ "${1:-}" == "--help" || "${1:-}" == "-h" ]]; then
  cat <<'HELP'
usage: bash launch/quickstart.sh [flags of mocme_jax.train]

Makes .venv in the clone, installs mocme_jax into it and runs `python -m mocme_jax.train` with the flags given;
without flags it trains on the embedded graph, atlas. When nothing has changed the set-up takes about a second.
Needs Python 3.11 to 3.13 with the venv module and takes the newest that is installed, unless PYTHON=/path/to/python
names one.

Every flag and config field: .venv/bin/python -m mocme_jax.train --help
HELP
  exit 0
fi

prepare_environment core
say "training: .venv/bin/python -m mocme_jax.train $*"
exec "$venv_python" -m mocme_jax.train "$@"
