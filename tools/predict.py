"""Segment images, folders and videos with a trained model, and draw the results."""

import sys

from knet_plugin.inference.command import main

if __name__ == '__main__':
    sys.exit(main())
