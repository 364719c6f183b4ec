#!/usr/bin/env bash
# All checks: formatting, lint, types, tests. What a fresh machine needs, it installs into .venv.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements-dev.lock

ruff format --check .
ruff check .
mypy
pytest --durations=10 "$@"
