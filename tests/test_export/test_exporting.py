"""Exported models find what the trained ones find."""

import subprocess
import sys
import venv

import cv2
import numpy as np
import onnx
import pycocotools.mask as mask_utils
import pytest
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from small_predictors import ROOT, tool

from knet_plugin import Predictor, runtime
from knet_plugin.cli import resolve_config
from knet_plugin.compat import release
from knet_plugin.export import export_model, export_program, exporting
from knet_plugin.export.fixes import fix_padding
from knet_plugin.export.graph import LogitsGraph
from knet_plugin.inference.benchmark import agreement
from knet_plugin.inference.image_files import write_image
from knet_plugin.inference.optimize import largest_deviation
from knet_plugin.runtime import EngineError

pytestmark = pytest.mark.skipif(release(torch.__version__) < exporting.OLDEST_TORCH, reason='this torch cannot export')
TASKS = ('semantic', 'instance', 'panoptic')
SIZES = [(100, 140), (64, 96), (77, 200)]  # of images; the config resizes them to a longer side of 128


def photo(size, seed=0):
    """Blocks of colour, so that masks have a shape."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3))
    return np.kron(blocks, np.ones((8, 8, 1)))[:size[0], :size[1]].astype(np.uint8)


def assert_agrees(found, expected):
    assert found.size == expected.size and found.parts == expected.parts
    for name in ('panoptic', 'semantic'):
        if getattr(expected, name) is not None:
            maps = getattr(found, name), getattr(expected, name)
            assert maps[0].dtype == maps[1].dtype
            assert (maps[0] != maps[1]).mean() < 1e-3  # ties in the last digit
    for one, other in zip(found.segments, expected.segments, strict=True):
        assert (one.id, one.label, one.kernel) == (other.id, other.label, other.kernel)
        assert one.score == pytest.approx(other.score, abs=1e-5)
    for one, other in zip(found.instances or (), expected.instances or (), strict=True):
        assert (one.label, one.kernel) == (other.label, other.kernel)
        assert one.score == pytest.approx(other.score, abs=1e-5) and one.box == pytest.approx(other.box, abs=1)
        both = [mask_utils.decode(each.mask).astype(bool) for each in (one, other)]
        assert (both[0] != both[1]).mean() < 1e-3


def test_images_are_prepared_as_by_the_hosts(runs):
    for task, changes in (('panoptic', {}), ('semantic', {}), ('semantic', dict(test_cfg=dict(size_divisor=32))),
                          ('semantic', dict(size_divisor=32, size=None)), ('instance', dict(bgr_to_rgb=False))):
        predictor = Predictor(runs[task], device='cpu')
        with DefaultScope.overwrite_default_scope(predictor.cfg.default_scope):
            kind = predictor.cfg.model.data_preprocessor | changes
            predictor.model.data_preprocessor = MODELS.build(kind)
            data = predictor._pipeline(predictor.reader.inputs(photo((90, 128))))
        expected = predictor.model.data_preprocessor(pseudo_collate([data]))['inputs']
        found = LogitsGraph(predictor.model).preprocess(torch.from_numpy(photo((90, 128)))[None])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('task', TASKS)
def test_network_is_export_clean(task, runs):
    """No value decides a shape: height, width and batch are free."""
    graph = LogitsGraph(Predictor(runs[task], device='cpu').model).eval()
    images = torch.randint(0, 256, (2, 100, 140, 3), dtype=torch.uint8)
    module = export_program(graph, dict(image=images), dynamic=True).module()
    for batch, height, width in ((1, 128, 96), (3, 61, 130)):
        images = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)
        with torch.no_grad():
            deviations = largest_deviation(graph(images), module(image=images))
        assert max(deviations.values()) < 1e-4


@pytest.mark.parametrize('size', [1, 3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_same_padding_is_that_of_mmcv(size, stride):
    conv = Conv2dAdaptivePadding(2, 3, size, stride)
    maps = torch.rand(1, 2, 8, 14)
    expected = conv(maps)
    fix_padding(conv)
    assert torch.equal(conv(maps), expected)


@pytest.mark.slow
def test_efficientnet_is_export_clean():
    """Its padding, which depends on the size of each map, kept torch.export busy for ever."""
    cfg = Config.fromfile(resolve_config('recipe/knet-s3_effnet-lite0_semantic')).model
    cfg.decode_head.kernel_generate_head.num_classes = 4
    cfg.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'):
        graph = LogitsGraph(MODELS.build(cfg).eval()).eval()
    images = torch.randint(0, 256, (2, 100, 140, 3), dtype=torch.uint8)
    module = export_program(graph, dict(image=images), dynamic=True).module()
    images = torch.randint(0, 256, (1, 61, 130, 3), dtype=torch.uint8)
    with torch.no_grad():
        assert max(largest_deviation(graph(images), module(image=images)).values()) < 1e-4


def test_semantic_onnx(semantic, runs):
    expected = Predictor(runs['semantic'], device='cpu')([photo(size) for size in SIZES])
    assert max(len(np.unique(each.semantic)) for each in expected) > 1
    found = runtime.Predictor(semantic, threads=1)([photo(size) for size in SIZES])
    for one, other in zip(found, expected, strict=True):
        assert_agrees(one, other)


@pytest.mark.slow
@pytest.mark.parametrize('suffix', runtime.ENGINE_SUFFIXES)
@pytest.mark.parametrize('task', TASKS)
def test_each_task_and_format(task, suffix, runs, tmp_path):
    predictor = Predictor(runs[task], device='cpu', score_thr=0.01)
    deviations = export_model(predictor, tmp_path / f'model{suffix}', dynamic=True)
    assert max(deviations.values()) < 1e-4
    exported = runtime.Predictor(tmp_path / f'model{suffix}')
    assert exported.classes == predictor.classes and exported.num_things == predictor.num_things
    segments = 0
    for seed, size in enumerate(SIZES):
        expected, = predictor(photo(size, seed))
        assert_agrees(exported(photo(size, seed))[0], expected)
        assert expected.instances or task == 'semantic'
        segments += sum(segment.is_thing for segment in expected.segments)
    assert segments or task != 'panoptic'


@pytest.mark.slow
def test_fixed_size_without_padding_agrees(runs, tmp_path):
    predictor = Predictor(runs['panoptic'], device='cpu', score_thr=0.01)
    export_model(predictor, tmp_path / 'model.onnx', size=(96, 128))
    exported = runtime.Predictor(tmp_path / 'model.onnx')
    assert exported.info.size == (96, 128)
    assert_agrees(exported(photo((96, 128)))[0], predictor(photo((96, 128)))[0])
    for size in SIZES:  # these are padded, so results differ a little
        assert exported(photo(size))[0].size == size


@pytest.mark.slow
@pytest.mark.parametrize('size', [None, (61, 130)])
def test_logits_of_a_batch(size, runs, tmp_path):
    predictor = Predictor(runs['panoptic'], device='cpu')
    export_model(predictor, tmp_path / 'logits.onnx', size, dynamic=size is None, logits=True)
    with pytest.raises(EngineError, match=r'logits\.onnx.*--postprocess in'):
        runtime.Predictor(tmp_path / 'logits.onnx')
    images = torch.randint(0, 256, (3, 61, 130, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = LogitsGraph(predictor.model)(images)
    found = runtime.open_engine(tmp_path / 'logits.onnx')(dict(image=images.numpy()))
    found = {name: torch.from_numpy(value) for name, value in found.items()}
    assert max(largest_deviation(expected, found).values()) < 1e-4


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_half_weights_take_half_the_space(suffix, runs, semantic, tmp_path):
    path = tmp_path / f'half{suffix}'
    assert export_model(Predictor(runs['semantic'], device='cpu'), path, dynamic=True, precision='fp16') == {}
    halved = runtime.Predictor(path)
    assert halved.info.precision == 'fp16'
    weights = path.with_suffix('.bin') if suffix == '.xml' else path
    assert weights.stat().st_size < 0.8 * semantic.stat().st_size
    assert agreement(halved(photo(SIZES[0]))[0], runtime.Predictor(semantic)(photo(SIZES[0]))[0]) > 0.97


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_convolutions_of_8_bits(suffix, runs, semantic, tmp_path, monkeypatch, capsys):
    images = [photo(size, seed) for seed, size in enumerate(SIZES)]
    for number, image in enumerate(images):
        write_image(tmp_path / f'images/{number}.png', image)
    path = tmp_path / f'int8{suffix}'
    monkeypatch.setattr(sys, 'argv', ['export', str(runs['semantic']), '-o', str(path), '--dynamic', '--precision',
                                      'int8', '--calibration', str(tmp_path / 'images')])
    assert tool('export').main() == 0 and 'knet test' in capsys.readouterr().out
    quantized = runtime.Predictor(path)
    assert quantized.info.precision == 'int8'
    assert {'.onnx': b'QuantizeLinear', '.xml': b'FakeQuantize'}[suffix] in path.read_bytes()
    if suffix == '.onnx':
        weights = {node.input[1] for node in onnx.load(path).graph.node if node.op_type == 'Conv'}
        assert sum(not name.endswith('_DequantizeLinear_Output') for name in weights) >= 2  # the first, and conv_seg
        assert any(name.endswith('conv_seg.weight') for name in weights)
    assert agreement(quantized(images[0])[0], runtime.Predictor(semantic)(images[0])[0]) > 0.9


def test_precisions_that_cannot_be_met(runs, tmp_path):
    predictor = Predictor(runs['semantic'], device='cpu')
    (tmp_path / 'bad.jpg').write_bytes(b'nothing')
    for path, precision, images, words in (('a.onnx', 'int8', [], 'calibration'),
                                           ('a.pt2', 'int8', [], r'a\.pt2.*int8'),
                                           ('a.onnx', 'int8', [str(tmp_path / 'bad.jpg')], r'calibration.*bad\.jpg'),
                                           ('a.onnx', 'int4', [], 'int4')):
        with pytest.raises(EngineError, match=words):
            export_model(predictor, tmp_path / path, dynamic=True, precision=precision, images=images)


def test_without_torch_and_hosts(semantic, tmp_path):
    """None in sys.modules is how Python marks a module as absent."""
    cv2.imwrite(str(tmp_path / 'photo.png'), photo((64, 96)))
    hidden = f'import sys; sys.modules.update(dict.fromkeys({["torch", "mmengine", "mmcv", "mmdet", "mmseg"]})); '
    command = ['predict', str(semantic), str(tmp_path / 'photo.png'), '-o', str(tmp_path / 'out'), '--json', '--sheet']
    program = f'{hidden}from knet_plugin.cli import main; main({command})'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out/photo.jpg').is_file() and (tmp_path / 'out/results/labels/photo.png').is_file()
    program = f'{hidden}import knet_plugin; knet_plugin.Predictor'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert 'HostPackageError' in done.stderr and 'pip install' in done.stderr


@pytest.mark.slow
def test_an_environment_without_torch(semantic, tmp_path):
    cv2.imwrite(str(tmp_path / 'photo.png'), photo((64, 96)))
    venv.create(tmp_path / 'env', with_pip=True)
    programs = tmp_path / 'env/bin'
    for command in ([programs / 'pip', 'install', '-q', f'{ROOT}[runtime]'],
                    [programs / 'knet', 'predict', semantic, tmp_path / 'photo.png', '-o', tmp_path / 'out']):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out/photo.jpg').is_file()
    done = subprocess.run([str(programs / 'knet'), 'train', 'x'], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith('error: ') and 'pip install' in done.stderr
    packages = tmp_path.glob('env/lib/*/site-packages')
    assert not {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg'} & {path.name for path in next(packages).iterdir()}


def test_a_missing_engine_is_named(semantic, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(EngineError, match='pip install "knet_plugin'):
        runtime.Predictor(semantic)


@pytest.mark.parametrize('name', ['model.onnx', 'model.xml', 'model.pt2', 'model.txt', 'missing.onnx'])
def test_files_that_are_no_models(name, tmp_path):
    if 'missing' not in name:
        (tmp_path / name).write_bytes(b'nothing')
    with pytest.raises(EngineError, match=str(tmp_path / name)) as caught:
        runtime.Predictor(tmp_path / name)
    assert '\n' not in str(caught.value)


def test_an_unreadable_image_is_named(semantic, tmp_path):
    (tmp_path / 'bad.jpg').write_bytes(b'nothing')
    predictor = runtime.Predictor(semantic)
    for image in (tmp_path / 'bad.jpg', str(tmp_path / 'missing.jpg')):
        with pytest.raises(ValueError, match=str(image)):
            predictor(image)
    with pytest.raises(ValueError, match='float'):
        predictor(3.5)


@pytest.mark.parametrize('error', [OSError, RuntimeError])
def test_a_failed_export_leaves_nothing(error, runs, tmp_path, monkeypatch):
    def fail(program, path, *rest):
        path.write_bytes(b'half')
        raise error('no space left')

    monkeypatch.setattr(exporting, 'write_program', fail)
    monkeypatch.setattr(sys, 'argv', ['export', str(runs['semantic']), '-o', str(tmp_path / 'a.onnx'), '--dynamic'])
    assert 'no space left' in str(tool('export').main())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('change', 'words'), [
    (lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=1.)), 'RandomFlip'),
    (lambda cfg: cfg.test_dataloader.dataset.pipeline.pop(1), '--size'),
])
def test_what_cannot_be_exported_is_named(change, words, runs, tmp_path):
    predictor = Predictor(runs['semantic'], device='cpu')
    change(predictor.cfg)
    with pytest.raises(EngineError, match=words):
        export_model(predictor, tmp_path / 'a.onnx')


@pytest.mark.parametrize('dynamic', [False, True])
def test_windows_are_refused(dynamic, runs, tmp_path):
    predictor = Predictor(runs['semantic'], device='cpu')
    predictor.model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(32, 32))
    with pytest.raises(EngineError, match='slide'):
        export_model(predictor, tmp_path / 'a.onnx', dynamic=dynamic)


def test_arrays_of_other_types(semantic):
    """16 bits are read as by OpenCV; other types have no fixed range."""
    predictor, image = runtime.Predictor(semantic, threads=1), photo((48, 64))
    assert np.array_equal(predictor.reader.picture(image.astype(np.uint16) * 257), image)
    assert np.array_equal(predictor.reader.picture(image[..., 0]), np.repeat(image[..., :1], 3, axis=2))
    with pytest.raises(ValueError, match='float32'):
        predictor(image.astype(np.float32))
