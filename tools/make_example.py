"""Make a folder of pictures with masks, as people have them: the example of docs/own_data.md.

    python tools/make_example.py pictures

writes ``pictures/images/000.jpg`` and so on, and for each class ``pictures/masks/CLASS/000.png``, where 0 is the
background and 1, 2, ... are the objects.
"""

import argparse
from pathlib import Path

from knet_plugin.datasets.shapes.example import write_example


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description='Make a folder of pictures with masks.',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--number', type=int, default=100, help='number of pictures')
    parser.add_argument('--size', type=int, default=160, help='side of a picture in pixels')
    args = parser.parse_args()
    try:
        write_example(args.folder, args.number, args.size)
    except OSError as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
