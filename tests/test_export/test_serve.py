"""The HTTP example of docs/deploy.md."""

import importlib.util
import json
import threading
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
import torch
from small_predictors import ROOT

from knet_plugin.compat import release
from knet_plugin.export import exporting

pytestmark = pytest.mark.skipif(release(torch.__version__) < exporting.OLDEST_TORCH, reason='this torch cannot export')


@pytest.fixture
def address(semantic):
    spec = importlib.util.spec_from_file_location('serve', ROOT / 'demo/serve.py')
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    with serve.make_server(str(semantic), port=0, threads=1) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


def post(address, body):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.load(opener.open(urllib.request.Request(address, data=body), timeout=60))


def test_an_image_is_answered_with_its_classes(address):
    _, content = cv2.imencode('.png', np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    found = post(address, content.tobytes())
    assert (found['height'], found['width']) == (40, 60) and sum(found['pixels'].values()) == 40 * 60


@pytest.mark.parametrize(('body', 'status'), [(b'no image', 400), (b'', 413)])
def test_other_requests_are_refused(body, status, address):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, body)
    assert caught.value.code == status and 'image' in json.load(caught.value)['error']
