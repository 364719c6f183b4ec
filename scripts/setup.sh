#!/usr/bin/env bash
# Makes .venv with exactly the locked packages. Needs Python 3.10 to 3.13 with pip; nothing else.
#     source scripts/setup.sh [requirements-dev.lock]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(command -v uv || echo .uv/bin/uv)
if [ ! -x "$uv" ]; then
    # A separate folder: Debian's pip does not install into the system.
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .uv uv
fi

[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$(command -v python3)" .venv
export VIRTUAL_ENV="$PWD/.venv"
locks=(-r requirements.lock)
for lock in "$@"; do locks+=(-r "$lock"); done
# Bytecode is compiled once for each state of the locks. Otherwise, if Python may not write it
# (PYTHONDONTWRITEBYTECODE, as in many containers), each process that loads PyTorch spends seconds on compiling it.
compiled=.venv/.compiled-$#
for lock in requirements.lock "$@"; do [ "$compiled" -nt "$lock" ] || export UV_COMPILE_BYTECODE=1; done
"$uv" pip install --quiet --require-hashes "${locks[@]}"
unset UV_COMPILE_BYTECODE
touch "$compiled"
"$uv" pip install --quiet --no-deps --editable .
export PATH="$VIRTUAL_ENV/bin:$PATH"
