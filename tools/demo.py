"""Open a page in the browser: drop pictures on it, and see what models and their kernels make of them."""

import sys

from knet_plugin.web.command import main

if __name__ == '__main__':
    sys.exit(main())
