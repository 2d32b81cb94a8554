"""``python -m stf_depth``."""

import sys

from stf_depth.cli.main import main

sys.exit(main())
