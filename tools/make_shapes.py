"""Make the synthetic data set Shapes.

    python tools/make_shapes.py data/shapes --num-train 800 --num-val 200 --size 128 --seed 0
    python tools/make_shapes.py data/shapes_clear --ambiguity 0 --hue 1 --min-object 20    # the clear variant
"""

import argparse

from knet_plugin.datasets.shapes import Style, make_shapes


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Make the synthetic data set Shapes.',
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('out_dir', help='directory of the data set; nothing is done if it already holds this one')
    parser.add_argument('--num-train', type=int, default=800, help='number of training images')
    parser.add_argument('--num-val', type=int, default=200, help='number of validation images')
    parser.add_argument('--size', type=int, nargs='+', default=[128], help='side in pixels, or height and width')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--ambiguity', type=float, default=Style.ambiguity,
                        help='range of the illumination relative to the distance between warm and cool colours')
    parser.add_argument('--hue', type=float, default=Style.hue,
                        help='weight of the colour that each class has of its own')
    parser.add_argument('--min-object', type=float, default=Style.min_object,
                        help='diameter of the smallest objects in pixels')
    parser.add_argument('--overwrite', action='store_true', help='replace a different Shapes data set')
    args = parser.parse_args()
    if len(args.size) > 2:
        parser.error(f'--size takes one or two numbers, got {len(args.size)}')
    return args


def main() -> None:
    """Make the data set."""
    args = parse_args()
    try:
        make_shapes(args.out_dir, args.num_train, args.num_val, (args.size[0], args.size[-1]),
                    args.seed, args.ambiguity, args.hue, args.min_object, args.overwrite)
    except (ValueError, FileExistsError) as error:
        raise SystemExit(f'make_shapes: {error}') from None


if __name__ == '__main__':
    main()
