"""The server of the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from knet_plugin.inference.opening import OPENING_ERRORS
from knet_plugin.visualization import score_line
from knet_plugin.web.answers import coco_files, differences, png_bytes, view
from knet_plugin.web.explorer import Explorer
from knet_plugin.web.gallery import KEPT, Gallery

__all__ = ['make_app']

STATIC = Path(__file__).parent / 'static'
LOOPBACK = ['localhost', '127.0.0.1', '[::1]']


def make_app(gallery: Gallery, images: list[Path], limit: int, hosts: list[str] | None = None) -> Starlette:
    """Return the application.

    Args:
        gallery: Its models.
        images: For the average activations of kernels.
        limit: Most bytes of an upload.
        hosts: Names by which browsers may call it besides those of the loopback address; ['*'], any. Others are
            refused, because a foreign page could lead its own name to this machine.
    """
    explorer = Explorer(gallery, images)

    def photo(request: Request) -> Response:
        return Response(png_bytes(gallery.picture(_picture(request)).image), media_type='image/png')

    def models(_: Request) -> dict[str, Any]:
        return dict(models=list(gallery.models), limit=limit, kept=KEPT)

    def run(request: Request) -> dict[str, Any]:
        number, model = _picture(request), _query(request, 'model')
        result, seconds = gallery.run(number, model)
        predictor = gallery.predictor(model)
        return dict(parts=result.parts, seconds=seconds, line=score_line(result, predictor.score_thr))

    def show(request: Request) -> dict[str, Any]:
        return view(gallery, _picture(request), _query(request, 'model'), _query(request, 'part'), _score(request))

    def differ(request: Request) -> dict[str, Any]:
        models = _query(request, 'a'), _query(request, 'b')
        return differences(gallery, _picture(request), models, _query(request, 'part'), _score(request))

    def explore(request: Request) -> dict[str, Any]:
        kernel = int(_query(request, 'kernel')) if 'kernel' in request.query_params else None
        return explorer.explore(_picture(request), _query(request, 'model'), float(_query(request, 'x')),
                                float(_query(request, 'y')), kernel)

    def average(request: Request) -> dict[str, Any]:
        return explorer.average(_query(request, 'model'), int(_query(request, 'kernel')))

    def coco(request: Request) -> Response:
        return Response(coco_files(gallery, _picture(request), _query(request, 'model'), _score(request)),
                        media_type='application/zip')

    answers = [('/models', models), ('/run', run), ('/view', show), ('/differences', differ), ('/explore', explore),
               ('/average', average), ('/coco.zip', coco), ('/photo.png', photo)]
    return Starlette(
        routes=[*(Route(path, _guarded(answer)) for path, answer in answers),
                Route('/pictures', _upload_to(gallery, limit), methods=['POST']),
                Mount('/', StaticFiles(directory=STATIC, html=True))],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *(hosts or [])], www_redirect=False)])


def _upload_to(gallery: Gallery, limit: int) -> Callable:
    """The endpoint that takes a file as the body of a request."""
    async def upload(request: Request) -> Response:
        if not _same_origin(request):
            return _failure('uploads come from this page alone', 403)
        content = bytearray()
        try:
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    return _failure(f'the file is larger than {limit / 1e6:.0f} MB', 413)
        except ClientDisconnect:
            return _failure('the upload was cut off')
        name = request.query_params.get('name', 'picture')
        try:
            replaces = int(request.query_params.get('replaces', 0))
            number = await run_in_threadpool(gallery.add, name, bytes(content), replaces)
        except ValueError as error:
            return _failure(str(error))
        height, width = gallery.picture(number).image.shape[:2]
        return JSONResponse(dict(picture=number, height=height, width=width))

    return upload


def _guarded(answer: Callable[[Request], Any]) -> Callable:
    """An endpoint that answers bad requests and failing models with one line."""
    async def endpoint(request: Request) -> Response:
        if not _same_origin(request):
            return _failure('this page alone may ask', 403)
        try:
            content = await run_in_threadpool(answer, request)
        except (ValueError, *OPENING_ERRORS) as error:
            return _failure(str(error))
        except Exception as error:  # of a model: the page goes on
            logging.getLogger('uvicorn.error').exception('a request failed')
            return _failure(f'{type(error).__name__}: {error}', 500)
        return content if isinstance(content, Response) else JSONResponse(content)

    return endpoint


def _failure(line: str, status: int = 400) -> JSONResponse:
    return JSONResponse(dict(error=(line.strip().splitlines() or ['an error'])[0]), status)


def _picture(request: Request) -> int:
    return int(_query(request, 'picture'))


def _score(request: Request) -> float:
    return float(_query(request, 'score'))


def _query(request: Request, name: str) -> str:
    if name not in request.query_params:
        raise ValueError(f'the request lacks {name}')
    return request.query_params[name]


def _same_origin(request: Request) -> bool:
    """Whether a request comes from our own page, or from no page at all."""
    origin = request.headers.get('origin')
    own = f'{request.url.scheme}://{request.headers.get("host")}'
    return origin in (None, own) and request.headers.get('sec-fetch-site', 'none') in ('none', 'same-origin')
