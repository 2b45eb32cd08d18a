r"""Write predictions for COCO test-dev as files that the evaluation server accepts.

    python tools/test_dev.py knet-s3_r50_fpn_1x_coco-panoptic checkpoint.pth --out results \
        --image-info data/coco/annotations/image_info_test-dev2017.json --img-dir data/coco/test2017 \
        --categories data/coco/annotations/panoptic_val2017.json

The annotations of test-dev are not published. Its images and categories are listed in image_info_test-dev2017.json,
without stuff categories: panoptic configs take theirs from --categories.

The metrics in test_evaluator of the config select the submissions. With --name knet, they are

    PanopticMetric            panoptic/panoptic_test-dev2017_knet_results.zip
    InstanceMetric, 'segm'    segm/detections_test-dev2017_knet_results.zip
    InstanceMetric, 'bbox'    bbox/detections_test-dev2017_knet_results.zip

in the folder --out, each beside its content. See https://cocodataset.org/#upload for the names.
"""

import argparse
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, is_main_process

from knet_plugin.datasets.coco_file import read_coco
from knet_plugin.datasets.config_parts import plain_datasets
from knet_plugin.engine.run_config import add_run_arguments, load_run_config
from knet_plugin.engine.runner import build_runner, leave_group
from knet_plugin.engine.safe_loading import safe_loading

TEST_SETS = ('test-dev2017', 'test-challenge2017', 'val2017')
KINDS = ('segm', 'bbox')


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path or name of an instance or panoptic config')
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    parser.add_argument('--image-info', required=True, type=Path, metavar='JSON', help='file that lists the images')
    parser.add_argument('--categories', type=Path, metavar='JSON', help='file with the categories, if not --image-info')
    parser.add_argument('--img-dir', required=True, type=Path, metavar='DIR', help='folder of the images')
    parser.add_argument('--out', required=True, type=Path, metavar='DIR', help='folder for the results, empty or new')
    parser.add_argument('--name', default='knet', help='name of the method in the file names (default: knet)')
    parser.add_argument('--testset', choices=TEST_SETS, default=TEST_SETS[0],
                        help='name of the images in the file names (default: test-dev2017)')
    add_run_arguments(parser)
    args = parser.parse_args()
    if not re.fullmatch(r'[\w.-]+', args.name):
        parser.error(f'--name may have letters, digits and ._- only, got {args.name!r}')
    return args


def read_image_info(image_info: Path, categories: Path | None, img_dir: Path) -> dict[str, Any]:
    """Read the images and categories to evaluate.

    Returns:
        ``images``, ``categories`` and, as far as the file has them, ``info`` and ``licenses``.

    Raises:
        SystemExit: A file cannot be read, or images are missing in ``img_dir``.
    """
    try:
        content = json.loads(image_info.read_bytes())
        names = [image['file_name'] for image in content['images']]
        chosen = read_coco(str(categories or image_info)).data['categories']
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SystemExit(f'error: --image-info {image_info}: no COCO file with "images": {error!r}') from error
    missing = [name for name in names if not (img_dir / name).is_file()]
    if missing:
        raise SystemExit(f'error: --img-dir {img_dir} lacks {len(missing)} images, such as {missing[0]}')
    known = {key: content[key] for key in ('info', 'licenses') if key in content}
    return known | dict(images=content['images'], categories=chosen)


def wanted_results(evaluators: Any) -> tuple[bool, list[str]]:
    """Read from ``test_evaluator`` whether a panoptic submission is wanted, and which of ``KINDS``.

    Raises:
        SystemExit: Nothing that the server evaluates.
    """
    panoptic, asked = False, set()
    for metric in evaluators if isinstance(evaluators, list) else [evaluators]:
        name = metric.type.split('.')[-1]
        panoptic |= name in ('PanopticMetric', 'CocoPanopticMetric')
        if name in ('InstanceMetric', 'CocoMetric'):
            kinds = metric.get('metric', 'bbox')
            asked.update([kinds] if isinstance(kinds, str) else kinds)
    kinds = [kind for kind in KINDS if kind in asked]
    if not panoptic and not kinds:
        raise SystemExit('error: test_evaluator has neither PanopticMetric nor InstanceMetric with segm or bbox')
    return panoptic, kinds


def configure(cfg: Config, info: Path, img_dir: Path, prefix: Path, panoptic: bool, kinds: list[str]) -> None:
    """Let the test run on the images of ``info`` and write mmdet's result files, which start with ``prefix``."""
    dataset = plain_datasets(cfg.test_dataloader.dataset)[0]
    pipeline = [transform for transform in dataset.pipeline
                if not re.fullmatch(r'(.*\.)?Load\w*Annotations', str(transform['type']))]
    cfg.test_dataloader.dataset = ConfigDict(dataset, ann_file=str(info), data_root='', test_mode=True,
                                             data_prefix=dict(img=f'{img_dir.resolve()}/'), pipeline=pipeline,
                                             indices=None, backend_args=None)
    common = dict(ann_file=str(info), format_only=True, outfile_prefix=str(prefix))
    cfg.test_evaluator = []
    if panoptic:
        cfg.test_evaluator.append(dict(type='knet_plugin.PanopticMetric', **common))
    if kinds:
        cfg.test_evaluator.append(dict(type='knet_plugin.InstanceMetric', metric=kinds, **common))
    # Wrong classes would only show in the scores of the server.
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(type='knet_plugin.DataCheckHook')]


def pack_detections(prefix: Path, kind: str, target: Path) -> Path:
    """Write the detections of one kind to ``target`` and zip them.

    Raises:
        SystemExit: The model predicts none of this kind.
    """
    raw = Path(f'{prefix}.{kind}.json')
    if not raw.exists():
        raise SystemExit(f'error: test_evaluator asks for {kind}, which the model does not predict')
    detections = json.loads(raw.read_bytes())
    if kind == 'segm':
        for detection in detections:  # the server would measure the size of the object by its box
            detection.pop('bbox')
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(detections))
    return make_zip([target])


def pack_panoptic(prefix: Path, images: list[dict], target: Path) -> Path:
    """Move the panoptic results to ``target`` and a folder of PNGs beside it, and zip them.

    Raises:
        SystemExit: An image has no result.
    """
    target.parent.mkdir(parents=True)
    Path(f'{prefix}.panoptic.json').rename(target)
    folder = Path(f'{prefix}.panoptic').rename(target.with_suffix(''))
    results = json.loads(target.read_bytes())['annotations']
    files = {result['image_id']: folder / result['file_name'] for result in results}
    missing = [image['file_name'] for image in images if not files.get(image['id'], folder / 'none').is_file()]
    if missing:
        raise SystemExit(f'error: {len(missing)} of {len(images)} images have no result, such as {missing[0]}')
    return make_zip([target, *sorted(files.values())])


def make_zip(files: list[Path]) -> Path:
    """Zip files under the name of the first one."""
    path = files[0].with_suffix('.zip')
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(path.parent))
    return path


def main() -> None:
    """Test the model and write the files to upload."""
    args = parse_arguments()
    cfg = load_run_config(args)
    cfg.load_from = args.checkpoint
    out = args.out.resolve()
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f'error: --out {out} is not empty')
    if cfg.get('test_evaluator') is None:
        raise SystemExit('error: the config has no test_evaluator')
    panoptic, kinds = wanted_results(cfg.test_evaluator)
    info = read_image_info(args.image_info, args.categories, args.img_dir)
    if panoptic and any('isthing' not in category for category in info['categories']):
        raise SystemExit('error: a panoptic config needs --categories with "isthing", such as panoptic_val2017.json')
    info_file, prefix = out / f'image_info_{args.testset}.json', out / 'raw'
    configure(cfg, info_file, args.img_dir, prefix, panoptic, kinds)
    with safe_loading():
        runner = build_runner(cfg)
        if is_main_process():
            out.mkdir(parents=True, exist_ok=True)
            info_file.write_text(json.dumps(info))
        barrier()
        runner.test()
    if is_main_process():
        stem = f'{args.testset}_{args.name}_results.json'
        packed = [pack_detections(prefix, kind, out / kind / f'detections_{stem}') for kind in kinds]
        if panoptic:
            packed.append(pack_panoptic(prefix, info['images'], out / 'panoptic' / f'panoptic_{stem}'))
        for raw in out.glob('raw.*.json'):
            raw.unlink()
        for path in packed:
            print(f'upload for {path.parent.name}: {path}')


if __name__ == '__main__':
    main()
    leave_group()
