"""The check of the host packages, on packages made for the test and on those installed."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from mmengine.registry import MODELS

from knet_plugin.compat import DISTRIBUTIONS, Host, HostPackageError, HostVersionWarning, check_host_packages, release


@pytest.fixture
def make_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes an importable package with the given source."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name: str, source: str, **submodules: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / '__init__.py').write_text(source)
        for submodule, text in submodules.items():
            (folder / f'{submodule}.py').write_text(text)
        made.append(name)

    yield make
    for module in list(sys.modules):
        if module.partition('.')[0] in made:
            del sys.modules[module]


@pytest.mark.parametrize(('version', 'expected'), [
    ('2.13.0+cpu', (2, 13)),
    ('2.0', (2,)),
    ('0.11.0rc2', (0, 11)),
    ('10.2.1.post3', (10, 2, 1)),
    ('0', ()),
])
def test_release_keeps_the_numbers_only(version, expected):
    assert release(version) == expected


def test_release_orders_by_number_not_by_text():
    assert release('0.9.3') < release('0.10.0') < release('1')
    with pytest.raises(ValueError, match='unknown'):
        release('unknown')


def test_installed_hosts_are_accepted_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter('error', HostVersionWarning)
        check_host_packages()


def test_all_problems_are_listed_at_once_with_both_families(make_host):
    make_host('old_host', '__version__ = "1.9.9"')
    hosts = [Host('absent_host', '3.0'), Host('old_host', '1.10.0'), Host('absent_too')]
    with pytest.raises(HostPackageError) as caught:
        check_host_packages(hosts)
    message = str(caught.value)
    assert 'absent_host is not installed (3.0 or newer is needed)' in message
    assert 'old_host 1.9.9 is too old (1.10.0 or newer is needed)' in message
    assert 'absent_too is not installed (any version will do)' in message
    for commands in DISTRIBUTIONS.values():
        assert all(command in message for command in commands)


def test_the_minimum_itself_is_enough(make_host):
    make_host('exact_host', '__version__ = "1.10"')
    check_host_packages([Host('exact_host', '1.10.0', '1.11')])


@pytest.mark.parametrize('version', ['1.11.0', '2.0.1+cu130'])
def test_newer_than_tested_is_warned_of_and_accepted(make_host, version):
    make_host('new_host', f'__version__ = "{version}"')
    with pytest.warns(HostVersionWarning, match='newer than knet_plugin was tested with .below 1.11'):
        check_host_packages([Host('new_host', '1.0', '1.11')])


def test_a_host_that_refuses_another_is_quoted(make_host):
    make_host('choosy_host', 'assert False, "MMCV==9 is used but incompatible.\\n Please install mmcv<2.2"')
    with pytest.raises(HostPackageError, match='choosy_host 0 refuses another host package: MMCV==9 is used but '
                                               'incompatible. Please install'):
        check_host_packages([Host('choosy_host', '1.0')])


def test_a_missing_host_is_not_reported_again_by_those_that_need_it(make_host):
    make_host('needy_host', 'import absent_host')
    with pytest.raises(HostPackageError) as caught:
        check_host_packages([Host('absent_host', '1.0'), Host('needy_host', '1.0')])
    assert str(caught.value).count('absent_host') == 1
    with pytest.raises(HostPackageError, match="needy_host cannot be imported: No module named 'absent_host'"):
        check_host_packages([Host('needy_host', '1.0')])


def test_a_host_that_breaks_on_import_is_named(make_host):
    make_host('broken_host', 'raise OSError("libbroken.so: undefined symbol")')
    with pytest.raises(HostPackageError, match='broken_host cannot be imported: OSError: libbroken.so'):
        check_host_packages([Host('broken_host', '1.0')])


def test_missing_and_unfit_operators_are_told_apart(make_host):
    make_host('lite_host', '__version__ = "2.1.0"')
    with pytest.raises(HostPackageError, match='lite_host 2.1.0 is installed without its compiled operators'):
        check_host_packages([Host('lite_host', '2.0', extension='lite_host._ext')])
    make_host('unfit_host', '__version__ = "2.1.0"', _ext='raise ImportError("undefined symbol: _ZN3c10")')
    with pytest.raises(HostPackageError, match='of unfit_host 2.1.0 do not fit the installed torch.*_ZN3c10'):
        check_host_packages([Host('unfit_host', '2.0', extension='unfit_host._ext')])


def test_version_comes_from_the_distribution_where_the_module_has_none():
    with pytest.raises(HostPackageError, match=r'pycocotools 2\.\d.* is too old \(99 or newer'):
        check_host_packages([Host('pycocotools', '99')])


def test_the_error_survives_mmengine_importing_a_scope_by_itself(make_host):
    source = 'from knet_plugin.compat import Host, check_host_packages\ncheck_host_packages([Host("absent_host")])'
    make_host('scoped_plugin', source, registry='')
    with pytest.raises(HostPackageError, match='absent_host is not installed'):
        MODELS.build({'type': 'scoped_plugin.Anything'})


@pytest.mark.parametrize('module', ['pycocotools', 'mmdet', 'mmseg'])
def test_import_of_the_package_says_what_is_missing(module):
    # None in sys.modules is how Python marks a module as absent.
    program = f'import sys; sys.modules[{module!r}] = None; import knet_plugin'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'HostPackageError: knet_plugin cannot run with the packages installed here:\n' \
           f'  - {module} is not installed' in done.stderr
