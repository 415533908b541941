#!/bin/sh
# Looks over every shell script with shellcheck and shfmt; `npm run check` runs it. shfmt -w FILE mends its findings.
set -eu
cd "$(dirname "$0")/.."
scripts=$(git ls-files -co --exclude-standard '*.sh' .ci/run)
parts='^scripts/node-port-range/'
# The parts of node-port-range.sh mean nothing alone: what a node gets is looked over.
printf '%s\n' "$scripts" | grep -v "$parts" | xargs shellcheck scripts/node-port-range/bundle.sh
sh scripts/node-port-range/bundle.sh | shellcheck -s sh -
printf '%s\n' "$scripts" | xargs shfmt -d
