#!/usr/bin/env bash
# Builds the documentation as a site in site/, which can be read and searched without a server. Broken links are errors.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements-dev.lock
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet "$@"
echo "site/index.html"
