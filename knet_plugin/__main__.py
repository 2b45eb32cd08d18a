"""``python -m knet_plugin`` runs the same commands as ``knet``; see ``knet_plugin.cli``."""

import sys

from knet_plugin.cli import main

if __name__ == '__main__':
    sys.exit(main())
