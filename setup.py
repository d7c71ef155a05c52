"""Build hooks: a built package holds its commit and digest, and the files outside of the packages that commands read."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from benchmark.installation.paths import BUILD_FILE, PACKAGES, SHIPPED_FILES, SHIPPED_FOLDER  # noqa: E402
from benchmark.installation.source_state import make_build_record, write_build_record  # noqa: E402


class BuildPy(build_py):
    """Copies the packages, then adds what `benchmark.installation` describes; an editable install gets neither."""

    def run(self) -> None:
        """See `setuptools.Command`."""
        if self.editable_mode:
            super().run()
            return
        packed = Path(self.build_lib)
        for package in PACKAGES:
            # What an earlier build left would be packed too.
            shutil.rmtree(packed / package, ignore_errors=True)
        super().run()
        for name in SHIPPED_FILES:
            target = packed / SHIPPED_FOLDER / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        write_build_record(make_build_record(ROOT, packed), packed)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """See `setuptools.command.build_py`."""
        outputs: list[str] = super().get_outputs(include_bytecode)
        if self.editable_mode:
            return outputs
        shipped = [f"{SHIPPED_FOLDER}/{name}" for name in SHIPPED_FILES]
        return [*outputs, *(str(Path(self.build_lib, name)) for name in (BUILD_FILE, *shipped))]


class SourceDistribution(sdist):
    """Adds the record of the commit, since a source distribution holds no git checkout."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """See `setuptools.command.sdist`."""
        super().make_release_tree(base_dir, files)
        packed = Path(base_dir)
        write_build_record(make_build_record(ROOT, packed), packed)


setup(cmdclass={"build_py": BuildPy, "sdist": SourceDistribution})
