"""Lets mkdocs build the site: README and changelog become pages, and links that leave docs/ lead to the repository."""

import re
from os.path import relpath
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {'index.md': 'README.md', 'changelog.md': 'CHANGELOG.md'}
LINK = re.compile(r'\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s]+)\)')


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie at the root of the repository."""
    for name, source in PAGES.items():
        text = (ROOT / source).read_text(encoding='utf-8')
        files.append(File.generated(config, name, content=rewritten(text, ROOT, config.repo_url)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite the links of a page of docs/."""
    if page.file.src_uri in PAGES:
        return markdown
    return rewritten(markdown, ROOT / 'docs' / Path(page.file.src_uri).parent, config.repo_url)


def on_page_content(html: str, **_: Any) -> str:
    """Drop what marks code in docstrings; Markdown sees the indentation."""
    return html.replace('<p>::</p>', '').replace('::</p>', ':</p>')


def rewritten(text: str, folder: Path, repository: str | None) -> str:
    """Let links lead to pages of the site; to other files in the repository, or where that is unknown, nowhere."""
    start = ROOT / 'docs' if folder == ROOT else folder
    pages = {(ROOT / source).resolve(): name for name, source in PAGES.items()}

    def replace(link: re.Match) -> str:
        label, (target, _, anchor) = link[1], link[2].partition('#')
        anchor = f'#{anchor}' if anchor else ''
        path = (folder / target).resolve()
        if path in pages:
            return f'[{label}]({relpath(ROOT / "docs" / pages[path], start)}{anchor})'
        if path.is_relative_to(ROOT / 'docs') and path.is_file():
            return f'[{label}]({relpath(path, start)}{anchor})'
        if not path.exists():
            return link[0]  # mkdocs reports it
        return f'[{label}]({repository}/blob/main/{path.relative_to(ROOT)}{anchor})' if repository else label

    return LINK.sub(replace, text)
