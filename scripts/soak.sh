#!/usr/bin/env bash
# Break things at random under a running collector, for MINUTES: scripts/soak.sh MINUTES [SEED]
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"
PYTHONPATH=.:scripts:tests exec .venv/bin/python scripts/soak.py "$@"
