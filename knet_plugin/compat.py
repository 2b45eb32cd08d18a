"""Which host packages K-Net runs on, and a check that says clearly what is wrong with those installed.

Two families of distributions provide the same import names: the maintained forks (``onedl-*``) and the original
OpenMMLab packages. They cannot live in one environment, and a requirement in this package's metadata could name only
one of them; so the requirements are stated here, on import names, and checked when the plugin is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

__all__ = ['DISTRIBUTIONS', 'HOSTS', 'Host', 'HostPackageError', 'HostVersionWarning', 'check_host_packages',
           'installed_distribution', 'release']


class HostPackageError(RuntimeError):
    """A host package is missing, too old, or cannot be imported.

    Not an ``ImportError``, on purpose: mmengine imports the modules of a registry scope by itself and swallows
    ``ImportError`` and ``AttributeError`` while it does. The user would then read only that 'X is not in the model
    registry', and nothing about the package that is missing.
    """


class HostVersionWarning(UserWarning):
    """A host package is newer than those the plugin was tested with."""


@dataclass(frozen=True)
class Host:
    """A package the plugin runs on.

    Args:
        module: The name it is imported by.
        minimum: The oldest version that will do, or '' for any.
        tested_below: The first version that nobody has tried, or '' for no limit.
        extension: A compiled submodule without which the package is of no use here, or ''.
    """

    module: str
    minimum: str = ''
    tested_below: str = ''
    extension: str = ''


# In the order of their dependencies: a host comes after those that it imports itself.
HOSTS = (
    Host('torch', '2.3', '2.14'),
    Host('scipy'),
    Host('pycocotools'),
    Host('mmengine', '0.10.0', '0.11'),
    # mmdet and mmseg do not import without the compiled operators, and their own message does not say why.
    Host('mmcv', '2.1.0', '2.4', extension='mmcv._ext'),
    Host('mmdet', '3.3.0', '3.6'),
    Host('mmseg', '1.2.2', '1.5'),
)

_COMPILE = '"setuptools<81" wheel ninja psutil'
# Either family is installed with two commands: mmcv compiles its operators against the torch that is already there.
DISTRIBUTIONS = {
    'maintained forks': (
        f'pip install torch {_COMPILE}',
        'pip install --no-build-isolation onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmsegmentation '
        '"numpy>2" pycocotools scipy ftfy regex',
    ),
    'original OpenMMLab': (
        f'pip install torch {_COMPILE}',
        'pip install --no-build-isolation mmengine mmcv==2.1.0 mmdet mmsegmentation pycocotools scipy ftfy regex',
    ),
}


def release(version: str) -> tuple[int, ...]:
    """The numeric release of a version, for comparison.

    Local and pre-release parts are left out: a release candidate counts as its release. Trailing zeros too, so that
    '2.0' equals '2.0.0'.

    Args:
        version: A version such as '2.13.0+cpu' or '0.11.0rc2'.

    Raises:
        ValueError: The text does not begin with a number.
    """
    match = re.match(r'\d+(\.\d+)*', version)
    if match is None:
        raise ValueError(f'{version!r} is not a version')
    numbers = [int(part) for part in match[0].split('.')]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def installed_distribution() -> str:
    """Which of ``DISTRIBUTIONS`` is installed, by the distribution that mmseg comes from."""
    names = metadata.packages_distributions().get('mmseg', [])
    return 'original OpenMMLab' if 'mmsegmentation' in names else 'maintained forks'


def check_host_packages(hosts: Iterable[Host] = HOSTS) -> None:
    """Import every host package and compare its version with the table.

    Args:
        hosts: The packages to look at, each after those that it needs itself.

    Raises:
        HostPackageError: At least one is missing, too old or not importable. The message lists all of them and the
            commands that install either family.

    Warns:
        HostVersionWarning: One is newer than tested. It is not refused.
    """
    hosts = tuple(hosts)
    problems: list[str] = []
    unusable: set[str] = set()
    for host in hosts:
        try:
            problem = _problem_of(host)
        except ModuleNotFoundError as error:
            # mmdet without mmcv says 'No module named mmcv': that one is in the list already.
            missing = (error.name or '').partition('.')[0]
            problem = '' if missing in unusable else f'{host.module} cannot be imported: {error}'
        if problem:
            problems.append(problem)
            unusable.add(host.module)
    if problems:
        raise HostPackageError(_message(problems))


def _problem_of(host: Host) -> str:
    """What keeps this host from being used, or '' if nothing does."""
    needed = f'{host.minimum} or newer is needed' if host.minimum else 'any version will do'
    if importlib.util.find_spec(host.module) is None:
        return f'{host.module} is not installed ({needed})'
    try:
        module = importlib.import_module(host.module)
    except ModuleNotFoundError:
        raise
    except AssertionError as error:
        # mmdet and mmseg assert the versions of mmcv and mmengine that they accept.
        return f'{host.module} {_installed_version(host.module)} refuses another host package: {_one_line(error)}'
    except Exception as error:  # A broken binary may raise anything; whatever it is, the user must read it.
        return f'{host.module} cannot be imported: {type(error).__name__}: {_one_line(error)}'

    version = getattr(module, '__version__', '') or _installed_version(host.module)
    if host.minimum and release(version) < release(host.minimum):
        return f'{host.module} {version} is too old ({needed})'
    if host.extension:
        problem = _extension_problem(host, version)
        if problem:
            return problem
    if host.tested_below and release(version) >= release(host.tested_below):
        warnings.warn(f'{host.module} {version} is newer than knet_plugin was tested with '
                      f'(below {host.tested_below}); it may work.', HostVersionWarning, stacklevel=3)
    return ''


def _extension_problem(host: Host, version: str) -> str:
    if importlib.util.find_spec(host.extension) is None:
        return (f'{host.module} {version} is installed without its compiled operators (a "lite" distribution, or '
                'built without a C++ compiler); install the full one')
    try:
        importlib.import_module(host.extension)
    except ImportError as error:
        return (f'the compiled operators of {host.module} {version} do not fit the installed torch; compile them '
                f'again with pip\'s --force-reinstall --no-cache-dir ({_one_line(error)})')
    return ''


def _installed_version(module: str) -> str:
    """The version of the distribution that provides a module without a ``__version__``."""
    for name in metadata.packages_distributions().get(module, [module]):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return '0'


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())


def _message(problems: list[str]) -> str:
    lines = ['knet_plugin cannot run with the packages installed here:']
    lines += [f'  - {problem}' for problem in problems]
    lines.append('Install ONE of the two families of host packages (in an environment of its own):')
    for family, commands in DISTRIBUTIONS.items():
        lines.append(f'  {family}:')
        lines += [f'    {command}' for command in commands]
    return '\n'.join(lines)
