#!/usr/bin/env bash
# Builds the documentation as a site in site/, which opens without a server. A broken link ends it.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements-dev.lock
mkdocs build --strict --quiet "$@"
echo "site/index.html"
