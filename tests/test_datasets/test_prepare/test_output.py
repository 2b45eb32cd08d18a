"""The folder appears complete or not at all, and replaces nothing that is not ours."""

import pytest

from knet_plugin.datasets.prepare import Options, find_sources, prepare
from knet_plugin.datasets.prepare.writer import SplitWriter


def files_below(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError, SystemExit])
@pytest.mark.parametrize('there', [False, True])
def test_interruption_leaves_what_was_there(run, masks, tmp_path, monkeypatch, error, there):
    if there:
        run(masks, 'pet', stuff=('floor',))
    before = files_below(tmp_path)
    add = SplitWriter.add

    def interrupted(self, sample, size, regions):
        if self.num_images == 2:
            raise error
        return add(self, sample, size, regions)

    monkeypatch.setattr(SplitWriter, 'add', interrupted)
    with pytest.raises(error):
        run(masks, 'pet', force=True)
    assert files_below(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['images', 'masks', *(['out'] if there else [])]


def test_force_replaces_prepared_data_only(run, masks, tmp_path):
    (tmp_path / 'out').mkdir()  # an empty folder may be used
    run(masks, 'pet', stuff=('floor',))
    before = files_below(tmp_path / 'out')
    with pytest.raises(ValueError, match='out .*--force'):
        run(masks, 'pet')
    assert files_below(tmp_path / 'out') == before
    run(masks, 'pet', force=True)
    assert not (tmp_path / 'out/labels').exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['images', 'masks', 'out']

    (tmp_path / 'out/notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='out exists'):
        run(masks, 'pet', force=True)
    assert (tmp_path / 'out/notes.txt').read_text() == 'mine'


@pytest.mark.parametrize('content', [['photo.jpg'], ['data.yml'], ['images/photo.jpg']])
def test_force_keeps_other_folders(run, masks, tmp_path, content):
    for name in content:
        (tmp_path / 'out' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'out' / name).write_text('things: [cat]')
    with pytest.raises(ValueError, match='out exists'):
        run(masks, 'pet', force=True)
    assert files_below(tmp_path / 'out') == content


def test_output_and_inputs_are_apart(images, masks):
    for out in (images, images / 'out', images.parent):
        with pytest.raises(ValueError, match=f'--out {out}'):
            prepare(find_sources(images, masks), out, Options(('pet',)), force=True)


def test_copies_where_links_fail(run, masks, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError('no links')

    monkeypatch.setattr('os.link', refuse)
    run(masks, 'pet')
    copies = list((tmp_path / 'out/images').rglob('*.jpg'))
    assert len(copies) == 5
    assert all(path.stat().st_nlink == 1 for path in copies)


def test_links_lead_to_the_file_itself(run, masks, images, tmp_path):
    original = tmp_path / 'elsewhere.jpg'
    (images / 'photo0.jpg').rename(original)
    (images / 'photo0.jpg').symlink_to(original)
    run(masks, 'pet')
    found = next((tmp_path / 'out/images').rglob('photo0.jpg'))
    assert found.samefile(original) and not found.is_symlink()
