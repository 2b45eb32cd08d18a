"""Convert a checkpoint of the official K-Net, or of mmseg's, to one of ours; or ours to theirs.

    python tools/convert_checkpoint.py knet_s3_r50_fpn_1x_coco.pth knet.pth --config knet-s3_r50_fpn_1x_coco

The model of the config is built, and the file is written only if it gets every one of its weights from the source.
(Official files need no conversion to be loaded: a model of ours renames them by itself. A converted file is smaller and
says its classes.)
"""

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from knet_plugin.checkpoint import convert_checkpoint, read_checkpoint
from knet_plugin.cli import resolve_config


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Convert a checkpoint of the official K-Net or of mmseg\'s')
    parser.add_argument('source', type=Path, help='checkpoint to read')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument('--config', required=True, help='path or name of the config whose model it is for')
    parser.add_argument('--to', choices=('ours', 'official'), default='ours',
                        help='names to write: ours, or those of the official release and of mmseg')
    parser.add_argument('--averaged', action='store_true',
                        help='take the running average (EMA) that lies beside the weights')
    parser.add_argument('--trust', action='store_true', default=None,
                        help='let the file execute code while it is read; only for files whose maker you know')
    parser.add_argument('--overwrite', action='store_true', help='replace the target if it is there')
    return parser.parse_args()


def classes_of(cfg: Config) -> dict[str, Any]:
    """Classes and palette of the config's test data, without reading the data."""
    loader = cfg.get('test_dataloader') or {}
    loader = loader[0] if isinstance(loader, list) else loader  # of several data sets
    dataset = loader.get('dataset', {})
    while 'dataset' in dataset:  # wrapped, for instance repeated
        dataset = dataset['dataset']
    if not dataset:
        return {}
    meta = {**getattr(DATASETS.get(dataset['type']), 'METAINFO', {}), **dataset.get('metainfo', {})}
    names = ('classes', 'palette', 'thing_classes', 'stuff_classes')
    return {key: value for key, value in meta.items() if key in names}


def main() -> None:
    """Convert; what is wrong is said without a traceback."""
    args = parse_arguments()
    if args.target.exists() and not args.overwrite:
        raise SystemExit(f'error: {args.target} is there already; say --overwrite to replace it')
    try:
        config = resolve_config(args.config)
        cfg = Config.fromfile(config)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        model = MODELS.build(cfg.model)
        classes = classes_of(cfg)
    except Exception as error:  # a config is code, and can fail as such
        reason = f'{type(error).__name__}: {error}'
        raise SystemExit(f'error: the model of {args.config} cannot be built: {reason}') from None
    try:
        meta = dict(config=Path(config).name)
        if classes:
            meta['dataset_meta'] = classes
        report = convert_checkpoint(args.source, args.target, model, to=args.to, averaged=args.averaged,
                                    trust=args.trust, meta=meta)
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from None
    print(report)
    if args.to == 'ours':
        model.load_state_dict(read_checkpoint(args.target)['state_dict'])  # strictly
        print(f'{args.target}: loads strictly into the model of {meta["config"]}')
    else:
        print(args.target)


if __name__ == '__main__':
    main()
