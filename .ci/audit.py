"""Look for unsafe code in the package and for known vulnerabilities in what it is installed with.

Run by `make audit`, in an environment that has bandit and pip-audit. Findings of bandit that are no fault are marked
where they stand, `# nosec` and why; advisories that do not concern us are listed in ACCEPTED, with the reason.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('requirements/*.txt'))

ACCEPTED: dict[str, str] = {}
"""Advisories by their identifier, each with the reason why it is no danger here."""

NO_ANSWER = r'Could not connect|not redirecting properly|^\S*(ConnectionError|Timeout)\b|interface\.ServiceError$'
"""Matches the last line of pip-audit when the registry does not answer."""


def look_at_code() -> bool:
    """Whether bandit finds nothing in the package and its scripts."""
    command = [sys.executable, '-m', 'bandit', '--quiet', '--configfile', 'pyproject.toml', '--recursive']
    return subprocess.run([*command, 'knet_plugin', 'tools', '.ci', 'setup.py'], cwd=ROOT).returncode == 0


def look_at_requirements(lock: str) -> bool:
    """Whether no advisory is known for the pinned packages of a file; without an answer, that is said.

    If pip-audit itself fails, for instance because it is not installed, nothing is known, which is a finding too.
    """
    accepted = [word for name in ACCEPTED for word in ('--ignore-vuln', name)]
    done = subprocess.run(
        [sys.executable, '-m', 'pip_audit', '-r', lock, '--no-deps', '--disable-pip', '--format', 'json',
         '--progress-spinner', 'off', '--timeout', '20', *accepted], cwd=ROOT, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)['dependencies']
    except (ValueError, KeyError, TypeError):
        reason = ([line for line in done.stderr.splitlines() if line.strip() and 'Tip: ' not in line]
                  or ['it said nothing'])[-1]
        if not re.search(NO_ANSWER, reason):
            print(f'{lock}: pip-audit FAILED with status {done.returncode}: {reason}')
            return False
        print(f'{lock}: NOT AUDITED, as pip-audit could not ask for advisories: {reason}')
        return True
    known = [package for package in packages if 'vulns' in package]
    skipped = len(packages) - len(known)
    print(f'{lock}: {len(known)} packages audited, {skipped} NOT, as the registry tells nothing of them')
    found = [(package, advisory) for package in known for advisory in package['vulns']]
    for package, advisory in found:
        fixed = ', '.join(advisory['fix_versions']) or 'no version'
        print(f'  {package["name"]} {package["version"]}: {advisory["id"]}, fixed in {fixed}')
    return not found


def main() -> int:
    """Look at everything, and fail if anything was found."""
    safe = look_at_code()
    print(f'bandit: {"nothing found" if safe else "see above"}')
    return 0 if all([safe, *map(look_at_requirements, LOCKS)]) else 1


if __name__ == '__main__':
    sys.exit(main())
