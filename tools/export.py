"""Export a trained model to one file that runs without torch and OpenMMLab."""

import sys

from knet_plugin.export.command import main

if __name__ == '__main__':
    sys.exit(main())
