# shellcheck shell=bash
# What the scripts share, first of all the set-up: a virtual environment with the package in it, made once.
# To be sourced; expects `set -euo pipefail`. Afterwards $root is the clone and $venv_python its interpreter.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv_python="$root/.venv/bin/python"

say() {
  printf '[%4d s] %s\n' "$SECONDS" "$*"
}

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Prints the rank of Python "$1" among versions and the path of its interpreter, if it runs, is Python 3.11 to 3.13 and
# can make a virtual environment. Being on PATH is not enough: version managers leave commands there that only print an
# error, and some systems ship Python without ensurepip.
usable_python() {
  "$1" -c '
import sys, venv, ensurepip
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
print(1000 * sys.version_info[1] + sys.version_info[2], sys.executable)
' 2>/dev/null
}

# Prints the path of the newest usable Python: on PATH, or among pyenv's versions, whose commands on PATH may be off.
find_python() {
  local candidate found newest="0 "
  if [[ -n "${PYTHON:-}" ]]; then
    found="$(usable_python "$PYTHON")" || fail "PYTHON=$PYTHON is not Python 3.11 to 3.13 with the venv module"
    printf '%s\n' "${found#* }"
    return
  fi
  for candidate in python3.13 python3.12 python3.11 python3 python \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[123].*/bin/python; do
    found="$(usable_python "$candidate")" || continue
    if ((${found%% *} > ${newest%% *})); then
      newest="$found"
    fi
  done
  if [[ "$newest" == "0 " ]]; then
    fail "no Python 3.11 to 3.13 with the venv module found; install one, or name it: PYTHON=/path/to/python bash $0"
  fi
  printf '%s\n' "${newest#* }"
}

# Fails unless the interpreter "$1" is there.
need_python() {
  [[ -x "$(command -v "$1")" ]] ||
    fail "$1 is not there; run bash launch/quickstart.sh first, or name one: PYTHON=/path/to/python"
}

# Fails unless the interpreter "$1" has the part of JAX that drives NVIDIA's GPUs; without it, JAX trains on the CPU.
need_gpu_python() {
  need_python "$1"
  "$1" -c '
import importlib.util, sys
sys.exit(not any(map(importlib.util.find_spec, ("jax_cuda13_plugin", "jax_cuda12_plugin"))))
' || fail "$1 has no JAX for GPUs; install it: $1 -m pip install 'jax[cuda13]' (jax[cuda12] for older drivers)"
}

# Fails unless "$2", the value of the flag "$1", matches the pattern "$3"; "$4" says what is expected.
need_value() {
  [[ "$2" =~ ^($3)$ ]] || fail "$1=$2: expected $4"
}

# What an installation depends on; another value than the stamp's means installing again. The clone's path is in it
# because an editable installation points there.
fingerprint() {
  "$venv_python" - "$root" <<'PYTHON'
import hashlib, pathlib, sys

root = sys.argv[1]
digest = hashlib.sha256(repr((root, sys.version)).encode())
for name in ("pyproject.toml", "requirements.txt"):
    digest.update(pathlib.Path(root, name).read_bytes())
print(digest.hexdigest())
PYTHON
}

# prepare_environment NAME [EXTRAS]: makes .venv if it is missing or broken, installs the package with the extras if
# the stamp NAME is not up to date. Whatever the extras, the core is installed then, so its stamp is renewed too.
prepare_environment() {
  local name="$1" extras="${2:-}" stamp="$root/.venv/installed-$1" python wanted
  if ! usable_python "$venv_python" >/dev/null; then
    python="$(find_python)"
    say "making .venv with $("$python" --version 2>&1) ($python)"
    "$python" -m venv --clear "$root/.venv" || fail "could not make $root/.venv with $python; see above"
  fi
  wanted="$(fingerprint)"
  if [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
    say "installed already ($name): $("$venv_python" --version 2>&1) in $root/.venv"
    return
  fi
  say "installing into .venv ($name); the first time this fetches a few hundred MB"
  "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null 2>&1 ||
    fail "$root/.venv has no pip and none could be put there; remove the folder and run the same command again"
  "$venv_python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}" ||
    fail "installation failed; pip's lines above say why. Correct the cause and rerun the same command"
  printf '%s\n' "$wanted" | tee "$root/.venv/installed-core" >"$stamp"
  say "installed"
}
