"""The page in Debian's Chromium, where it is installed (`apt install chromium`)."""

import gc
import io
import re
import shutil
import socket
import threading
import weakref

import cv2
import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from small_predictors import small_run

from knet_plugin.web.app import make_app
from knet_plugin.web.gallery import KEPT, Gallery, find_models

CHROMIUM = shutil.which('chromium')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no chromium')
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream',
         '--use-fake-ui-for-media-stream']
PATIENCE_MS = 60_000  # the machine may be busy


@pytest.fixture(scope='module')
def gallery(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browser')
    return Gallery(find_models([str(small_run(task, folder / task)) for task in ('panoptic', 'semantic')]))


@pytest.fixture(scope='module')
def address(gallery):
    app = make_app(gallery, [], 2_000_000)
    listener = socket.create_server(('127.0.0.1', 0))  # it keeps requests until the server runs
    server = uvicorn.Server(uvicorn.Config(app, log_level='error'))
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listener]), daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{listener.getsockname()[1]}/'
    server.should_exit = True
    thread.join()


@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport=dict(width=1300, height=900))
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    errors = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(address)
    expect(page.locator('#models input')).to_have_count(2)
    yield page
    page.close()
    assert errors == []


def photo(name='a.png', seed=0, size=(60, 80)):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(content, 'PNG')
    return dict(name=name, mimeType='image/png', buffer=content.getvalue())


def add(page, *files):
    page.set_input_files('#files', list(files))


def set_slider(page, name, value):
    page.locator(name).evaluate('(slider, value) => { slider.value = value; slider.oninput(); }', value)


def panel(page, part):
    return page.locator(f'.panel[data-part={part}]').first


def test_a_picture_and_its_parts(page):
    add(page, photo())
    for part in ('panoptic', 'instances'):
        expect(panel(page, part)).to_be_visible()
    expect(page.locator('#status')).to_contain_text('panoptic:')
    page.get_by_label('instances', exact=True).first.uncheck()
    expect(page.locator('.panel[data-part=instances]')).to_have_count(0)
    page.get_by_label('semantic', exact=True).first.check()  # the model of that name
    expect(page.locator('.panel[data-model=semantic]')).to_have_count(1)


def test_sliders(page):
    add(page, photo())
    set_slider(page, '#score', 0)
    instances = panel(page, 'instances')
    expect(instances.locator('small')).not_to_have_text('0 regions')
    set_slider(page, '#score', 1)
    expect(instances.locator('small')).to_have_text('0 regions')
    set_slider(page, '#opacity', 0.5)
    expect(instances.locator('.stack img').last).to_have_css('opacity', '0.5')


def test_hover_and_kernels(page):
    page.get_by_label('panoptic', exact=True).first.uncheck()
    page.get_by_label('semantic', exact=True).first.check()
    add(page, photo())
    stack = panel(page, 'semantic').locator('.stack')
    stack.hover(position=dict(x=30, y=30))
    tip = page.locator('#tip')
    expect(tip).to_contain_text('kernel')
    kernel = tip.inner_text().split()[-1]
    stack.click(position=dict(x=30, y=30))
    expect(page.locator('#kernel')).to_have_text(f'{kernel} of semantic')
    expect(page.locator('#stages figure')).to_have_count(4)
    expect(page.locator('#attention li')).to_have_count(6)
    other = page.locator('#rivals li').nth(1)
    words = other.inner_text().split()
    other.locator('button').click()
    expect(page.locator('#kernel')).to_have_text(f'{words[0]} of semantic')


def test_differences_of_two_models(page):
    page.get_by_label('semantic', exact=True).first.check()
    add(page, photo())
    expect(page.locator('#compare')).to_be_visible()
    page.click('#differ')
    expect(page.locator('#differences img')).to_be_visible()
    expect(page.locator('#differences p')).to_contain_text('of the pixels')


def test_bad_files_get_a_line(page):
    add(page, dict(name='notes.png', mimeType='image/png', buffer=b'no picture'), photo('good.png'))
    expect(page.locator('#error')).to_contain_text('notes.png')
    expect(panel(page, 'panoptic')).to_be_visible()
    add(page, dict(name='large.png', mimeType='image/png', buffer=bytes(2_000_001)))
    expect(page.locator('#error')).to_contain_text('larger than 2 MB')


def test_camera(page):
    page.click('#camera')
    expect(panel(page, 'panoptic')).to_be_visible()
    caption = page.locator('figcaption').first
    expect(caption).to_contain_text('camera')
    first = caption.inner_text()
    expect(caption).not_to_have_text(first)  # the next frame comes by itself
    page.click('#stop')
    expect(page.locator('#video')).to_be_hidden()


def test_video(page, tmp_path):
    path = str(tmp_path / 'clip.webm')
    video = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*'VP80'), 10, (80, 60))
    for frame in np.random.default_rng(0).integers(0, 256, (20, 60, 80, 3), np.uint8):
        video.write(frame)
    video.release()
    page.set_input_files('#files', path)
    expect(page.locator('figcaption').first).to_contain_text('video')
    page.click('#stop')
    add(page, photo('after.png'))
    expect(page.locator('figcaption').first).to_contain_text('after.png')


def test_a_video_leaves_pictures_alone(page):
    add(page, photo('kept.png'))
    expect(page.locator('figcaption').first).to_contain_text('kept.png')
    page.click('#camera')
    expect(page.locator('figcaption').first).to_contain_text('camera')
    page.click('#pictures button')
    expect(page.locator('figcaption').first).to_contain_text('kept.png')
    expect(page.locator('#video')).to_be_hidden()


def test_a_picture_that_browsers_cannot_show(page):
    content = io.BytesIO()
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(content, 'TIFF')
    add(page, dict(name='a.tif', mimeType='image/tiff', buffer=content.getvalue()))
    expect(page.locator('#panels img').first).to_have_attribute('src', re.compile('photo.png'))


def test_a_failing_model_does_not_hide_the_others(page, gallery, monkeypatch):
    monkeypatch.setitem(gallery.models, 'semantic', 'nowhere')
    monkeypatch.setattr(gallery, '_opened', {'panoptic': gallery.predictor('panoptic')})
    page.get_by_label('semantic', exact=True).first.check()
    add(page, photo())
    expect(panel(page, 'panoptic')).to_be_visible()
    expect(page.locator('#error')).to_contain_text('semantic: nowhere')


def test_downloads(page):
    add(page, photo('street.png'))
    for word, name in (('PNG', 'street.png-panoptic.png'), ('COCO', 'street.png-coco.zip')):
        with page.expect_download() as download:
            panel(page, 'panoptic').get_by_text(word, exact=True).click()
        assert download.value.suggested_filename == name and download.value.path().stat().st_size > 100


def test_memory_does_not_grow_with_pictures(page, gallery):
    """Of 20 pictures in a row, only the last ones and their results are still in memory."""
    seen = []
    for number in range(20):
        add(page, photo(f'{number}.png', number))
        expect(page.locator('figcaption').first).to_contain_text(f'{number}.png')
        newest = max(gallery._pictures)
        picture = gallery.picture(newest)
        result, = picture.results.values()
        seen.append([weakref.ref(each) for each in (picture, picture.image, result, result.panoptic)])
    del picture, result
    gc.collect()
    assert [all(each() is not None for each in references) for references in seen[-KEPT:]] == [True] * KEPT
    assert [each() for references in seen[:-KEPT] for each in references] == [None] * (4 * (20 - KEPT))
    expect(page.locator('#pictures button')).to_have_count(KEPT)
