"""Build steps beyond what pyproject.toml can say: the resources for ``mim``, and a clone that stays clean.

``mim`` looks for ``configs/``, ``tools/`` and ``model-index.yml`` beside the installed package. In an editable
installation it takes those of the clone; a wheel has to bring copies. They are made in the build folder only, and that
folder is kept out of the clone: a second copy of a config below it would make the config's name ambiguous for ``mim``.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build as _build
from setuptools.command.build_py import build_py as _build_py
from setuptools.command.egg_info import egg_info as _egg_info

ROOT = Path(__file__).resolve().parent
RESOURCES = ('configs', 'tools', 'model-index.yml')
# openmim looks into '.mim' in the package; onedl-mim into the top folder of the first file of the installed RECORD,
# which is sorted: the leading '+' puts this folder first, even before the console script, '../../../bin/knet'.
RESOURCE_FOLDERS = ('knet_plugin/.mim', '+knet_plugin_mim')


def temporary_folder() -> str:
    """A folder that is removed when the build ends."""
    folder = tempfile.mkdtemp(prefix='knet_plugin-build-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class BuildOutsideTheClone(_build):
    """``build`` in a temporary folder."""

    def initialize_options(self) -> None:
        """Choose the folder."""
        super().initialize_options()
        self.build_base = temporary_folder()


class MetadataOutsideTheClone(_egg_info):
    """``egg_info`` in a temporary folder, but for a source distribution, which contains it."""

    def initialize_options(self) -> None:
        """Choose the folder."""
        super().initialize_options()
        if 'sdist' not in self.distribution.commands:
            self.egg_base = temporary_folder()


class BuildWithResources(_build_py):
    """``build_py``, and the copies of the resources."""

    def run(self) -> None:
        """Build the modules, then copy the resources beside them."""
        super().run()
        if not getattr(self, 'editable_mode', False):
            for source, target in self.resource_files():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))

    def resource_files(self) -> list:
        """Pairs of a file in the clone and its copy in the build folder."""
        files = []
        for name in RESOURCES:
            path = ROOT / name
            found = [path] if path.is_file() else sorted(path.rglob('*'))
            files += [file for file in found if file.is_file() and '__pycache__' not in file.parts]
        return [(file, Path(self.build_lib, folder, file.relative_to(ROOT)))
                for folder in RESOURCE_FOLDERS for file in files]

    def get_outputs(self, include_bytecode: bool = True) -> list:
        """All files that the build makes, as setuptools asks for them."""
        outputs = super().get_outputs(include_bytecode)
        if not getattr(self, 'editable_mode', False):
            outputs += [str(target) for _, target in self.resource_files()]
        return outputs


setup(cmdclass={'build': BuildOutsideTheClone, 'build_py': BuildWithResources, 'egg_info': MetadataOutsideTheClone})
