#!/usr/bin/env bash
# Kill collectors of a whole exchange at random, for MINUTES: scripts/fleet.sh MINUTES [--workers N] [--rate N]
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"
PYTHONPATH=.:scripts:tests exec .venv/bin/python scripts/fleet.py "$@"
