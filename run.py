"""The original interface: every video in a folder, with MiDaS DPT-Large, DeepLabV3 and OneFormer."""

import sys

from stf_depth.cli.original import main

if __name__ == "__main__":
    sys.exit(main())
