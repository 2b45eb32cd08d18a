"""Finding the checkpoint from which an interrupted training goes on."""

import os
from pathlib import Path

import torch

from knet_plugin.checkpoint.reading import CheckpointError, read_checkpoint
from knet_plugin.compat import release

__all__ = ['find_checkpoint']


def find_checkpoint(work_dir: str | Path, *folders: str | Path) -> tuple[str | None, list[str]]:
    """Find the newest whole training checkpoint.

    That is the one named in ``last_checkpoint``, which mmengine writes after each saving, or a later one: the run may
    have been interrupted between the two. If the named one is damaged or gone, the latest file counts.

    Args:
        work_dir: Folder of the run.
        folders: Where else its checkpoints may be.

    Returns:
        Path of the checkpoint, None if there are no checkpoints; and a line for each file that was passed over, because
        it is damaged or missing.

    Raises:
        CheckpointError: There are checkpoints, but none that can be resumed.
    """
    note = Path(work_dir, 'last_checkpoint')
    named = note.read_text().strip() if note.is_file() else ''
    if '://' in named or (named and Path(named).is_dir()):
        return named, []  # another storage, or the folder of a sharded checkpoint: for mmengine to judge
    passed_over: list[str] = []
    reached = None
    if named:
        reached = _iteration(Path(named), passed_over, needs_optimizer=False)
    files = {file for folder in (work_dir, *folders) for file in Path(os.path.abspath(folder)).glob('*.pth')}
    files |= {Path(named)} if reached is not None else set()
    for file in sorted(files, key=lambda each: (each.stat().st_mtime_ns, each.name), reverse=True):
        if named and file.resolve() == Path(named).resolve():
            if reached is not None:
                break
            continue
        iteration = _iteration(file, passed_over, needs_optimizer=True)
        # Copying a folder may mix up the times of its files: the one that is named counts, unless another is further.
        if iteration is not None and (reached is None or iteration > reached):
            return str(file), passed_over
    if reached is not None:
        return named, passed_over
    if passed_over:
        raise CheckpointError(f'no checkpoint in {work_dir} can be resumed:\n  ' + '\n  '.join(passed_over))
    return None, []


def _iteration(path: Path, passed_over: list[str], needs_optimizer: bool) -> int | None:
    """How far the training of a checkpoint had come.

    Args:
        path: File that may be a checkpoint.
        passed_over: Gets the reason, if the file is damaged or missing.
        needs_optimizer: Whether a file without the optimizer's state, such as that of the best model, is none.

    Returns:
        The number of iterations; None for files of another kind, and for damaged ones.
    """
    try:
        # An older torch has no way to allow the few classes that mmengine keeps in a checkpoint, so mmengine, which is
        # to resume from the file, reads it without a check, too.
        content = read_checkpoint(path, trust=True if release(torch.__version__) < (2, 6) else None)
    except (CheckpointError, OSError) as error:
        passed_over.append(str(error))
        return None
    meta = content.get('meta')
    if not isinstance(meta, dict) or (needs_optimizer and 'optimizer' not in content):
        return None
    return meta.get('iter')
