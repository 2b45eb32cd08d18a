"""Compare the reports of two tests: scores, classes, and the images that changed most."""

import sys

from knet_plugin.inference.compare import main

if __name__ == '__main__':
    sys.exit(main())
