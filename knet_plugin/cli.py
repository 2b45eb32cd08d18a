"""The command line ``knet``, and what it shares with the scripts in ``tools/``.

Configs and tools are found in the clone of an editable installation, or in ``knet_plugin/.mim`` of a wheel.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import runpy
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from knet_plugin import __version__
from knet_plugin.engine.run_config import add_run_parts

__all__ = ['ResourceError', 'add_run_arguments', 'list_configs', 'load_run_config', 'main', 'resolve_config',
           'resolve_tool', 'resource_root']

_PACKAGE = Path(__file__).resolve().parent


class ResourceError(RuntimeError):
    """A config, tool or command does not exist."""


def resource_root() -> Path:
    """Return the folder that holds ``configs/``, ``tools/`` and ``model-index.yml``.

    Raises:
        ResourceError: There is neither a wheel's ``.mim`` folder nor a clone around the package.
    """
    # The wheel's folder first: site-packages may hold a 'configs' folder of another package.
    for root in (_PACKAGE / '.mim', _PACKAGE.parent):
        if (root / 'configs').is_dir() and (root / 'model-index.yml').is_file():
            return root
    raise ResourceError(f'{_PACKAGE} comes without configs and tools; install it again from a clone or a wheel')


def list_configs(pattern: str = '') -> list[str]:
    """Return the sorted names of the configs, without those in ``_base_``, that contain ``pattern`` in any case."""
    names = (path.stem for path in _scripts(resource_root() / 'configs'))
    return sorted(name for name in names if pattern.lower() in name.lower())


def resolve_config(name: str | Path) -> Path:
    """Find a config.

    Args:
        name: An existing path; or a file name or the end of its path ('semantic/name'), with or without '.py'.

    Raises:
        ResourceError: No config has this name. The message suggests similar names.
    """
    return _resolve(name, 'config', resource_root() / 'configs')


def resolve_tool(name: str | Path) -> Path:
    """Find a script of ``tools/`` as :func:`resolve_config` finds a config."""
    return _resolve(name, 'tool', resource_root() / 'tools')


def _resolve(name: str | Path, kind: str, folder: Path) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    files = _scripts(folder)
    ending = Path(str(path).removesuffix('.py') + '.py').parts
    for file in files:
        if file.parts[-len(ending):] == ending:
            return file
    raise _unknown(kind, str(name), [file.stem for file in files])


def _unknown(kind: str, name: str, names: Collection[str]) -> ResourceError:
    close = difflib.get_close_matches(Path(name).stem, names, n=5, cutoff=0.5)
    return ResourceError(f'unknown {kind} {name!r}' + (f'; did you mean {", ".join(close)}?' if close else ''))


def _scripts(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob('*.py') if '_base_' not in file.parts)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/CONFIG)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings that override the config, for example train_cfg.max_iters=100')
    parser.add_argument('--bare', action='store_true',
                        help='run the config as it is, without the hooks that this tool adds otherwise')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='what started the processes of a distributed run (default: none)')
    # torch.distributed.launch passes the rank as an argument.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def load_run_config(args: argparse.Namespace) -> Config:
    """Read the config that ``args.config`` and the arguments of :func:`add_run_arguments` describe.

    Unless ``args.bare`` is set, it gets the hooks of :func:`~knet_plugin.engine.run_config.add_run_parts`.

    Raises:
        SystemExit: The config does not exist.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        path = resolve_config(args.config)
    except ResourceError as error:
        raise SystemExit(f'error: {error}') from error
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', path.stem))
    if not args.bare:
        add_run_parts(cfg)
    return cfg


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with these arguments, by default those of the process, and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser, commands = _parser()
        if arguments and not arguments[0].startswith('-') and arguments[0] not in commands:
            raise _unknown('command', arguments[0], commands)
        args, others = parser.parse_known_args(arguments)
        if others and args.command not in ('train', 'test'):
            parser.error(f'unrecognized arguments: {" ".join(others)}')
        if args.command is None:
            parser.print_help()
            return 0
        return args.run(args, others)
    except ResourceError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """Return the parser and its commands: each is a sub-parser whose default ``run`` is the function to call."""
    listing = ['tools:']
    for script in _scripts(resource_root() / 'tools'):
        summary = (ast.get_docstring(ast.parse(script.read_text())) or '').partition('\n')[0]
        listing.append(f'  {script.stem:20}{summary}')
    parser = argparse.ArgumentParser(prog='knet', description='K-Net for image segmentation', epilog='\n'.join(listing),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=f'knet_plugin {__version__}')
    commands = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND')

    for name, summary in (('train', 'train a model'), ('test', 'evaluate a checkpoint')):
        command = commands.add_parser(name, help=f'{summary} (in N processes: --launcher pytorch --gpus N)',
                                      add_help=False, allow_abbrev=False)  # the script parses the rest, and -h
        command.add_argument('--launcher', default='none')
        command.add_argument('--gpus', type=int)
        command.set_defaults(run=_launch)

    command = commands.add_parser('configs', help='list the configs')
    command.add_argument('pattern', nargs='?', default='', help='list only names that contain this text')
    command.set_defaults(run=_list)

    command = commands.add_parser('run', help='run one of the tools listed below')
    command.add_argument('tool', help='name or path of the tool')
    command.add_argument('arguments', nargs=argparse.REMAINDER, help='arguments of the tool')
    command.set_defaults(run=lambda args, _: _run_script(resolve_tool(args.tool), args.arguments))
    return parser, commands.choices


def _launch(args: argparse.Namespace, others: list[str]) -> int:
    """Train or test in this process, or replace it by torchrun, which starts this command in several processes."""
    if args.launcher != 'pytorch' and args.gpus is not None:
        raise ResourceError(f'--gpus {args.gpus} needs --launcher pytorch')
    arguments = [*others, '--launcher', args.launcher]
    if args.launcher == 'pytorch' and 'RANK' not in os.environ:
        os.execv(sys.executable, [sys.executable, '-m', 'torch.distributed.run', '--standalone',
                                  f'--nproc-per-node={args.gpus or 1}', '-m', 'knet_plugin', args.command, *arguments])
    return _run_script(resolve_tool(f'tools/{args.command}'), arguments)


def _run_script(path: Path, arguments: list[str]) -> int:
    """Run a script in this process, as ``python PATH ARGUMENTS`` does."""
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name='__main__')
    return 0


def _list(args: argparse.Namespace, _: list[str]) -> int:
    names = list_configs(args.pattern)
    if not names:
        raise ResourceError(f'no config\'s name contains {args.pattern!r}')
    print('\n'.join(names))
    return 0
