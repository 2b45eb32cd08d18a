"""Each case in a process of its own, because registration is global."""

import subprocess
import sys

import pytest

HEAD = "dict(type='FCNHead', in_channels=8, in_index=0, channels=8, num_classes=3)"

CASES = {
    'the prefix alone imports the scope': """
        from mmseg.registry import MODELS
        import sys
        assert 'knet_plugin' not in sys.modules
        head = MODELS.build(dict(type='knet_plugin.IterativeDecodeHead', kernel_generate_head=HEAD))
        assert type(head).__module__.startswith('knet_plugin.')
    """,
    'the prefix alone, by way of mmdet': """
        from mmdet.registry import MODELS
        head = MODELS.build(dict(type='knet_plugin.KernelUpdateHead', channels=8))
        assert type(head).__module__.startswith('knet_plugin.')
    """,
    'no collision, hosts first': """
        import mmseg.models, mmdet.models, knet_plugin
        check()
    """,
    'no collision, plugin first': """
        import knet_plugin, mmdet.models, mmseg.models
        check()
    """,
    'custom_imports gives unprefixed names that the host does not own': """
        from mmengine.utils import import_modules_from_strings
        import_modules_from_strings(['knet_plugin'])
        check()
        for scope in ('mmseg', 'mmdet', 'knet_plugin'):
            assert get(scope, 'KernelUpdater').startswith('knet_plugin.')
        assert get('mmdet', 'KernelUpdateHead').startswith('knet_plugin.')
        assert get('knet_plugin', 'KernelUpdateHead').startswith('knet_plugin.')
    """,
}
PRELUDE = f"""
HEAD = {HEAD}
def get(scope, name):
    from mmengine.registry import MODELS, DefaultScope
    with DefaultScope.overwrite_default_scope(scope):
        with MODELS.switch_scope_and_registry(scope) as registry:
            return registry.get(name).__module__
def check():
    assert get('mmseg', 'KernelUpdateHead').startswith('mmseg.')
    assert get('mmseg', 'IterativeDecodeHead').startswith('mmseg.')
    for scope in ('mmseg', 'mmdet', 'knet_plugin'):
        assert get(scope, 'mmseg.KernelUpdateHead').startswith('mmseg.')
        assert get(scope, 'knet_plugin.KernelUpdateHead').startswith('knet_plugin.')
        assert get(scope, 'knet_plugin.IterativeDecodeHead').startswith('knet_plugin.')
"""


@pytest.mark.parametrize('case', CASES)
def test_scope(case):
    lines = CASES[case].strip('\n').splitlines()
    body = '\n'.join(line[8:] for line in lines)
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', PRELUDE + body], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
