"""The command line ``knet``, and where configs and tools are. It works without the host packages.

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

from knet_plugin import __version__
from knet_plugin.compat import HostPackageError, check_host_packages

__all__ = ['ResourceError', 'list_configs', 'main', 'resolve_config', 'resolve_tool', 'resource_root']

_PACKAGE = Path(__file__).resolve().parent
# Commands that a script of tools/ runs.
_SCRIPTS = dict(data='prepare and check your own data', train='train a model, from a config or on your own data',
                test='evaluate a trained model', predict='segment images, folders and videos, and draw the results',
                export='export a trained model to one file that runs without torch and OpenMMLab',
                benchmark='compare trained and exported models on your own images',
                compare='compare the reports of two tests',
                demo='show what models and their kernels find, on a page in the browser')
_LAUNCHED = ('train', 'test')  # those that may run in several processes


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
    """Find a script of ``tools/`` as ``resolve_config`` finds a config."""
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
        elif args.command not in _LAUNCHED:
            _run_script(resolve_tool(f'tools/{args.command}'), others)
        elif args.gpus is not None and args.launcher != 'pytorch':
            parser.error(f'--gpus {args.gpus} needs --launcher pytorch')
        else:
            _launch(args, others)
    except (HostPackageError, ResourceError) as error:
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
        if name in _LAUNCHED:
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
    try:
        runpy.run_path(str(path), run_name='__main__')
    except ModuleNotFoundError:
        check_host_packages()  # with the runtime alone, only exported models can be used
        raise
