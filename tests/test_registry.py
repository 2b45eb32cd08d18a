"""What importing the package registers and changes. Each case runs in its own process, as registration is global."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SEMANTIC = 'knet-s3_r18-s_fcn_1xb8-adamw-1k_shapes-128x128'
INSTANCE = 'knet-s3_r18-s_fpn_1xb8-adamw-1k_shapes-instance-128x128'


def run_here(call: str) -> subprocess.CompletedProcess:
    """Call a function of this file in a new process."""
    folder = Path(__file__).parent
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', f'import test_registry; test_registry.{call}'],
                          capture_output=True, text=True, cwd=folder, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done


def test_import_leaves_the_hosts_as_they_were():
    assert run_here('compare_pictures()').stdout == ''


def compare_pictures() -> None:
    import contextlib

    with contextlib.redirect_stdout(sys.stderr):  # where optional packages are missing, mmdet and mmseg print it
        import mmdet.utils
        import mmseg.utils
        import mmseg.visualization  # register_all_modules leaves it out

        mmdet.utils.register_all_modules(init_default_scope=False)
        mmseg.utils.register_all_modules(init_default_scope=False)
    before = picture()
    import knet_plugin  # noqa: F401
    after = picture()

    from knet_plugin.compat import installed_distribution
    from knet_plugin.registry import UNPREFIXED
    exposed = {name: each for kind in ('model', 'task util') for name, each in
               (after['registries']['mmengine', kind].items() - before['registries']['mmengine', kind].items())}
    assert exposed.keys() == set(UNPREFIXED)
    assert all(each.__module__.startswith('knet_plugin.') for each in exposed.values())
    for kind in ('model', 'task util'):
        for name in exposed:
            after['registries']['mmengine', kind].pop(name, None)
    if installed_distribution() == 'maintained forks':
        assert after['distributions'] == dict(before['distributions'], mmdet='mmdet', mmseg='mmseg')
        after['distributions'] = before['distributions']
    allowed = after.pop('safe globals') - before.pop('safe globals')
    assert {name.partition('.')[0] for name in allowed} == {'numpy', 'mmengine', 'builtins'}
    assert after == before
    check_names()


def picture() -> dict[str, Any]:
    """All that a package could change in the hosts by being imported."""
    import torch
    from mmengine import registry
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.fileio.backends.registry_utils import backends, prefix_to_backends
    from mmengine.hooks import CheckpointHook
    from mmengine.runner.checkpoint import CheckpointLoader

    found = [each for each in vars(registry).values() if isinstance(each, registry.Registry)]
    for each in found:
        found += [child for scope, child in each.children.items() if scope != 'knet_plugin']
    allowed = getattr(torch.serialization, 'get_safe_globals', list)()
    return {'registries': {(each.scope, each.name): dict(each.module_dict) for each in found},
            'checkpoint hook': dict(vars(CheckpointHook)),
            'readers': dict(CheckpointLoader._schemes), 'backends': dict(backends),
            'prefixes': dict(prefix_to_backends), 'distributions': dict(MODULE2PACKAGE), 'load': torch.load,
            'safe globals': {each[1] if isinstance(each, tuple) else f'{each.__module__}.{each.__name__}'
                             for each in allowed},
            'stdout': sys.stdout, 'stderr': sys.stderr}


def module_of(scope: str, name: str) -> str:
    """The first part of the name of the module of the model that a scope finds under a name."""
    from mmengine.registry import MODELS

    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.get(name).__module__.partition('.')[0]


def check_names() -> None:
    for name in ('KernelUpdateHead', 'IterativeDecodeHead'):
        assert module_of('mmseg', name) == 'mmseg'
        assert module_of('mmdet', name) == module_of('knet_plugin', name) == 'knet_plugin'
        for scope in ('mmseg', 'mmdet', 'knet_plugin'):
            assert module_of(scope, f'mmseg.{name}') == 'mmseg'
            assert module_of(scope, f'knet_plugin.{name}') == module_of(scope, 'KernelUpdater') == 'knet_plugin'


def test_prefix_imports_the_package():
    run_here('build_by_prefix()')


def build_by_prefix() -> None:
    from mmdet.registry import MODELS

    head = MODELS.build(dict(type='knet_plugin.KernelUpdateHead', channels=8))
    assert type(head).__module__.startswith('knet_plugin.')
    check_names()


@pytest.mark.parametrize('call', [f'forward("{SEMANTIC}", hidden="mmdet", absent="KNet")',
                                  f'forward("{INSTANCE}", hidden="mmseg", absent="IterativeDecodeHead")'])
def test_each_task_works_without_the_other_host(call):
    assert run_here(call).stdout == ''


def forward(config: str, hidden: str, absent: str) -> None:
    """Run a model where one host is missing, and ask for a part that needs it."""
    sys.modules[hidden] = None  # how Python marks a module as absent
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    import knet_plugin
    from knet_plugin.cli import resolve_config
    cfg = Config.fromfile(resolve_config(config))
    init_default_scope(cfg.default_scope)
    with torch.no_grad():
        outputs = MODELS.build(cfg.model).eval()(torch.rand(1, 3, 64, 64), mode='tensor')
    assert outputs is not None
    with pytest.raises(knet_plugin.compat.HostPackageError, match=rf'(?s){absent}.*{hidden}.*pip install'):
        MODELS.build(dict(type=f'knet_plugin.{absent}'))
    head = dict(type='knet_plugin.core.kernel_update_head.KernelUpdateHead', channels=8)
    assert isinstance(MODELS.build(head), knet_plugin.core.KernelUpdateHead)
    with pytest.raises(knet_plugin.compat.HostPackageError, match=f'(?s){hidden}.*pip install'):
        importlib.import_module('knet_plugin.' + dict(mmdet='detection', mmseg='semantic')[hidden])
