"""Compiles the native CPU engine at install, where a C++ compiler is; everything else stands in pyproject.toml.

Without a compiler, or on another processor, the package installs without the engine, and `minet-sdk info` says so.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

_NATIVE = Path(__file__).resolve().parent / "kernels" / "native"


def _builder() -> ModuleType:
    """`kernels/native/build.py`, without the package around it: nothing is installed yet."""
    specification = importlib.util.spec_from_file_location("minet_native_build", _NATIVE / "build.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


_build = _builder()


class BuildNative(build_ext):
    """Calls the engine's own build instead of a compiler for extension modules: it is a plain shared library."""

    def build_extension(self, ext: Extension) -> None:
        """Compile, or say why not and go on without."""
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            _build.build_library(output)
        except _build.BuildError as error:
            # A library of older sources would pass for this one's.
            output.unlink(missing_ok=True)
            print(f"minet-sdk is installed without its native CPU engine: {error}", file=sys.stderr)

    def get_ext_filename(self, fullname: str) -> str:
        """The library has no Python version in its name: it knows nothing of Python."""
        return str(Path(*fullname.split(".")[:-1]) / _build.LIBRARY)

    def copy_extensions_to_source(self) -> None:
        """For an editable install; nothing to copy if nothing was compiled."""
        if Path(self.get_ext_fullpath(self.extensions[0].name)).is_file() or self.inplace:
            super().copy_extensions_to_source()


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3 on this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """As the library depends on the platform alone."""
        return "py3", "none", super().get_tag()[2]


def _extensions() -> list[Extension]:
    try:
        _build.compiler()
    except _build.BuildError as error:
        print(f"minet-sdk is installed without its native CPU engine: {error}", file=sys.stderr)
        return []
    # The sources are package data, so that they are in a source distribution too.
    return [Extension("minet_sdk.kernels.native.libminet", [])]


_found = _extensions()
setup(ext_modules=_found, cmdclass={"build_ext": BuildNative, **({"bdist_wheel": PlatformWheel} if _found else {})})
