"""Finding a backend by name: the ones that come with mtbench, entry points, and a file of one's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mtbench.backend import Backend
from mtbench.errors import BackendFailure, BadInput, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "BUILTIN_BACKENDS",
    "ENTRY_POINT_GROUP",
    "PEERS",
    "SPREAD",
    "backend_names",
    "entry_point_module",
    "import_part",
    "load_backend",
]

ENTRY_POINT_GROUP = "mtbench.backends"

BUILTIN_BACKENDS = {
    "torch-eager": "backends.torch_eager",
    "torch-compile": "backends.torch_compile",
    "triton": "backends.triton",
    "jax": "backends.jax",
    "jax-pallas": "backends.pallas",
    "native": "backends.native",
    "torch-distributed": "backends.distributed",
    "jax-distributed": "backends.jax_distributed",
    "sdpa": "backends.peers.sdpa",
    "fla": "backends.peers.fla",
    "flash-attn": "backends.peers.flash_attn",
}
"""The backends that come with mtbench, and the module of each."""

PEERS = frozenset({"sdpa", "fla", "flash-attn"})
"""Those of others' kernels, which a sweep has where they are asked for."""


SPREAD = frozenset({"torch-distributed", "jax-distributed"})
"""Those over several devices, which a sweep has where they are asked for, or a world_size above 1 is; then
it has no others."""


def import_part(name: str) -> ModuleType:
    """Import a module of mtbench's own top-level packages, ``backends`` or ``reports``.

    In a checkout they lie beside the package ``mtbench``; a wheel carries them inside it, so that it puts
    no folder of such a plain name into site-packages. Either is found from where ``mtbench`` itself lies
    and never through ``sys.path``: the folder one works in may well have a ``reports`` of its own.

    Raises:
        BackendFailure: another package of that name is already imported in this process.
    """
    import mtbench

    package = name.partition(".")[0]
    home = Path(mtbench.__file__).parent
    if (home / "_parts" / package).is_dir():
        return importlib.import_module(f"mtbench._parts.{name}")
    folder = home.parent / package
    loaded = sys.modules.get(package)
    if loaded is None:
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise BackendFailure(f"mtbench's own package {package!r} is missing from {folder}")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[package] = loaded
        spec.loader.exec_module(loaded)
    elif [str(folder)] != list(getattr(loaded, "__path__", [])):
        raise BackendFailure(
            f"a package named {package!r} from {getattr(loaded, '__file__', '?')} is already imported "
            "and hides mtbench's own: install mtbench instead of running it from its checkout"
        )
    return importlib.import_module(name)


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # not on the way of `mtbench --help`

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def entry_point_module(name: str) -> str | None:
    """The module that an installed package's backend of that name lies in, or None."""
    point = _entry_points().get(name)
    return None if point is None else point.module


def backend_names() -> list[str]:
    """The backends known by name: mtbench's own, then those of installed packages."""
    return [*BUILTIN_BACKENDS, *(name for name in _entry_points() if name not in BUILTIN_BACKENDS)]


def load_backend(name: str, *, beside: Sequence[str] = ()) -> Backend:
    """The backend of that name, or the ``BACKEND`` of a Python file (``./mine.py``). Loads no framework
    unless a user's own module does.

    Args:
        name: as it was asked for.
        beside: what else may be asked for there, and is none: told with the known names.

    Raises:
        BadInput: an unknown name, with the nearest known ones, or a file that is not there.
        BackendFailure: the module fails to import or has no BACKEND.
    """
    if name in BUILTIN_BACKENDS:
        found: object = import_part(BUILTIN_BACKENDS[name]).BACKEND
    elif name.endswith(".py"):
        found = _from_file(Path(name))
    elif name in (points := _entry_points()):
        try:
            found = points[name].load()
        except Exception as error:
            raise BackendFailure(
                f"backend {name!r} ({points[name].value}) cannot be loaded: {error!r}"
            ) from error
    else:
        known = nearest(name, (*beside, *backend_names()))
        raise BadInput(f"unknown backend {name!r}: {known}, or a file such as ./mine.py")
    if not isinstance(found, Backend):
        raise BackendFailure(f"backend {name!r}: its BACKEND is {found!r}, not a Backend")
    return found


def _from_file(path: Path) -> object:
    path = path.resolve()
    if not path.is_file():
        raise BadInput(f"backend file {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"mtbench_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"backend file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # What lies beside it can be imported, as when the file is run, but never hides an installed package.
    sys.path.append(str(path.parent))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BackendFailure(f"backend file {path} cannot be loaded: {error!r}") from error
    if not hasattr(module, "BACKEND"):
        raise BackendFailure(f"backend file {path} has no BACKEND")
    return module.BACKEND
