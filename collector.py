"""The start command of existing deployments: `python collector.py` does the same as `python -m collector`.

The package of the same name beside this file is what the import finds.
"""

import sys

from collector.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
