"""The server's answers."""

import base64
import io
import json
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from small_predictors import small_run
from starlette.testclient import TestClient
from test_gallery import RGB, encoded

from knet_plugin import Predictor
from knet_plugin.inference.kernel_trace import trace_kernels
from knet_plugin.visualization.regions import Region
from knet_plugin.web.answers import _kernel
from knet_plugin.web.app import make_app
from knet_plugin.web.gallery import KEPT, Gallery, find_models

LIMIT = 50_000


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp('web')
    return {task: small_run(task, folder / task) for task in ('panoptic', 'semantic')}


@pytest.fixture(scope='module')
def client(folders, tmp_path_factory):
    image = tmp_path_factory.mktemp('images') / 'a.png'
    image.write_bytes(encoded())
    return TestClient(make_app(Gallery(find_models(list(map(str, folders.values())))), [image], LIMIT),
                      base_url='http://127.0.0.1')


@pytest.fixture
def picture(client):
    return client.post('/pictures?name=x.png', content=encoded()).json()['picture']


def ask(client, path, **query):
    response = client.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def decoded(url):
    kind, content = url.split(',')
    assert kind == 'data:image/png;base64'
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_the_page(client):
    page = client.get('/')
    assert page.status_code == 200 and '<title>K-Net</title>' in page.text
    for file in ('page.js', 'page.css'):
        assert file in page.text and client.get(file).status_code == 200
    assert ask(client, '/models') == dict(models=['panoptic', 'semantic'], limit=LIMIT, kept=KEPT)


@pytest.mark.parametrize(('model', 'part'), [('panoptic', 'panoptic'), ('panoptic', 'instances'),
                                             ('semantic', 'semantic')])
def test_a_view_is_what_the_predictor_finds(model, part, client, folders, picture):
    predictor = Predictor(folders[model])
    expected, = predictor(RGB)
    assert part in ask(client, '/run', picture=picture, model=model)['parts']
    view = ask(client, '/view', picture=picture, model=model, part=part, score=0)
    assert (decoded(view['drawn']) == predictor.draw(RGB, expected, part, score_thr=0)).all()
    pixels = decoded(view['index'])
    index = pixels[..., 0] + 256 * pixels[..., 1]
    assert index.shape == RGB.shape[:2] and index.max() <= len(view['regions'])
    if part == 'semantic':
        names = np.array([region['name'] for region in view['regions']])
        assert (names[index - 1] == np.array(predictor.classes)[expected.semantic]).all()
        assert all(predictor.classes[region['kernel']] == region['name'] for region in view['regions'])
    elif part == 'panoptic':
        found = {(predictor.classes[segment.label], segment.kernel) for segment in expected.segments}
        assert {(region['name'], region['kernel']) for region in view['regions']} == found
    else:
        known = {(predictor.classes[each.label], each.kernel) for each in expected.instances}
        assert {(region['name'], region['kernel']) for region in view['regions']} <= known


def test_a_higher_threshold_shows_fewer(client, picture):
    counts = [len(ask(client, '/view', picture=picture, model='panoptic', part='instances', score=score)['regions'])
              for score in (0, 0.5, 1)]
    assert counts[0] >= counts[1] >= counts[2] == 0 < counts[0]


def strongest(folder, x, y):
    """The kernel with the largest product of score and probability, of those of the panoptic map."""
    predictor = Predictor(folder)
    trace = trace_kernels(predictor, RGB)
    inputs, _ = predictor.prepare(RGB)
    with torch.no_grad():
        logits, _ = predictor.model.panoptic_head.predict(predictor.model.extract_feat(inputs), [])
    scores, _ = predictor.model.panoptic_fusion_head.candidates(logits[0].sigmoid())
    height, width = trace.masks.shape[2:]
    return int((scores.numpy() * trace.masks[-1, :, int(y * height), int(x * width)]).argmax())


def test_kernels(client, folders, picture):
    answer = ask(client, '/explore', picture=picture, model='panoptic', x=0.5, y=0.5, kernel=2)
    assert answer['kernel'] == 2 and len(answer['stages']) == 4
    assert 'score' not in answer['stages'][0] and 0 <= answer['stages'][3]['score'] <= 1
    shares = [each['share'] for each in answer['rivals']]
    assert shares == sorted(shares, reverse=True)
    chosen = ask(client, '/explore', picture=picture, model='semantic', x=1, y=1)
    assert chosen['kernel'] == chosen['rivals'][0]['kernel'] and chosen['stages'][1]['score'] is None
    owner = ask(client, '/explore', picture=picture, model='panoptic', x=0.5, y=0.5)
    assert owner['kernel'] == strongest(folders['panoptic'], 0.5, 0.5)
    mean = ask(client, '/average', model='semantic', kernel=chosen['kernel'])
    assert 0 < mean['largest'] <= 1 and decoded(mean['mask']).shape == (96, 96, 3)


def test_a_model_does_not_differ_from_itself(client, picture):
    query = dict(picture=picture, a='panoptic', b='panoptic', part='panoptic', score=0)
    answer = ask(client, '/differences', **query)
    assert answer['share'] == 0 and answer['lines'] == []
    picture_of = decoded(answer['picture'])
    assert (picture_of == picture_of[..., :1]).all()  # grey


def test_differences_are_marked(client, picture):
    answer = ask(client, '/differences', picture=picture, a='panoptic', b='semantic', part='semantic', score=0)
    views = [ask(client, '/view', picture=picture, model=model, part='semantic', score=0)
             for model in ('panoptic', 'semantic')]
    names = [np.array([region['name'] for region in view['regions']])[decoded(view['index'])[..., 0] - 1]
             for view in views]
    marked = np.ptp(decoded(answer['picture']), axis=2) > 0
    assert (marked == (names[0] != names[1])).all() and answer['share'] == pytest.approx(marked.mean())


def test_a_single_kernel_is_that_of_class_1():
    head = SimpleNamespace(stage_logits=None, out_channels=1)
    predictor = SimpleNamespace(model=SimpleNamespace(decode_head=head))
    assert [_kernel(predictor, Region(label, False), 'semantic') for label in (0, 1)] == [None, 0]


def test_a_photo_as_png(client):
    number = client.post('/pictures?name=x.tif', content=encoded(kind='TIFF')).json()['picture']
    content = client.get('/photo.png', params=dict(picture=number)).content
    assert (cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1] == RGB).all()


def test_coco_files(client, picture):
    response = client.get('/coco.zip', params=dict(picture=picture, model='panoptic', score=0))
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert {'classes.txt', 'instances.json', 'panoptic.json', 'panoptic/x.png'} <= set(archive.namelist())
    objects = json.loads(archive.read('instances.json'))
    assert objects['images'][0]['file_name'] == 'x.png' and objects['annotations']
    assert mask_utils.decode(objects['annotations'][0]['segmentation']).shape == RGB.shape[:2]


@pytest.mark.parametrize('name', ['../../up.png', '/etc/x.png', 'a\\b.png', '..', ''])
def test_names_choose_no_folder(name, client):
    number = client.post('/pictures', params=dict(name=name), content=encoded()).json()['picture']
    response = client.get('/coco.zip', params=dict(picture=number, model='semantic', score=0))
    for file in zipfile.ZipFile(io.BytesIO(response.content)).namelist():
        assert not file.startswith('/') and '..' not in file.split('/') and len(file.split('/')) <= 2


@pytest.mark.parametrize(('path', 'query', 'words'), [
    ('/run', dict(model='other'), 'no model other'), ('/run', dict(model='panoptic', picture=999), 'again'),
    ('/run', dict(), 'lacks model'), ('/view', dict(model='semantic', part='panoptic', score=0), 'panoptic'),
    ('/view', dict(model='semantic', part='semantic', score='x'), 'float'),
    ('/explore', dict(model='semantic', x=0, y=0, kernel=99), '99'),
    ('/average', dict(model='semantic', kernel=-1), '-1')])
def test_bad_requests_get_one_line(path, query, words, client, picture):
    response = client.get(path, params=dict(picture=picture) | query)
    assert response.status_code == 400 and words in response.json()['error']
    assert '\n' not in response.json()['error']


def test_uploads_are_limited(client):
    response = client.post('/pictures?name=x', content=bytes(LIMIT + 1))
    assert response.status_code == 413 and 'larger' in response.json()['error']
    response = client.post('/pictures?name=notes.txt', content=b'text')
    assert response.status_code == 400 and 'notes.txt' in response.json()['error']


def test_other_pages_are_refused(client):
    assert client.get('/models', headers=dict(host='elsewhere.example')).status_code == 400
    foreign = dict(origin='http://elsewhere.example')
    assert client.get('/models', headers=foreign).status_code == 403
    assert client.post('/pictures?name=x', content=encoded(), headers=foreign).status_code == 403
    assert client.get('/models', headers={'sec-fetch-site': 'cross-site'}).status_code == 403
    own = dict(origin='http://127.0.0.1') | {'sec-fetch-site': 'same-origin'}
    assert client.get('/models', headers=own).status_code == 200
