#!/usr/bin/env bash
# All checks: formatting, lint, types, tests. On a fresh machine, installs everything needed into .venv.
#     scripts/test.sh                       everything: about ten minutes on two cores
#     scripts/test.sh fast                  less than a minute: no tests with a marker
#     scripts/test.sh tests/corpus -k vp8   arguments go to pytest
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements-dev.lock

fast=no
if [ "${1:-}" = fast ]; then
    fast=yes
    shift
fi

# The tests of pages need a real browser, which Debian packages; without one, they are skipped.
if [ $fast = no ] && ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium; } >/dev/null 2>&1 ||
        echo "test.sh: chromium cannot be installed; the tests of pages are skipped" >&2
fi

ruff format --check .
ruff check .
mypy
# Each process has one thread. Hundreds of processes load hico, so its bytecode is kept, too.
export OMP_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE
if [ $fast = yes ]; then
    exec pytest --numprocesses auto -m "not (videos or processes or browser or cluster or slow or gpu)" "$@"
fi
# Tests of one file run in one process and share fixtures; tests/conftest.py puts the slow files first. Tests of signals
# and clusters wait a quarter of the time, so one process more than there are cores keeps all cores busy.
processes=$(python -c "from hico_core.base.engine import available_cores; print(available_cores() + 1)")
pytest --numprocesses "$processes" --dist loadfile --no-loadscope-reorder --durations=10 "$@"

if [ $# = 0 ] && python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    pytest -m gpu --durations=10
fi
