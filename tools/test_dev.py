r"""Write the results of COCO test-dev as the evaluation server takes them.

    python tools/test_dev.py knet-s3_r50_fpn_1x_coco-panoptic checkpoint.pth --out results \
        --image-info annotations/image_info_test-dev2017.json --img-dir test2017 \
        --categories annotations/panoptic_val2017.json

Paths that do not exist as given are looked for in the config's data_root. The annotations of test-dev are not
published, but its images and categories are, in image_info_test-dev2017.json. Those categories lack the stuff, so a
panoptic config needs --categories with the file that has it.

What is written follows from the config's test_evaluator: CocoPanopticMetric gives a panoptic submission, CocoMetric one
for each of its metrics 'segm' and 'bbox'. The server knows no others. For --name knet, --out gets

    panoptic/panoptic_test-dev2017_knet_results.zip   with panoptic_test-dev2017_knet_results.json and the PNGs in the
                                                      folder panoptic_test-dev2017_knet_results
    segm/detections_test-dev2017_knet_results.zip     with detections_test-dev2017_knet_results.json
    bbox/detections_test-dev2017_knet_results.zip     the same name, as the two tests of detections have one

and beside each zip what is in it. The names are those that https://cocodataset.org/#upload asks for,
"[type]_[testset]_[alg]_results"; it does not mention the type "panoptic", which is mmdetection's guide to submissions
to the panoptic server. Nothing else may be in a zip, and JSON files lie in no folder.
"""

import argparse
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, is_main_process
from mmengine.registry import DATASETS, DefaultScope

from knet_plugin.cli import add_run_arguments, load_run_config
from knet_plugin.engine.class_check import check_categories, read_categories
from knet_plugin.engine.runner import build_runner

TESTSETS = ('test-dev2017', 'test-challenge2017', 'val2017')
KINDS = ('segm', 'bbox')


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Write the results of COCO test-dev as the evaluation server takes '
                                                 'them; the head of the script tells more')
    parser.add_argument('config', help='path or name of an instance or panoptic config')
    parser.add_argument('checkpoint', help='checkpoint to evaluate')
    parser.add_argument('--image-info', required=True, metavar='JSON', help='file that lists the images')
    parser.add_argument('--categories', metavar='JSON',
                        help='file whose categories replace those of --image-info; panoptic configs need one, such as '
                             'annotations/panoptic_val2017.json')
    parser.add_argument('--img-dir', required=True, metavar='DIR', help='folder of the images')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to; must be empty or new')
    parser.add_argument('--name', default='knet', help='the method, as part of the file names (default: knet)')
    parser.add_argument('--testset', choices=TESTSETS, default=TESTSETS[0],
                        help='what the server calls the images, as part of the file names (default: test-dev2017)')
    add_run_arguments(parser)
    args = parser.parse_args()
    if not re.fullmatch(r'[\w.-]+', args.name):
        parser.error(f'--name becomes part of file names: letters, digits and ._- only, got {args.name!r}')
    return args


def find_path(option: str, given: str, data_root: str) -> Path:
    """The path as given, or else in the data root.

    Raises:
        SystemExit: Neither is there.
    """
    places = [Path(given), Path(data_root, given)]
    for place in places:
        if place.exists():
            return place.resolve()
    raise SystemExit(f'error: {option}: there is neither {places[0]} nor {places[1]}')


def make_image_info(image_info: Path, categories: Path | None, img_dir: Path) -> dict[str, Any]:
    """A file of images and categories without annotations.

    Args:
        image_info: The file that lists the images.
        categories: The file whose categories are taken; by default those of ``image_info``.
        img_dir: Folder where the images have to be.

    Returns:
        The content: ``info``, ``licenses`` (as far as known), ``images`` and ``categories``.

    Raises:
        SystemExit: A file has other content, or images are missing.
    """
    try:
        content = json.loads(image_info.read_bytes())
    except ValueError as error:
        raise SystemExit(f'error: {image_info} is no valid JSON file: {error}') from error
    images = content.get('images') if isinstance(content, dict) else None
    if not images:
        raise SystemExit(f'error: {image_info} lists no images')
    missing = [image['file_name'] for image in images if not (img_dir / image['file_name']).is_file()]
    if missing:
        raise SystemExit(f'error: {len(missing)} of the {len(images)} images of {image_info} are not in {img_dir}, '
                         f'the first is {missing[0]}')
    try:
        chosen = read_categories(categories or image_info)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from error
    known = {key: content[key] for key in ('info', 'licenses') if key in content}
    return known | dict(images=images, categories=chosen)


def wanted_results(evaluators: Any) -> tuple[bool, list[str]]:
    """What the config's evaluators ask for.

    Args:
        evaluators: ``test_evaluator``, one config or a list of them.

    Returns:
        Whether a panoptic submission is written, and which of :data:`KINDS` are.

    Raises:
        SystemExit: Nothing that the server evaluates.
    """
    panoptic, others = False, []
    kinds: set[str] = set()
    for metric in evaluators if isinstance(evaluators, list) else [evaluators]:
        name = metric.type.split('.')[-1]
        if name == 'CocoPanopticMetric':
            panoptic = True
        elif name == 'CocoMetric':
            asked = metric.get('metric', 'bbox')
            kinds.update([asked] if isinstance(asked, str) else asked)
        else:
            others.append(name)
    others += sorted(kinds.difference(KINDS))
    kinds.intersection_update(KINDS)
    if not panoptic and not kinds:
        raise SystemExit('error: the server takes what CocoPanopticMetric, or CocoMetric with segm or bbox, evaluates, '
                         f'but test_evaluator of the config has only {", ".join(others)}')
    if others and is_main_process():
        print(f'left out, as the server does not evaluate it: {", ".join(others)}')
    return panoptic, [kind for kind in KINDS if kind in kinds]


def inner_test_dataset(cfg: Config) -> ConfigDict:
    """The config of the data set that is tested on, without what repeats or cuts it.

    Raises:
        SystemExit: There is none, or not one of COCO's format.
    """
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise SystemExit('error: the config has no test_dataloader and test_evaluator')
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def check_classes(dataset: ConfigDict, info: dict[str, Any], source: Path, panoptic: bool) -> None:
    """Check that the categories mean the classes of the data set, and that panoptic results can be named after images.

    Raises:
        SystemExit: If not.
    """
    # With nothing to load: only the classes are asked for, of which the data set may know some by itself.
    built = DATASETS.build({**dataset, 'data_prefix': {}, 'pipeline': [], 'lazy_init': True})
    if not isinstance(built, CocoDataset):
        raise SystemExit(f'error: the config tests on a {type(built).__name__}; this takes data sets of COCO\'s format')
    thing_classes = None
    if panoptic or isinstance(built, CocoPanopticDataset):
        thing_classes = built.metainfo['thing_classes']
        if any('isthing' not in category for category in info['categories']):
            raise SystemExit(f'error: the categories of {source} do not tell things from stuff; give --categories a '
                             'panoptic file, such as annotations/panoptic_val2017.json')
    try:
        check_categories(built.metainfo['classes'], info['categories'], str(source), thing_classes=thing_classes)
    except ValueError as error:
        raise SystemExit(f'error: {error}') from error
    if panoptic:
        names = [Path(image['file_name']).name for image in info['images']]
        wrong = [name for name in names if not name.endswith(('.jpg', '.png'))]
        if wrong:
            raise SystemExit('error: mmdet names a panoptic PNG after its image, which has to end with .jpg or .png, '
                             f'but there is {wrong[0]}')
        if len({Path(name).stem for name in names}) < len(names):
            raise SystemExit(f'error: images of {source} share a name, and so would their panoptic PNGs')


def configure(cfg: Config, dataset: ConfigDict, info: Path, img_dir: Path, prefix: Path, panoptic: bool,
              kinds: list[str]) -> None:
    """Make the config's test run through the images of ``info`` and write raw results, ``prefix`` and an ending."""
    pipeline = [transform for transform in dataset.pipeline
                if not re.fullmatch(r'(.*\.)?Load\w*Annotations', str(transform['type']))]
    cfg.test_dataloader.dataset = ConfigDict(dataset, ann_file=str(info), data_root='', test_mode=True,
                                             data_prefix=dict(img=f'{img_dir}/'), pipeline=pipeline, indices=None,
                                             backend_args=None)
    common = dict(ann_file=str(info), format_only=True, outfile_prefix=str(prefix))
    evaluators = []
    if panoptic:
        evaluators.append(dict(type='mmdet.CocoPanopticMetric', **common))
    if kinds:
        evaluators.append(dict(type='mmdet.CocoMetric', metric=kinds, **common))
    cfg.test_evaluator = evaluators
    # Other numbers of classes in model and data set would only show on the server.
    hooks = list(cfg.get('custom_hooks') or [])
    if not any(hook.type == 'knet_plugin.ClassCheckHook' for hook in hooks):
        hooks.append(ConfigDict(type='knet_plugin.ClassCheckHook'))
    cfg.custom_hooks = hooks


def pack_detections(prefix: Path, kind: str, target: Path) -> Path:
    """Write the detections of one kind under their name, and zip them.

    Args:
        prefix: What mmdet's files begin with.
        kind: One of :data:`KINDS`.
        target: The JSON file to write.

    Returns:
        The zip file.

    Raises:
        SystemExit: The model has no such results.
    """
    raw = Path(f'{prefix}.{kind}.json')
    if not raw.exists():
        raise SystemExit(f'error: test_evaluator asks for {kind}, but the model gives no such results')
    target.parent.mkdir(parents=True)
    if kind == 'segm':
        detections = json.loads(raw.read_bytes())
        for detection in detections:  # the server would take the area of this box for that of the mask
            detection.pop('bbox')
        target.write_text(json.dumps(detections))
    else:
        raw.rename(target)
    return make_zip([target])


def pack_panoptic(prefix: Path, images: list[dict], target: Path) -> Path:
    """Give the panoptic results their names, check and zip them.

    Args:
        prefix: What mmdet's files begin with.
        images: All images that were to be segmented.
        target: The JSON file to write; the PNGs come into a folder beside it.

    Returns:
        The zip file.

    Raises:
        SystemExit: An image has no result, or a segment has the number 0, which the server takes for void.
    """
    target.parent.mkdir(parents=True)
    Path(f'{prefix}.panoptic.json').rename(target)
    folder = Path(f'{prefix}.panoptic').rename(target.with_suffix(''))
    results = json.loads(target.read_bytes())['annotations']
    files = {result['image_id']: folder / result['file_name'] for result in results}
    missing = [image['file_name'] for image in images if not files.get(image['id'], folder / 'none').is_file()]
    if missing:
        raise SystemExit(f'error: {len(missing)} of {len(images)} images have no result, the first is {missing[0]}')
    void = [result['file_name'] for result in results if any(not each['id'] for each in result['segments_info'])]
    if void:
        raise SystemExit(f'error: segments of {len(void)} images have the number 0, which means void, the first is in '
                         f'{folder / void[0]}')
    return make_zip([target, *sorted(files.values())])


def make_zip(files: list[Path]) -> Path:
    """Zip the first file, and the others with their folders, under the first one's name; PNGs are small already."""
    path = files[0].with_suffix('.zip')
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(path.parent),
                          zipfile.ZIP_STORED if file.suffix == '.png' else zipfile.ZIP_DEFLATED)
    return path


def main() -> None:
    """Test and write the results as the command line says."""
    args = parse_arguments()
    cfg = load_run_config(args)
    cfg.load_from = args.checkpoint
    if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise SystemExit(f'error: there is no checkpoint {args.checkpoint}')
    out = Path(args.out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SystemExit(f'error: --out: {out} is not an empty folder; earlier results are not mixed with new ones')

    dataset = inner_test_dataset(cfg)
    panoptic, kinds = wanted_results(cfg.test_evaluator)
    data_root = dataset.get('data_root') or ''
    image_info = find_path('--image-info', args.image_info, data_root)
    categories = find_path('--categories', args.categories, data_root) if args.categories else None
    img_dir = find_path('--img-dir', args.img_dir, data_root)
    info = make_image_info(image_info, categories, img_dir)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        check_classes(dataset, info, categories or image_info, panoptic)

    info_file, prefix = out / f'image_info_{args.testset}.json', out / 'raw'
    configure(cfg, dataset, info_file, img_dir, prefix, panoptic, kinds)
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
            print(f'to upload for the test {path.parent.name!r}: {path}')


if __name__ == '__main__':
    main()
