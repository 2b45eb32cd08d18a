"""Turn a K-Net config of mmseg, or of the official release (mmdet 2, mmseg 0.x), into one of ours."""

import argparse
from pathlib import Path

from knet_plugin.migration import Report, load_source, migrate_config


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0], epilog='Weights need no migration: they '
                                     'are renamed while a model loads them.')
    parser.add_argument('source', help='path of a config, or a name such as mmseg::knet/NAME.py')
    parser.add_argument('-o', '--out', type=Path, required=True, help='new file')
    return parser.parse_args()


def main() -> None:
    """Migrate one config, write it, and print what is left out.

    Raises:
        SystemExit: The source cannot be read or migrated, or the output exists already.
    """
    args = parse_arguments()
    if args.out.suffix != '.py' or args.out.exists():
        raise SystemExit(f'error: --out must be a new file with suffix .py, but {args.out} '
                         + ('exists already' if args.out.exists() else f'has suffix {args.out.suffix!r}'))
    report = Report()
    try:
        source = load_source(args.source)
    except Exception as error:  # a config is code, and may fail in any way
        raise SystemExit(f'error: {args.source} cannot be read: {type(error).__name__}: {error}') from None
    try:
        cfg = migrate_config(source, report)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from None
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(cfg.pretty_text)
    print('\n'.join([*report.lines(), f'written to {args.out}']))


if __name__ == '__main__':
    main()
