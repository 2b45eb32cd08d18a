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
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from knet_plugin import __version__
from knet_plugin.engine.option_check import check_options, unread_options
from knet_plugin.engine.runner import add_run_parts

__all__ = ['ResourceError', 'add_run_arguments', 'list_configs', 'load_run_config', 'main', 'resolve_config',
           'resolve_tool', 'resource_root']

_PACKAGE = Path(__file__).resolve().parent
# Commands that a script of tools/ runs.
_SCRIPTS = dict(data='prepare and check your own data', train='train a model, from a config or on your own data',
                test='evaluate a trained model', predict='segment images, folders and videos, and draw the results')


class ResourceError(RuntimeError):
    """A config or tool does not exist."""


def resource_root() -> Path:
    """Return the folder that holds ``configs/``, ``tools/`` and ``model-index.yml``."""
    # The wheel's folder first: site-packages may hold a 'configs' folder of another package.
    for root in (_PACKAGE / '.mim', _PACKAGE.parent):
        if (root / 'configs').is_dir() and (root / 'model-index.yml').is_file():
            return root
    raise ResourceError(f'{_PACKAGE} comes without configs and tools; install it again from a clone or a wheel')


def list_configs(pattern: str = '') -> list[str]:
    """Return the sorted names of the configs, without those in ``_base_``, that contain ``pattern`` in any case."""
    return sorted(path.stem for path in _scripts('configs') if pattern.lower() in path.stem.lower())


def resolve_config(name: str | Path) -> Path:
    """Find a config by its path, its file name or the end of its path ('semantic/name'), with or without '.py'.

    If there is none, a ``ResourceError`` suggests similar names.
    """
    return _resolve(name, 'configs')


def resolve_tool(name: str | Path) -> Path:
    """Find a script of ``tools/`` as :func:`resolve_config` finds a config."""
    return _resolve(name, 'tools')


def _resolve(name: str | Path, folder: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    files = _scripts(folder)
    ending = Path(str(path).removesuffix('.py') + '.py').parts
    if found := [file for file in files if file.parts[-len(ending):] == ending]:
        return found[0]
    close = difflib.get_close_matches(path.stem, [file.stem for file in files], n=5, cutoff=0.5)
    raise ResourceError(f'there is no {name} in {folder}/' + (f'; did you mean {", ".join(close)}?' if close else ''))


def _scripts(folder: str) -> list[Path]:
    return sorted(file for file in (resource_root() / folder).rglob('*.py') if '_base_' not in file.parts)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument('--work-dir', metavar='DIR',
                        help='folder for logs and results (default: that of the config, or work_dirs/CONFIG)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings that override the config, for example train_cfg.max_iters=100')
    parser.add_argument('--bare', action='store_true',
                        help='run the config as it is: without the hooks and the short console output of this tool')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
                        help='what started the processes of this run: torchrun, srun or mpirun (default: none, one '
                        'process)')
    # torch.distributed.launch passes the rank as an argument.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def load_run_config(args: argparse.Namespace) -> Config:
    """Read the config that ``args.config`` and the arguments of :func:`add_run_arguments` describe.

    Unless ``args.bare`` is set, it gets the hooks of :func:`~knet_plugin.engine.runner.add_run_parts`. An unknown
    config or a misspelt option ends the process.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = args.cfg_options or {}
    try:
        path = resolve_config(args.config)
        cfg = Config.fromfile(path)
        check_options(cfg, options)
    except (ResourceError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    cfg.launcher = args.launcher
    if unread := unread_options(cfg, options):
        print(f'warning: --cfg-options {" ".join(unread)}: only a variable of the config, which has been used already; '
              'set the fields that were made from it', file=sys.stderr)
    cfg.merge_from_dict(options)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if (loader := cfg.get(name)) and loader.get('num_workers') == 0:
            loader.persistent_workers = False  # torch refuses to keep processes that do not exist
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', path.stem))
    if not args.bare:
        add_run_parts(cfg)
    return cfg


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, by default the one of this process, and return its exit status: 0, or 2 if a name is unknown.

    Wrong usage, and a tool that fails, end the process instead (``SystemExit``).
    """
    try:
        parser = _parser()
        args, others = parser.parse_known_args(argv)
        if others and args.command not in _SCRIPTS:
            parser.error(f'unrecognized arguments: {" ".join(others)}')
        if args.command is None:
            parser.print_help()
        elif args.command == 'configs':
            if not (names := list_configs(args.pattern)):
                raise ResourceError(f'no config\'s name contains {args.pattern!r}')
            print('\n'.join(names))
        elif args.command == 'run':
            _run_script(resolve_tool(args.tool), args.arguments)
        elif args.command in ('predict', 'data'):
            _run_script(resolve_tool(f'tools/{args.command}'), others)
        elif args.gpus is not None and args.launcher != 'pytorch':
            parser.error(f'--gpus {args.gpus} needs --launcher pytorch')
        else:
            _launch(args, others)
    except ResourceError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    listing = ['`knet COMMAND --help` lists the options of a command.', '', 'tools, started by `knet run TOOL`:']
    for script in _scripts('tools'):
        if script.stem not in _SCRIPTS:
            summary = (ast.get_docstring(ast.parse(script.read_text())) or '').partition('\n')[0]
            listing.append(f'  {script.stem:20}{summary}')
    parser = argparse.ArgumentParser(prog='knet', description='K-Net for image segmentation', epilog='\n'.join(listing),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=f'knet_plugin {__version__}')
    commands = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND')
    for name, summary in _SCRIPTS.items():
        command = commands.add_parser(name, help=summary, add_help=False, allow_abbrev=False)  # the script has -h
        if name in ('train', 'test'):
            command.add_argument('--launcher', default='none')
            command.add_argument('--gpus', type=int)
    command = commands.add_parser('configs', help='list the configs of K-Net')
    command.add_argument('pattern', nargs='?', default='', help='list only names that contain this text')
    command = commands.add_parser('run', help='run one of the tools below')
    command.add_argument('tool', help='name or path of the tool')
    command.add_argument('arguments', nargs=argparse.REMAINDER, help='arguments of the tool')
    return parser


def _launch(args: argparse.Namespace, others: list[str]) -> None:
    """Train or test in this process, or replace it by torchrun, which starts this command in several processes."""
    arguments = [*others, '--launcher', args.launcher]
    if args.launcher == 'pytorch' and 'RANK' not in os.environ:
        os.execv(sys.executable, [sys.executable, '-m', 'torch.distributed.run', '--standalone',
                                  f'--nproc-per-node={args.gpus or 1}', '-m', 'knet_plugin', args.command, *arguments])
    _run_script(resolve_tool(f'tools/{args.command}'), arguments)


def _run_script(path: Path, arguments: list[str]) -> None:
    """Run a script in this process, as ``python PATH ARGUMENTS`` does."""
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name='__main__')
