"""Finds the checkpoint from which an interrupted training continues."""

import os
from pathlib import Path

import torch

from knet_plugin.checkpoint.reading import CheckpointError, read_checkpoint
from knet_plugin.compat import release

__all__ = ['find_checkpoint']


def find_checkpoint(work_dir: str | Path, *folders: str | Path) -> tuple[str | None, list[str]]:
    """Find the latest intact training checkpoint.

    mmengine writes the name of a checkpoint to ``last_checkpoint`` after saving it. That checkpoint is chosen, unless a
    file written later has more iterations: a run can be killed between the two. If the named file is damaged or
    missing, the last intact file is chosen. ``folders`` are further folders with checkpoints of the run.

    Returns:
        Path of the checkpoint, ``None`` if there is none; and one line for each damaged or missing file.

    Raises:
        CheckpointError: There are checkpoints, but all of them are damaged.
    """
    note = Path(work_dir, 'last_checkpoint')
    named = note.read_text().strip() if note.is_file() else ''
    if '://' in named or (named and Path(named).is_dir()):
        return named, []  # remote storage or a sharded checkpoint: mmengine's
    problems: list[str] = []
    reached = _iteration(Path(named), problems) if named else None
    files = {file for folder in (work_dir, *folders) for file in Path(os.path.abspath(folder)).glob('*.pth')}
    for file in sorted(files, key=lambda each: (each.stat().st_mtime_ns, each.name), reverse=True):
        if named and file.resolve() == Path(named).resolve():
            if reached is not None:
                break
            continue
        iteration = _iteration(file, problems, needs_optimizer=True)
        if iteration is not None and (reached is None or iteration > reached):
            return str(file), problems
    if reached is not None:
        return named, problems
    if problems:
        raise CheckpointError(f'no checkpoint in {work_dir} can be resumed:\n  ' + '\n  '.join(problems))
    return None, []


def _iteration(path: Path, problems: list[str], needs_optimizer: bool = False) -> int | None:
    """Return the iteration of a training checkpoint.

    ``None`` for a damaged file, which adds a problem, or another kind: that of a best model has no optimizer.
    """
    try:
        # With an older torch, mmengine itself will load the file without protection.
        content = read_checkpoint(path, trust=True if release(torch.__version__) < (2, 6) else None)
    except (CheckpointError, OSError) as error:
        problems.append(str(error))
        return None
    meta = content.get('meta')
    if isinstance(meta, dict) and ('optimizer' in content or not needs_optimizer):
        return meta.get('iter')
    return None
