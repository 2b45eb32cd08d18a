"""``data.yml``, which describes a prepared folder.

::

    data.yml
    images/{train,val}/...                                  subfolders as in the source
    annotations/instances_{train,val}.json                  COCO, if there are things
    annotations/panoptic_{train,val}.json + _{train,val}/   COCO panoptic and its PNGs, if there are things and stuff
    labels/{train,val}/NAME.png                             label maps, 255 is ignored, if there is stuff
    samples/*.jpg                                           annotated images

Category ids are 1..K in the order of ``classes``, labels are 0..K-1. ``file_name`` of an image is relative to
``images/train``, that of a panoptic PNG to ``annotations/panoptic_train``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ['DATA_FILE', 'SPLITS', 'TASKS', 'DataDescription']

DATA_FILE = 'data.yml'
SPLITS = ('train', 'val')
TASKS = ('panoptic', 'instance', 'semantic')


@dataclass(frozen=True)
class DataDescription:
    """What a prepared folder holds.

    Attributes:
        root: Absolute folder of ``data.yml``.
        task: Default task: 'panoptic', 'instance' or 'semantic'.
        things: Classes of objects.
        stuff: Classes of regions without objects.

    Raises:
        ValueError: A field is wrong; the message names file, field and value.
    """

    root: Path
    task: str
    things: tuple[str, ...]
    stuff: tuple[str, ...]

    def __post_init__(self):
        if not self.classes:
            raise ValueError(f'{self.path}: things and stuff are empty; name at least one class')
        if repeated := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise ValueError(f'{self.path}: things and stuff name {", ".join(map(repr, repeated))} more than once')
        if self.task not in self.tasks:
            raise ValueError(f'{self.path}: task is {self.task!r}, but this data can train: {", ".join(self.tasks)}')

    @property
    def path(self) -> Path:
        """The file ``data.yml``."""
        return self.root / DATA_FILE

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes; the index of a class is its label."""
        return self.things + self.stuff

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the data can train: panoptic needs things and stuff, instance things, semantic stuff.

        Without stuff, most pixels have no class, and there are no label maps.
        """
        possible = {'panoptic': self.things and self.stuff, 'instance': self.things, 'semantic': self.stuff}
        return tuple(task for task in TASKS if possible[task])

    def metainfo(self, task: str) -> dict[str, Any]:
        """``metainfo`` of a data set for ``task``, of lists only, as configs need it.

        A class has the same colour in every task.
        """
        from knet_plugin.visualization.colours import palette

        if task not in self.tasks:
            raise ValueError(f'{self.path}: task is {task!r}, but this data can train: {", ".join(self.tasks)}')
        classes = self.things if task == 'instance' else self.classes
        colours = [list(colour) for colour in palette(len(self.classes))]
        info: dict[str, Any] = dict(classes=list(classes), palette=colours[:len(classes)])
        if task == 'panoptic':
            info.update(thing_classes=list(self.things), stuff_classes=list(self.stuff))
        return info

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> DataDescription:
        """Read ``path``, a prepared folder or its ``data.yml``.

        Raises:
            ValueError: There is no such file, it is no YAML, or a field is missing, unknown or wrong.
        """
        file = Path(path)
        file = (file / DATA_FILE if file.is_dir() else file).absolute()
        try:
            fields = yaml.safe_load(file.read_text(encoding='utf-8'))
        except OSError:
            raise ValueError(f'{file}: no such file; make one with: knet data prepare') from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f'{file}: not readable as YAML: {" ".join(str(error).split())}') from None
        names = ('task', 'things', 'stuff')
        if not isinstance(fields, dict) or set(fields) != set(names):
            found = sorted(map(str, fields)) if isinstance(fields, dict) else repr(fields)[:80]
            raise ValueError(f'{file}: needs the fields {", ".join(names)}, got {found}')
        for name in names[1:]:
            values = fields[name]
            if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
                raise ValueError(f'{file}: {name} must be a list of names, got {values!r}')
        return cls(file.parent, fields['task'], tuple(fields['things']), tuple(fields['stuff']))

    def write(self) -> None:
        """Write ``data.yml`` into ``root``, which exists."""
        fields = dict(task=self.task, things=list(self.things), stuff=list(self.stuff))
        comment = '# Made by knet data prepare. The order of the classes is that of the labels in all files.\n'
        self.path.write_text(comment + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True), encoding='utf-8')
