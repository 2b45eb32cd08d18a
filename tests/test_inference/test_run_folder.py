"""Which files a run consists of."""

import os

import pytest

from knet_plugin.inference.run_folder import RunError, find_run, find_weights

CONFIG = 'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512'


def run(folder, *names):
    """A folder with empty files, each newer than those before."""
    folder.mkdir(exist_ok=True)
    for age, name in enumerate(names):
        (folder / name).touch()
        os.utime(folder / name, (1000 + age, 1000 + age))
    return folder


@pytest.mark.parametrize('files, expected', [
    (['c.py', 'best_PQ_iter_5.pth', 'best_PQ_iter_9.pth', 'iter_20.pth'], 'best_PQ_iter_9.pth'),
    (['c.py', 'iter_100.pth', 'iter_20.pth'], 'iter_20.pth'),
    (['epoch_1.pth', 'c.py'], 'epoch_1.pth'),
])
def test_best_or_else_latest_checkpoint(files, expected, tmp_path):
    folder = run(tmp_path, *files)
    assert find_run(folder) == find_run(folder / 'c.py') == (folder / 'c.py', folder / expected)
    assert find_run(folder / expected) == (folder / 'c.py', folder / expected)


def test_last_checkpoint_names_the_latest_even_after_a_move(tmp_path):
    folder = run(tmp_path, 'c.py', 'iter_1.pth', 'iter_2.pth')
    (folder / 'last_checkpoint').write_text('/moved/away/iter_1.pth')
    assert find_run(folder)[1].name == 'iter_1.pth'
    (folder / 'last_checkpoint').write_text('/moved/away/iter_7.pth')
    assert find_run(folder)[1].name == 'iter_2.pth'


def test_config_beside_its_work_folder(tmp_path):
    folder = run(tmp_path / 'ped', 'ped.py', 'iter_1.pth')
    (tmp_path / 'ped.py').touch()
    assert find_run(tmp_path / 'ped.py') == (tmp_path / 'ped.py', folder / 'iter_1.pth')


def test_checkpoint_of_ones_own(tmp_path):
    folder = run(tmp_path, 'c.py', 'best_x.pth', 'iter_1.pth')
    assert find_run(folder, folder / 'iter_1.pth') == (folder / 'c.py', folder / 'iter_1.pth')
    config, checkpoint = find_run(CONFIG, folder / 'iter_1.pth')
    assert config.stem == CONFIG and checkpoint == folder / 'iter_1.pth'


def test_names_and_urls(tmp_path):
    config, weights = find_weights(CONFIG)
    assert config.stem == CONFIG and weights.startswith('https://') and weights.endswith('.pth')
    assert find_weights(CONFIG, 'https://x/y.pth')[1] == 'https://x/y.pth'
    assert find_weights(run(tmp_path, 'c.py', 'a.pth'))[1] == str(tmp_path / 'a.pth')


@pytest.mark.parametrize('files, name, checkpoint, missing', [
    (['a.pth'], '', None, r'no config'),
    (['c.py'], '', None, r'no checkpoint'),
    (['c.py', 'a.pth'], '', 'b.pth', r'b\.pth'),
    ([], 'nowhere', None, 'nowhere'),
    ([], 'nowhere.py', None, r'nowhere\.py'),
    (['a.pth', 'c.py'], 'a.pth', 'a.pth', r'a\.pth'),
])
def test_what_is_missing_is_named(files, name, checkpoint, missing, tmp_path):
    folder = run(tmp_path, *files)
    with pytest.raises(RunError, match=missing) as caught:
        find_run(folder / name, checkpoint and folder / checkpoint)
    assert str(folder) in str(caught.value)


def test_folder_of_runs_lists_them(tmp_path):
    run(tmp_path / 'ped', 'c.py', 'a.pth')
    with pytest.raises(RunError, match='ped'):
        find_run(tmp_path)
