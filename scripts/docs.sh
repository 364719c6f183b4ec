#!/usr/bin/env bash
# Builds the documentation as a site in site/, which opens and can be searched without a server. A broken link is an error.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements-dev.lock
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet "$@"
echo "site/index.html"
