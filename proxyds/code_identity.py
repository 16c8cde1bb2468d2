"""What Python code is: a sha256 that is the same in another session, from another file, on another line.

Code in `__main__` or a notebook counts by its instructions, constants, closure and the globals that it uses. Installed packages count by name
and version; the standard library and torch by name alone. Of other modules all files count, and those of the modules that they import.
Instructions are those of one version of Python: another minor version gives other identities.
"""

from __future__ import annotations

import dis
import hashlib
import io
import operator
import re
import sys
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import cloudpickle

from proxyds.errors import CallableError

_HASHED: dict[str, tuple[list[Any], str]] = {}
"""Local packages that were hashed: the specifications of their loaded modules, which a reload makes anew, and the sha256 of the files."""
_UNTOLD = {"torch", "cloudpickle", "proxyds"}
"""Packages whose versions say nothing of the code: results depend on them in any case."""
_UNCOUNTED = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__qualname__",
    "__doc__",
    "__annotations__",
    "__annotations_cache__",
    "__annotate_func__",
    "__firstlineno__",
    "__static_attributes__",
    "_abc_impl",
}
"""What a class has besides its code."""
_MADE_BY_PYTHON = 1 << 9
"""In a class's flags (Py_TPFLAGS_HEAPTYPE): others are the interpreter's, not all of which are found by name."""
_NO_WORK = {"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL"}
"""Instructions that only prepare others: a method of an imported module is called with more of them where the import is elsewhere."""
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([A-Za-z_][\w.]*)[ \t]+import\b|import[ \t]+([A-Za-z_][^#;\n]*))", re.MULTILINE
)
"""`from a.b import c`, but not from a dot; `import a, b as c`."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, tuple)
"""Whether two of these are one object differs from one session to the next."""


def hash_code(value: object) -> str:
    """Returns the sha256, in hexadecimal, of a function, a class, a `functools.partial`, or any value that pickles.

    Raises:
        CallableError: A local module that it uses has changed since it was imported.
        Exception: It does not pickle; the class is pickle's to choose.
    """
    stream = io.BytesIO()
    pickler = _CodePickler(stream)
    pickler.dump(value)
    content = hashlib.sha256(stream.getvalue())
    for origin in sorted(_list_origins(pickler.modules)):
        content.update(f"{origin}\n".encode())
    return content.hexdigest()


def hash_files(module: str) -> str:
    """Returns the sha256 of a module's file, or of all files of its package, in hexadecimal; of nothing where there are no files."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(file.read_bytes()).digest() for file in _list_files(module))
    ).hexdigest()


class _CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles what `hash_code` counts; nothing can read it.

    Without memo, since it would tell whether two equal texts are one object.

    Attributes:
        modules: That imported code comes from.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self.fast = True
        self.modules: set[str] = set()
        self._met: dict[int, tuple[int, object]] = {}  # the objects too, so that no other gets the id of one

    def persistent_id(self, value: Any) -> Any:
        """Says what counts of a value; None for all that its pickle holds."""
        if isinstance(value, ModuleType):
            self.modules.add(value.__name__)
            return "module", value.__name__
        if isinstance(value, FunctionType | type) and _is_imported(value):
            self.modules.add(value.__module__)
            return "imported", value.__module__, value.__qualname__
        if isinstance(value, _PLAIN):
            return None
        if isinstance(value, set | frozenset):
            return "set", sorted(map(hash_code, value))
        if isinstance(value, CodeType):
            self.modules |= _list_imports(value)
            return _list_code(value)
        if id(value) in self._met:
            return "again", self._met[id(value)][0]
        self._met[id(value)] = len(self._met), value
        return _list_parts(value)


def _is_imported(value: Any) -> bool:
    """Says whether a function or class is found in a module under its own name, or is a class in C."""
    if isinstance(value, type) and not value.__flags__ & _MADE_BY_PYTHON:
        return True
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _list_code(code: CodeType) -> tuple[Any, ...]:
    """Lists the instructions of code, without those that differ by what else is compiled with it, such as a cell or a whole script."""
    kept = [each for each in dis.get_instructions(code) if each.opname not in _NO_WORK]
    offsets = [each.offset for each in kept]

    def show(each: dis.Instruction) -> tuple[str, Any]:
        is_jump = each.opcode in dis.hasjrel or each.opcode in dis.hasjabs
        name = "LOAD_ATTR" if each.opname == "LOAD_METHOD" else each.opname
        return name, bisect_left(offsets, each.argval) if is_jump else each.argval

    entries: Any = getattr(dis.Bytecode(code), "exception_entries", ())
    caught = [
        (*(bisect_left(offsets, place) for place in (each.start, each.end, each.target)), each.depth)
        for each in entries
    ]
    names = code.co_varnames, code.co_freevars, code.co_cellvars
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return "code", list(map(show, kept)), caught, names, arguments


def _list_imports(code: CodeType) -> set[str]:
    """Lists the modules that code imports when it runs."""
    return {each.argval for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME" and each.argval}


def _list_parts(value: Any) -> Any:
    """Lists what counts of a value that is met for the first time; None for all that its pickle holds."""
    match value:
        case FunctionType():
            return _list_function(value)
        case type():
            members = [(name, member) for name, member in sorted(vars(value).items()) if name not in _UNCOUNTED]
            return "class", value.__name__, value.__bases__, members
        case staticmethod() | classmethod():
            return type(value).__name__, value.__func__
        case property():
            return "property", value.fget, value.fset, value.fdel
        case TypeVar():
            return "type variable", value.__name__
    if type(value).__name__ == "_lru_cache_wrapper":
        return "cached", value.__wrapped__
    torch = sys.modules.get("torch")
    return None if torch is None else _list_torch(value, torch)


def _list_function(function: FunctionType) -> tuple[Any, ...]:
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names |= {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    used = [(name, function.__globals__[name]) for name in sorted(names & function.__globals__.keys())]
    closure = [_open_cell(cell) for cell in function.__closure__ or ()]
    own = sorted((name, value) for name, value in vars(function).items() if name != "__wrapped__")
    return (
        "function",
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
        closure,
        used,
        *([own] if own else []),
    )


def _open_cell(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing is in it yet
        return "empty cell"


def _list_torch(value: Any, torch: Any) -> Any:
    """Lists what counts of tensors and modules: hooks without their numbers, which are new in each session."""
    if isinstance(value, torch.Tensor):
        kind = type(value).__name__, str(value.dtype), value.requires_grad
        if torch.nn.parameter.is_lazy(value):
            return "lazy tensor", kind
        flat = value.detach().cpu().contiguous().reshape(-1)
        return (
            "tensor",
            kind,
            tuple(value.shape),
            hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest() if len(flat) else "",
        )
    if isinstance(value, torch.nn.Module):
        members = vars(value).items()
        state = {
            name: list(held.values()) if "_hooks" in name and isinstance(held, dict) else held for name, held in members
        }
        return "network", type(value), state
    return "handle" if isinstance(value, torch.utils.hooks.RemovableHandle) else None


def _list_origins(modules: set[str]) -> set[str]:
    """Says of imported modules, and of what local ones import in turn, which version or what files they are of."""
    origins, waiting, seen = set(), sorted(modules), set()
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        if module in seen or top in sys.stdlib_module_names or top in _UNTOLD:
            continue
        seen.add(module)
        if (installed := _find_version(top)) is not None:
            origins.add(f"{top} {installed}")
        elif top not in seen or module == top:
            seen.add(top)
            origins.add(f"{top} {_hash_loaded(top)}")
            waiting += _list_imported(top)
    return origins


def _hash_loaded(top: str) -> str:
    """Returns the sha256 of a local package's files.

    Raises:
        CallableError: They have changed since it was hashed first, and what runs is still what was imported then.
    """
    specs = [module.__spec__ for name, module in sorted(sys.modules.items()) if name.partition(".")[0] == top]
    sha256 = hash_files(top)
    before, first = _HASHED.setdefault(top, (specs, sha256))
    is_loaded_still = bool(specs) and len(before) == len(specs) and all(map(operator.is_, before, specs))
    if is_loaded_still and first != sha256:
        raise CallableError(
            f"module {top}: must be as it was imported, its files have changed since; reload it or start Python again"
        )
    _HASHED[top] = specs, sha256
    return sha256


@cache
def _find_version(top: str) -> str | None:
    """Returns the version of an installed package; None of one whose files are being edited, or that is none."""
    if not any({"site-packages", "dist-packages"} & set(place.parts) for place in _find_places(top)):
        return None
    try:
        return version(top)
    except PackageNotFoundError:  # of another name, such as PIL
        owners = _list_owners().get(top)
        return version(owners[0]) if owners else None


@cache
def _list_owners() -> Mapping[str, list[str]]:
    """Lists the packages that modules are of; takes seconds where many are installed."""
    return packages_distributions()


def _list_files(module: str) -> list[Path]:
    """Lists the files of a module's package, sorted; none of a module that is not found."""
    places = _find_places(module.partition(".")[0])
    return [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]


def _find_places(top: str) -> list[Path]:
    """Finds the file of a module, or the folders of a package."""
    loaded = sys.modules.get(top)
    try:
        spec = getattr(loaded, "__spec__", None) or (None if loaded else find_spec(top))
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.submodule_search_locations is not None:
        return list(map(Path, spec.submodule_search_locations))
    file = spec.origin if spec is not None else getattr(loaded, "__file__", None)
    return [Path(file)] if file and Path(file).is_file() else []


def _list_imported(module: str) -> list[str]:
    """Lists the modules that the files of a module import, wherever in the code; also what only looks so, in a text, which does no harm."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in _list_files(module) if file.suffix == ".py"]
    found = [match for text in texts for match in _IMPORT.findall(text)]
    return [
        *dict.fromkeys(
            each.split()[0] for source, plain in found for each in (source or plain).split(",") if each.strip()
        )
    ]
