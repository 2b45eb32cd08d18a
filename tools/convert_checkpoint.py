"""Convert a checkpoint of the official K-Net, or of mmseg's, to one of ours; or ours to theirs.

    python tools/convert_checkpoint.py knet_s3_r50_fpn_1x_coco.pth knet.pth --config knet-s3_r50_fpn_1x_coco

The file is written only if every weight of the config's model comes from the source. Models also load official files
without conversion; a converted file is smaller and contains the class names.
"""

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from knet_plugin.checkpoint import convert_checkpoint
from knet_plugin.cli import ResourceError, resolve_config
from knet_plugin.datasets.config_parts import plain_datasets


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Convert a checkpoint of the official K-Net or of mmseg\'s')
    parser.add_argument('source', type=Path, help='checkpoint to read')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument('--config', required=True, help='path or name of the config of the model')
    parser.add_argument('--to', choices=('ours', 'official'), default='ours',
                        help='names to write: ours, or those of the official release and of mmseg')
    parser.add_argument('--trust', action='store_true', default=None,
                        help='let the file run code while it is read; only for files whose author you know')
    parser.add_argument('--overwrite', action='store_true', help='replace the target if it exists')
    return parser.parse_args()


def classes_of(cfg: Config) -> dict[str, Any]:
    """Return classes and palette of the config's test data, without reading the data."""
    loader = cfg.get('test_dataloader') or {}
    dataset = plain_datasets((loader[0] if isinstance(loader, list) else loader).get('dataset', {}))[0]
    if not dataset:
        return {}
    meta = {**getattr(DATASETS.get(dataset['type']), 'METAINFO', {}), **dataset.get('metainfo', {})}
    return {key: meta[key] for key in ('classes', 'palette', 'thing_classes', 'stuff_classes') if key in meta}


def main() -> None:
    """Convert the file, or exit with one line that gives the reason."""
    args = parse_arguments()
    if args.target.exists() and not args.overwrite:
        raise SystemExit(f'error: {args.target} exists; replace it with --overwrite')
    try:
        config = resolve_config(args.config)
        cfg = Config.fromfile(config)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        model = MODELS.build(cfg.model)
        meta: dict[str, Any] = dict(config=Path(config).name)
        if classes := classes_of(cfg):
            meta['dataset_meta'] = classes
    except ResourceError as error:
        raise SystemExit(f'error: {error}') from None
    except Exception as error:  # a config is code, and may raise anything
        raise SystemExit(f'error: the model of {args.config} cannot be built: {error!r}') from None
    try:
        print(convert_checkpoint(args.source, args.target, model, to=args.to, trust=args.trust, meta=meta))
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
