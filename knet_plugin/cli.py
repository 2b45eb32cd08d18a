"""The command line ``python -m knet_plugin``, and what it shares with the scripts in ``tools/``.

It runs the scripts that ``mim`` runs, but finds them and the configs however the package was installed: in the clone
of an editable installation, or in ``knet_plugin/.mim`` of a wheel.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config, DictAction

from knet_plugin.orphans import end_with_parent

__all__ = ['ResourceError', 'add_run_arguments', 'list_configs', 'load_run_config', 'main', 'resolve_config',
           'resolve_tool', 'resource_root']

_PACKAGE = Path(__file__).resolve().parent
_FINITE_INPUTS = 'knet_plugin.FiniteInputHook'

_USAGE = """\
usage: python -m knet_plugin COMMAND ...

  train CONFIG [...]             train a model
  test CONFIG CHECKPOINT [...]   evaluate a model
  run TOOL [...]                 run any script of tools/, by its name
  configs [PATTERN]              list the configs whose name contains PATTERN

CONFIG is a path or the name of a config, with or without '.py'. `train -h`, `test -h` and `run TOOL -h` list the
further arguments. train and test also take, for several processes on this machine:
  --launcher pytorch --gpus N [--port PORT]
"""


class ResourceError(RuntimeError):
    """A config or script was asked for that is not there, or whose name fits several."""


def resource_root() -> Path:
    """The folder that holds ``configs/``, ``tools/`` and ``model-index.yml``.

    Raises:
        ResourceError: Neither a wheel's ``.mim`` folder nor a clone is found around the package.
    """
    # A wheel's folder first: beside an installed package, in site-packages, anything may be called 'configs'.
    for root in (_PACKAGE / '.mim', _PACKAGE.parent):
        if (root / 'configs').is_dir() and (root / 'model-index.yml').is_file():
            return root
    raise ResourceError(f'no configs and tools are found around {_PACKAGE}; install the package again, '
                        'from its clone or from a wheel')


def list_configs(pattern: str = '') -> list[str]:
    """The names of all configs that can be run (those in ``_base_`` cannot), sorted.

    Args:
        pattern: Only names that contain this text, in any case.
    """
    names = (path.stem for path in (resource_root() / 'configs').rglob('*.py') if '_base_' not in path.parts)
    return sorted(name for name in names if pattern.lower() in name.lower())


def resolve_config(name: str | Path) -> Path:
    """Find a config by its path or by its name.

    Args:
        name: A path that exists; else a file name with or without '.py', or the end of its path ('semantic/name').

    Raises:
        ResourceError: There is none of this name, or there are several. Close names are suggested.
    """
    return _resolve(name, 'config', resource_root() / 'configs')


def resolve_tool(name: str | Path) -> Path:
    """Find a script of ``tools/`` by its path or by its name, as :func:`resolve_config` does.

    Folders may be written with a colon too, as ``mim run`` has it: 'analysis:count'.

    Raises:
        ResourceError: There is none of this name, or there are several.
    """
    return _resolve(str(name).replace(':', '/'), 'tool', resource_root() / 'tools')


def _resolve(name: str | Path, kind: str, folder: Path) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    wanted = path.with_name(path.name.removesuffix('.py') + '.py')
    if wanted.is_absolute():
        raise ResourceError(f'there is no {kind} {name}')
    files = sorted(file for file in folder.rglob('*.py') if '_base_' not in file.parts)
    ending = wanted.parts
    # Counted from the root's own parts, so that 'configs/semantic/name.py' works from any working directory.
    found = [file for file in files if file.relative_to(folder.parent).parts[-len(ending):] == ending]
    if len(found) == 1:
        return found[0]
    if found:
        listing = '\n  '.join(str(file.relative_to(folder).with_suffix('')) for file in found)
        raise ResourceError(f'several {kind}s are called {name!r}; say which:\n  {listing}')
    close = difflib.get_close_matches(wanted.stem, sorted({file.stem for file in files}), n=5, cutoff=0.5)
    hint = '; did you mean:\n  ' + '\n  '.join(close) if close else ''
    raise ResourceError(f'there is no {kind} {str(name)!r} in {folder}{hint}')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/ and the config\'s name)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings of the config to replace, such as train_cfg.max_iters=100')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='what started the processes of a distributed run (default: none)')
    # torch's launchers pass the rank as an argument (before torch 2.0 with an underscore) or in the environment.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def load_run_config(args: argparse.Namespace) -> Config:
    """Read the config that the arguments of :func:`add_run_arguments` and ``args.config`` describe.

    Whatever the config is, images that are not finite are found before they do harm: it gets the hook for that.

    Raises:
        SystemExit: The config's name is unknown; the message is printed as argparse would.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        path = resolve_config(args.config)
    except ResourceError as error:
        raise SystemExit(f'error: {error}') from error
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    hooks = list(cfg.get('custom_hooks') or [])
    if not any(hook['type'] == _FINITE_INPUTS for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=_FINITE_INPUTS)]
    return cfg


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments, without the program's name; by default those of the process.

    Returns:
        The exit status: that of the script where one was run, 2 for a wrong call.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(_USAGE, end='')
        return 0 if arguments else 2
    command, *rest = arguments
    commands: dict[str, Callable[[list[str]], int]] = {
        'train': lambda given: _train_or_test('train', given),
        'test': lambda given: _train_or_test('test', given),
        'run': _run,
        'configs': _configs,
    }
    try:
        if command not in commands:
            raise ResourceError(f'there is no command {command!r}; the commands are {", ".join(commands)}')
        return commands[command](rest)
    except ResourceError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


def _train_or_test(name: str, given: list[str]) -> int:
    script = resolve_tool(f'tools/{name}')
    if given and given[0] in ('-h', '--help'):
        return _call([sys.executable, str(script), '-h'])
    # The config has to come first: which of the later words belong to an option, only the script knows.
    if not given or given[0].startswith('-'):
        raise ResourceError(f'`{name}` wants the config first: python -m knet_plugin {name} CONFIG ...')
    config = resolve_config(given[0])

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--gpus', type=int)
    parser.add_argument('--port', type=int)
    launch, others = parser.parse_known_args(given[1:])
    launcher = [sys.executable]
    if launch.launcher == 'pytorch':
        # Standalone: the processes of this machine agree on a free port by themselves.
        where = ['--master-port', str(launch.port)] if launch.port else ['--standalone']
        launcher += ['-m', 'torch.distributed.run', f'--nproc-per-node={launch.gpus or 1}', *where]
    elif launch.gpus is not None or launch.port is not None:
        raise ResourceError('--gpus and --port go with --launcher pytorch; without it one process is run, '
                            'on one GPU if there is one')
    return _call([*launcher, str(script), str(config), '--launcher', launch.launcher, *others])


def _run(given: list[str]) -> int:
    if not given:
        names = sorted(path.stem for path in (resource_root() / 'tools').rglob('*.py'))
        raise ResourceError(f'`run` wants the name of a tool, one of: {", ".join(names)}')
    return _call([sys.executable, str(resolve_tool(given[0])), *given[1:]])


def _configs(given: list[str]) -> int:
    if len(given) > 1 or (given and given[0].startswith('-')):
        raise ResourceError('`configs` takes one pattern at most')
    names = list_configs(*given)
    if not names:
        raise ResourceError(f'no config\'s name contains {given[0]!r}' if given else 'there is no config')
    print('\n'.join(names))
    return 0


def _call(command: list[str]) -> int:
    """Run a script in a process of its own and pass on its exit status."""
    # The script's own folder replaces the working directory on its search path; give it this very package all the
    # same, also when it was not installed but started from its clone.
    search = [str(_PACKAGE.parent), os.environ.get('PYTHONPATH', '')]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, search)))
    # A training must not go on unseen, and write to a folder where another resumes it.
    with subprocess.Popen(command, env=environment, preexec_fn=partial(end_with_parent, os.getpid())) as process:
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                continue  # The script received it too, and decides what to do.
    return 128 + abs(status) if status < 0 else status
