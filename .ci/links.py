"""Check that every relative link of the pages leads to a file of the repository."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r'\]\(([^)#\s]+)(?:#[^)]*)?\)')


def broken_links(page: Path) -> list[str]:
    """Links of a Markdown page whose target is missing."""
    targets = [target for target in LINK.findall(page.read_text()) if '://' not in target]
    return [target for target in targets if not (page.parent / target).exists()]


def main() -> None:
    """Print the broken links; exit with status 1 if there are any."""
    pages = [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')]
    found = [f'{page.relative_to(ROOT)}: {target}' for page in pages for target in broken_links(page)]
    print('\n'.join(found) or f'{len(pages)} pages, no broken link')
    sys.exit(bool(found))


if __name__ == '__main__':
    main()
