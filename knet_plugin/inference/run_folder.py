"""Finds the config and the checkpoint of a run."""

from pathlib import Path
from typing import Any

__all__ = ['RunError', 'find_run', 'find_weights', 'images_of_run']

_SUFFIXES = ('.pth', '.pt')  # of checkpoints


class RunError(ValueError):
    """A config or a checkpoint of a run is missing; the message names the folder."""


def find_run(run: str | Path, checkpoint: str | Path | None = None) -> tuple[Path, Path]:
    """Find the config and the best checkpoint of a run.

    The best checkpoint is the newest ``best_*.pth``. A run without one has the checkpoint that ``last_checkpoint``
    names, or the newest file.

    Args:
        run: Work folder of a training, or the path or name of a config.
        checkpoint: Checkpoint to take instead; a config that is outside a work folder needs it.

    Raises:
        RunError: There is no such config or checkpoint.
    """
    path = Path(run).expanduser()
    given = Path(checkpoint).expanduser() if checkpoint else None
    if given and not given.is_file():
        raise RunError(f'there is no checkpoint {given}')
    if path.is_dir():
        return _config_in(path), given or _checkpoint_in(path)
    if path.suffix in _SUFFIXES:
        if given:
            raise RunError(f'{path} and {given} are both checkpoints; give a config or a work folder first')
        if not path.is_file():
            raise RunError(f'there is no checkpoint {path}')
        return _config_in(path.parent), path
    from knet_plugin.cli import ResourceError, resolve_config  # here, because the command line is the outer layer

    try:
        config = resolve_config(path)
    except ResourceError as error:
        raise RunError(f'{path} is neither a work folder nor a config: {error}') from error
    if given:
        return config, given
    folder = config.parent if _checkpoints(config.parent) else config.with_suffix('')
    if not folder.is_dir():
        raise RunError(f'{config}: no checkpoint is given, none is published, and there is no work folder {folder}')
    return config, _checkpoint_in(folder)


def find_weights(run: str | Path, checkpoint: str | Path | None = None) -> tuple[Path, str]:
    """Find config and checkpoint as ``find_run`` does; the latter may also be a URL.

    The name of one of our configs stands for its published weights.
    """
    from knet_plugin.cli import resolve_config

    if checkpoint is not None and '://' in str(checkpoint):
        return resolve_config(run), str(checkpoint)
    if checkpoint is None and not Path(run).exists() and (url := _published(Path(run).name.removesuffix('.py'))):
        return resolve_config(run), url
    config, path = find_run(run, checkpoint)
    return config, str(path)


def images_of_run(cfg: Any, loader: str, limit: int) -> list[Path]:
    """Paths of images that a config reads.

    Args:
        cfg: The config.
        loader: For example 'train_dataloader'.
        limit: The most images, spread over the data set.

    Raises:
        RunError: The config has no such loader, or its data are not there.
    """
    from mmengine.registry import DATASETS, DefaultScope  # here, because exported models run without the hosts

    from knet_plugin.datasets.config_parts import plain_datasets

    paths: list[Path] = []
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            for plain in plain_datasets(cfg[loader].dataset):
                built = DATASETS.build(dict(plain, pipeline=[]))
                paths += [Path(built.get_data_info(index)['img_path']) for index in range(len(built))]
    except (AssertionError, AttributeError, KeyError, OSError) as error:  # the hosts have many kinds
        raise RunError(f'the images of {loader} cannot be found ({type(error).__name__}: {error})') from error
    if not paths:
        raise RunError(f'{loader} has no images')
    return paths[::max(1, len(paths) // limit)][:limit]


def _published(name: str) -> str | None:
    """Return the URL of the weights of one of our configs, if there are any."""
    import yaml  # here, because exported models run without it

    from knet_plugin.cli import resource_root

    root = resource_root()
    files = yaml.safe_load((root / 'model-index.yml').read_text())['Import']
    models = (model for file in files for model in yaml.safe_load((root / file).read_text())['Models'])
    urls = (model.get('Weights', '/') for model in models if model['Name'] == name)
    return next((url for url in urls if not url.endswith('/')), None)


def _config_in(folder: Path) -> Path:
    """Return the config that mmengine dumped into a work folder; the newest, if a run wrote several."""
    configs = sorted(folder.glob('*.py'), key=_age)
    if not configs:
        inside = sorted({file.parent.name for file in folder.glob('*/*.py')})
        hint = f'; did you mean {", ".join(str(folder / name) for name in inside[:5])}?' if inside else ''
        raise RunError(f'{folder} holds no config (*.py), so it is no work folder of a training{hint}')
    return configs[-1]


def _checkpoint_in(folder: Path) -> Path:
    files = _checkpoints(folder)
    best = [file for file in files if file.name.startswith('best_')]
    if best:
        return best[-1]
    note = folder / 'last_checkpoint'
    if note.is_file():
        named = Path(note.read_text().strip())
        for candidate in (named, folder / named.name):  # the folder may have moved
            if candidate.is_file():
                return candidate
    if not files:
        raise RunError(f'{folder} holds no checkpoint (*.pth): has the training saved one?')
    return files[-1]


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob('*.pt*') if file.suffix in _SUFFIXES), key=_age)


def _age(file: Path) -> tuple[int, str]:
    return file.stat().st_mtime_ns, file.name
