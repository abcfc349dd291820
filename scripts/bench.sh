#!/usr/bin/env bash
# Measure the collector, and cryptofeed on the same feed where a Python 3.12 or newer is found. Takes under 5 minutes.
set -euo pipefail
# shellcheck source=scripts/environment.sh
. "$(dirname "$0")/environment.sh"
PYTHONPATH=.:scripts exec .venv/bin/python -m bench
