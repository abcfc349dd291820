#!/usr/bin/env bash
# Collect live market data into a PostgreSQL of the project's own, until Ctrl-C. What it does is in dev.py.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"
exec .venv/bin/python scripts/dev.py
