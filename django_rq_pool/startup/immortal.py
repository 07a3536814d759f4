"""Immortal: definitions whose reference counts are never written, so that their pages stay shared.

Rule of the room: the one place that writes to the interpreter's memory, and only if the project
asks for it. It does so before the first fork, only in interpreters that it knows, and only to
definitions: classes, functions and modules, with the code, the constants and the tables that they
hold as long as they exist. Each object is chosen by its own kind, never because a definition refers
to it: a ``property`` also holds texts, and whatever was decorated.

A worker that runs a function counts references to it, to its code and constants, and to the classes
of the objects that it makes. Each count is stored in the image, and writing it copies the page. For
an immortal object CPython counts nothing (PEP 683, since 3.12). None is one, and the free-threaded
build of 3.13 makes its definitions immortal for another reason. Cinder, Instagram's CPython, does
this to its whole heap before it forks (``immortalize_heap``). Here data keeps its counts, because
an object that holds a connection or a file, or is large, must go when it is not needed any more.
Functions with a closure count as data. So does text, wherever it stands: the interpreter keeps most
of it in a table of its own, and notes in the text whether that table is counted.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import types
from collections.abc import Iterable
from typing import Any

KNOWN_VERSIONS = ((3, 12), (3, 13))
"""Of CPython, which has changed what the count of an immortal object is, and may do so again."""

_IMMORTAL = 0xFFFFFFFF
"""The count of an immortal object in these versions."""

DEFINITIONS = (
    classmethod,
    property,
    staticmethod,
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    types.FunctionType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.ModuleType,
    types.WrapperDescriptorType,
)
"""Kinds of definitions, beside classes."""

TABLES = (dict, tuple)
"""Kinds of what a class holds: its namespace, its bases and its method resolution order."""

CONSTANTS = (bytes, complex, float, frozenset, int, tuple, types.CodeType)
"""Kinds of what a code object holds. A tool that rewrites code may have put anything there."""


def make_definitions_immortal() -> int:
    """Makes every definition immortal that the garbage collector tracks, with its parts.

    Nothing else about them changes, except that they are never freed. To be called when everything
    that workers share has been imported, and is not frozen yet.

    Returns:
        The number of objects that have become so; 0 where this interpreter is not known.
    """
    if not can_be_done():
        return 0
    metaclasses = tuple(_metaclasses())
    by_kind = _by_kind((*DEFINITIONS, *metaclasses), gc.get_objects())
    classes = [each for kind in metaclasses for each in by_kind[id(kind)]]
    functions = by_kind[id(types.FunctionType)]
    codes = [function.__code__ for function in functions]
    constants = [constant for code in codes for constant in code.co_consts]
    # A function that is bound to data, or has some in its closure, must be freed with it.
    by_kind[id(types.FunctionType)] = [each for each in functions if each.__closure__ is None]
    by_kind[id(types.BuiltinFunctionType)] = [
        each
        for each in by_kind[id(types.BuiltinFunctionType)]
        # Not isinstance: it would ask a proxy for its __class__, which may do anything.
        if each.__self__ is None or issubclass(type(each.__self__), (types.ModuleType, type))
    ]
    parts = [
        *_by_kind(TABLES, gc.get_referents(*classes)).values(),
        [vars(module) for module in by_kind[id(types.ModuleType)]],
        codes,
        *_by_kind(CONSTANTS, constants).values(),
    ]
    return sum(map(_make_immortal, (*by_kind.values(), *parts)))


def can_be_done() -> bool:
    """Whether this interpreter is known: its counts are where they are looked for, and that of None
    says that it is immortal. That is not so in a free-threaded build. A debug build checks counts
    in ways that an immortal object does not pass."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in KNOWN_VERSIONS:
        return False
    if hasattr(sys, "gettotalrefcount"):
        return False
    memory = _memory()
    probe = object()
    before = memory[id(probe) // 8]
    references = [probe] * 3
    counted = memory[id(probe) // 8] - before == len(references)
    return counted and memory[id(None) // 8] == _IMMORTAL


def _by_kind(kinds: Iterable[type], objects: list[Any]) -> dict[int, list[Any]]:
    """The objects of each of these classes, by the id of the class, without those of subclasses. A
    class need not be hashable: its metaclass decides that."""
    by_kind: dict[int, list[Any]] = {id(kind): [] for kind in kinds}
    for each in objects:
        same = by_kind.get(id(type(each)))
        if same is not None:
            same.append(each)
    return by_kind


def _metaclasses(base: type = type) -> Iterable[type]:
    """A class whose instances are classes, and all its subclasses."""
    yield base
    derived: type
    for derived in type.__subclasses__(base):
        yield from _metaclasses(derived)


def _make_immortal(objects: list[Any]) -> int:
    """How many of them were not."""
    memory = _memory()
    changed = 0
    for each in objects:
        if memory[id(each) // 8] != _IMMORTAL:
            memory[id(each) // 8] = _IMMORTAL
            changed += 1
    return changed


def _memory() -> memoryview:
    """All memory of this process as words of 8 bytes. The first word of each object is its count.
    It is one view, because ctypes reports each view to audit hooks."""
    words = ctypes.c_uint64 * (sys.maxsize // 8)
    return memoryview(words.from_address(0)).cast("B").cast("Q")
