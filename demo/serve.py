"""Serve an exported model over HTTP: POST an image, get its objects and segments as JSON.

    pip install "knet_plugin[runtime]"
    python demo/serve.py ped.onnx --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/

It needs neither torch nor OpenMMLab. For the internet, put a server in front of it that speaks TLS and limits clients.
"""

import argparse
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from knet_plugin.runtime import Predictor
from knet_plugin.visualization import Result

LARGEST = 20 * 2 ** 20  # bytes of an image


def as_json(result: Result, predictor: Predictor) -> dict[str, Any]:
    """Return what was found; masks as COCO's run-length encodings."""
    height, width = result.size
    content: dict[str, Any] = dict(height=height, width=width)
    if result.instances is not None:
        content['instances'] = [
            dict(label=predictor.classes[each.label], score=each.score, box=each.box,
                 mask=dict(size=each.mask['size'], counts=each.mask['counts'].decode()))
            for each in result.instances if (each.score or 0) >= predictor.score_thr]
    if result.panoptic is not None:
        areas = np.bincount(result.panoptic.ravel(), minlength=len(result.segments) + 1)
        content['segments'] = [dict(id=each.id, label=predictor.classes[each.label], score=each.score,
                                    pixels=int(areas[each.id])) for each in result.segments]
    if result.semantic is not None:
        labels, counts = np.unique(result.semantic, return_counts=True)
        content['pixels'] = {predictor.classes[label]: int(count) for label, count in zip(labels, counts, strict=True)}
    return content


class Handler(BaseHTTPRequestHandler):
    """Answers requests with ``predictor``, which the server's class sets."""

    predictor: Predictor
    lock: threading.Lock  # one image at a time: each takes memory for its masks

    def do_POST(self) -> None:
        """Segment the image in the body of the request."""
        text = self.headers.get('Content-Length') or ''
        length = int(text) if text.isdecimal() else 0
        if not 0 < length <= LARGEST:
            return self._answer(413, dict(error=f'send an image of at most {LARGEST} bytes'))
        image = cv2.imdecode(np.frombuffer(self.rfile.read(length), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            return self._answer(400, dict(error='the body of the request is no image'))
        try:
            with self.lock:
                result, = self.predictor(image[..., ::-1])
        except Exception as error:  # a request must be answered, and the server go on
            return self._answer(500, dict(error=f'{type(error).__name__}: {error}'))
        return self._answer(200, as_json(result, self.predictor))

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Be silent."""


def make_server(model: str, port: int, threads: int = 0) -> ThreadingHTTPServer:
    """Return a server on the loopback address; port 0 chooses a free one."""
    handler = type('ModelHandler', (Handler,), dict(predictor=Predictor(model, threads=threads), lock=threading.Lock()))
    return ThreadingHTTPServer(('127.0.0.1', port), handler)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description='Serve an exported model over HTTP.')
    parser.add_argument('model', help='a file that `knet export` wrote')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--threads', type=int, default=0, help='of the engine (default: all cores)')
    args = parser.parse_args()
    with make_server(args.model, args.port, args.threads) as server:
        print(f'http://127.0.0.1:{server.server_port}/')
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == '__main__':
    main()
