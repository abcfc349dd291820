#!/usr/bin/env bash
# Check the code without running it: style, format, types, and known vulnerabilities of what is deployed.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"

.venv/bin/ruff check
.venv/bin/ruff format --check
.venv/bin/mypy

# --strict: a package that the advisory data does not know at all is a failure to look, not a clean result.
if found=$(.venv/bin/pip-audit --strict --disable-pip --no-deps --timeout 5 --requirement requirements.txt 2>&1); then
  echo "pip-audit: no known vulnerability"
elif grep -q '^Found [0-9]* known vulnerabilit' <<<"$found"; then
  echo "$found"
  exit 1
else
  echo "pip-audit: not checked, the advisory data is out of reach"
fi
