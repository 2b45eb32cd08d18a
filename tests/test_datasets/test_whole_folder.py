"""A folder appears whole, and no file that appeared meanwhile is lost."""

import pytest

from knet_plugin.datasets.whole_folder import whole_folder


@pytest.mark.parametrize('replace', [False, True])
@pytest.mark.parametrize('there', [None, 'empty', 'files'])
def test_folder_filled_meanwhile(tmp_path, replace, there):
    folder = tmp_path / 'parent/data'

    def work() -> None:
        with whole_folder(folder, replace) as draft:
            (draft / 'new').touch()
            if there:
                folder.mkdir()
            if there == 'files':
                (folder / 'old').touch()

    if there == 'files' and not replace:
        with pytest.raises(FileExistsError, match=str(folder)):
            work()
        expected = 'old'
    else:
        work()
        expected = 'new'
    assert [path.name for path in folder.iterdir()] == [expected]
    assert list(folder.parent.iterdir()) == [folder]
