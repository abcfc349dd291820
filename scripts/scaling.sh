#!/usr/bin/env bash
# Measure the collector with 1 to 700 pairs in one process, and its memory over a million messages. Takes 6 to 10 minutes.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"
PYTHONPATH=.:scripts exec .venv/bin/python -m bench.scaling
