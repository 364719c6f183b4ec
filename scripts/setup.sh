#!/usr/bin/env bash
# Makes .venv with exactly the locked packages. Needs Python 3.10 to 3.13 with pip; nothing else.
#     source scripts/setup.sh [requirements-dev.lock]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(command -v uv || echo .uv/bin/uv)
if [ ! -x "$uv" ]; then
    # A folder of its own: Debian's pip does not install into the system.
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target .uv uv
fi

[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$(command -v python3)" .venv
export VIRTUAL_ENV="$PWD/.venv"
locks=(-r requirements.lock)
for lock in "$@"; do locks+=(-r "$lock"); done
# Bytecode is made once, here: without it, each process that loads PyTorch compiles all of it again, for seconds.
"$uv" pip install --quiet --compile-bytecode --require-hashes "${locks[@]}"
"$uv" pip install --quiet --no-deps --editable .
export PATH="$VIRTUAL_ENV/bin:$PATH"
