"""Open a page in the browser: drop pictures on it, and see what models and their kernels make of them."""

from __future__ import annotations

import argparse
import contextlib
import socket
from pathlib import Path

from knet_plugin.cli import ResourceError, resource_root
from knet_plugin.inference.inputs import find_sources
from knet_plugin.inference.opening import OPENING_ERRORS

__all__ = ['main']

EXAMPLE = 'demo/nuclei'  # the model that a clone brings


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='knet demo', description=__doc__)
    parser.add_argument('models', nargs='*', metavar='MODEL',
                        help='work folder, folder of work folders, config, published name or exported model '
                        f'(default: {EXAMPLE} of a clone)')
    parser.add_argument('--images', type=Path, metavar='DIR',
                        help='images for the average activation of a kernel (default: validation images of the run)')
    parser.add_argument('--host', default='127.0.0.1', help='address (default: 127.0.0.1, this machine alone)')
    parser.add_argument('--port', type=int, default=7860, help='0 takes a free one (default: 7860)')
    parser.add_argument('--limit', type=int, default=32, metavar='MB', help='largest upload (default: 32)')
    parser.add_argument('--device', help='for example cpu or cuda:1 (default: a GPU if there is one)')
    args = parser.parse_args()
    if args.limit < 1:
        parser.error(f'argument --limit: must be at least 1, got {args.limit}')
    if not 0 <= args.port < 65536:
        parser.error(f'argument --port: must be from 0 to 65535, got {args.port}')
    return args


def serve(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    import uvicorn

    from knet_plugin.web.app import make_app
    from knet_plugin.web.gallery import Gallery, find_models

    if not args.models and not (resource_root() / EXAMPLE).is_dir():
        raise ResourceError('name a model: a work folder, a published name or an exported model')
    models = find_models(args.models or [str(resource_root() / EXAMPLE)])
    sources = find_sources([args.images]) if args.images else []
    images = [source.path for source in sources if not source.is_video]
    shown = f'[{args.host}]' if ':' in args.host else args.host
    hosts = ['*'] if args.host in ('0.0.0.0', '::') else [shown]
    app = make_app(Gallery(models, args.device), images, args.limit * 1_000_000, hosts)
    try:
        family = socket.AF_INET6 if ':' in args.host else socket.AF_INET
        listener = socket.create_server((args.host, args.port), family=family)
    except OSError as error:
        raise OSError(f'cannot listen at {shown}:{args.port}: {error.strerror}; choose another --port') from error
    print(f'http://{shown}:{listener.getsockname()[1]}/ shows {", ".join(models)}; Ctrl-C ends it', flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level='warning')).run(sockets=[listener])


def main() -> int | str:
    """Run the command; return the exit status, or the error."""
    args = parse_arguments()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            serve(args)
    except ModuleNotFoundError as error:
        if error.name not in ('starlette', 'uvicorn', 'PIL'):
            raise
        return f'error: the page needs {error.name}: pip install "knet_plugin[demo]"'
    except OPENING_ERRORS as error:
        return f'error: {error}'
    return 0
