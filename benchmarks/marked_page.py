"""Write the part of a page that lies between two marks."""

from pathlib import Path

__all__ = ['replace_between']


def replace_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two lines of a page.

    Raises:
        SystemExit: The page lacks a line.
    """
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f'error: {page} must have the lines {begin!r} and, below it, {end!r}')
    page.write_text(f'{before}{begin}\n\n{text.strip()}\n\n{end}{after}')
