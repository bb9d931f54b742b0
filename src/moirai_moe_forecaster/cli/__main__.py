"""``python -m moirai_moe_forecaster.cli`` is the command ``moirai-moe``."""

import sys

from moirai_moe_forecaster.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
