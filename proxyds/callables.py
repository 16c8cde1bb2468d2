"""Python code that a program hands over: factories of networks, trainers. A recipe holds its sha256, workers get it pickled.

Nothing is ever unpickled from a file: whoever builds again from a recipe hands the code over again.
"""

from __future__ import annotations

import dis
import hashlib
import io
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from proxyds.errors import CallableError
from proxyds.text import first_line

_UNTOLD = ("torch", "cloudpickle", "proxyds")
"""Packages whose versions say nothing of the code: results depend on them in any case."""
_UNCOUNTED = (
    "__dict__",
    "__weakref__",
    "__module__",
    "__qualname__",
    "__firstlineno__",
    "__static_attributes__",
    "_abc_impl",
)
"""What a class has besides its code."""

_PICKLED: dict[str, bytes] = {}


def hand_over(value: object, where: str) -> str:
    """Keeps a value for this process and its workers.

    Args:
        value: A function, a class, a `functools.partial`, or anything else that pickles; what stands in `__main__` or a notebook goes by
            value.
        where: What it is, for messages, such as `space: net-a`.

    Returns:
        Its identity, see `identify_code`.

    Raises:
        CallableError: It does not pickle, or cannot be read from its pickle again.
    """
    identity = identify_code(value, where)
    with _explaining(where):
        pickled = cloudpickle.dumps(value)
        pickle.loads(pickled)  # noqa: S301 - written in the line before
    _PICKLED[identity] = pickled
    return identity


def take_over(identity: str, missing: str) -> Any:
    """Returns a copy of a value that was handed over; raises `CallableError` with the message `missing` where none was."""
    if identity not in _PICKLED:
        raise CallableError(missing)
    return pickle.loads(_PICKLED[identity])  # noqa: S301 - pickled by this program


def list_handed_over() -> dict[str, bytes]:
    """Returns everything that was handed over, pickled, by identity: for a worker that must know it too."""
    return dict(_PICKLED)


def receive(pickled: Mapping[str, bytes]) -> None:
    """Takes what `list_handed_over` of the main process returned."""
    _PICKLED.update(pickled)


def identify_code(value: object, where: str) -> str:
    """Identifies a value by the code that it runs: the same in another session, from another file, on another line.

    Code in `__main__` or a notebook counts by its instructions, constants, closure and the globals that it uses; what is imported, by name
    and by the version of its package, or by the content of its files where no version is known or the package is being edited.

    Args:
        value: See `hand_over`.
        where: What it is, for messages.

    Returns:
        A sha256 in hexadecimal.

    Raises:
        CallableError: It does not pickle.
    """
    stream = io.BytesIO()
    pickler = _CodePickler(stream)
    with _explaining(where):
        pickler.dump(value)
    content = hashlib.sha256(stream.getvalue())
    for module in sorted(pickler.modules):
        content.update(f"{module} {_identify_package(module)}\n".encode())
    return content.hexdigest()


def hash_files(module: str) -> str:
    """Returns the sha256 of a module's file, or of all files of its package, in hexadecimal; of nothing where there are no files."""
    top = sys.modules[module.partition(".")[0]]
    files = [file for folder in getattr(top, "__path__", []) for file in sorted(Path(folder).rglob("*.py"))]
    if not hasattr(top, "__path__") and getattr(top, "__file__", None):
        files = [Path(str(top.__file__))]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


class _CodePickler(pickle.Pickler):
    """Pickles what `identify_code` counts; nothing can read it.

    Without memo: whether two equal texts are one object differs from one session to the next.

    Attributes:
        modules: That imported code comes from.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self.fast = True
        self.modules: set[str] = set()
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        """Says what counts of a value; None for all that its pickle holds."""
        match value:
            case set() | frozenset():
                return "set", sorted(map(repr, value))
            case CodeType():
                arguments = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
                names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
                return "code", value.co_code, value.co_consts, names, arguments
            case ModuleType():
                self.modules.add(value.__name__)
                return "module", value.__name__
            case staticmethod() | classmethod():
                return type(value).__name__, value.__func__
            case property():
                return "property", value.fget, value.fset, value.fdel
            case FunctionType() | type():
                if _is_imported(value):
                    self.modules.add(value.__module__)
                    return "imported", value.__module__, value.__qualname__
                n_before = len(self._numbers)
                number = self._numbers.setdefault(id(value), n_before)
                if number < n_before:
                    return "again", number
                return _list_parts(value) if isinstance(value, FunctionType) else _list_members(value)
        return None


def _is_imported(value: Any) -> bool:
    """Says whether a function or class is found in a module under its own name."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _list_parts(function: FunctionType) -> tuple[Any, ...]:
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    used = [(name, function.__globals__[name]) for name in sorted(names & function.__globals__.keys())]
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    return "function", function.__code__, function.__defaults__, function.__kwdefaults__, closure, used


def _list_members(kind: type) -> tuple[Any, ...]:
    members = [(name, value) for name, value in sorted(vars(kind).items()) if name not in _UNCOUNTED]
    return "class", kind.__name__, kind.__bases__, members


@cache
def _identify_package(module: str) -> str:
    """Returns the version of a module's package; the sha256 of its files where it is not installed."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in _UNTOLD:
        return ""
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    if "site-packages" in Path(file).parts and (owners := packages_distributions().get(top)):
        return version(owners[0])
    return hash_files(module)


@contextmanager
def _explaining(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CallableError(
            f"{where}: must be code that can be copied to other processes, pickling it says {type(error).__name__}: "
            f"{first_line(error)}; open files, locks and generators cannot: make them where they are used"
        ) from error
