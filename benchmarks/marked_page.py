"""The part of a page that a tool writes, between two marks."""

from pathlib import Path

__all__ = ['check_marks', 'replace_between']


def check_marks(page: Path, begin: str, end: str) -> None:
    """See that there is something to replace, before it takes time to make what comes in its place.

    Args:
        page: A Markdown file.
        begin: The line before the part.
        end: The line after it.

    Raises:
        SystemExit: There is no such page, or it does not have both lines, in this order.
    """
    text = page.read_text() if page.is_file() else ''
    if end not in text.partition(begin)[2]:
        raise SystemExit(f'error: {page} must have the lines {begin!r} and, below it, {end!r}')


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between the marks; arguments and errors as for ``check_marks``."""
    check_marks(page, begin, end)
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f'{before}{begin}\n\n{text.strip()}\n\n{end}{rest.partition(end)[2]}')
