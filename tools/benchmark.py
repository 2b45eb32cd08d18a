"""Compare trained and exported models on your own images: time, memory and agreement."""

import sys

from knet_plugin.inference.benchmark import main

if __name__ == '__main__':
    sys.exit(main())
