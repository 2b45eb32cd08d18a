import pytest
from marked_page import check_marks, replace_between


def test_only_what_is_between_is_replaced(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('Before.\n<!-- a -->\nold\n<!-- b -->\nAfter.\n<!-- b -->\n')
    for text in ('one', '\ntwo\n\n'):
        replace_between(page, '<!-- a -->', '<!-- b -->', text)
        assert page.read_text() == f'Before.\n<!-- a -->\n\n{text.strip()}\n\n<!-- b -->\nAfter.\n<!-- b -->\n'


@pytest.mark.parametrize('text', ['no marks', '<!-- a -->\nkept', '<!-- b -->\n<!-- a -->\nkept', None])
def test_a_page_without_marks_is_left_alone(tmp_path, text):
    page = tmp_path / 'page.md'
    if text is not None:
        page.write_text(text)
    for function, arguments in ((check_marks, ()), (replace_between, ('new', ))):
        with pytest.raises(SystemExit, match="page.md must have the lines '<!-- a -->' and, below it, '<!-- b -->'"):
            function(page, '<!-- a -->', '<!-- b -->', *arguments)
    assert page.read_text() == text if text is not None else not page.exists()
