"""Immortal: definitions are not counted any more, data is, and the program does what it did.

What is immortal stays so: each test has an interpreter of its own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from django_rq_pool.startup.immortal import can_be_done

PROGRAM = """
import gc, sys, types, weakref
from django_rq_pool.startup import immortal

class Unhashable(type):
    def __eq__(cls, other):
        raise AssertionError("asked")

class Model(metaclass=Unhashable):
    limit = 12.5
    @property
    def double(self):
        return self.limit * 2
    @staticmethod
    def static():
        return "a constant that is no identifier"
    @classmethod
    def build(cls):
        return cls()

def outer():
    def inner():
        return 1234.5, b"bytes"
    return inner

inner = outer()

class Thing:
    def method(self):
        pass

def enclose(data):
    return lambda: data

thing, numbers, table = Thing(), [1000], {"key": 1000}

def count(found):
    return sys.getrefcount(found)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Runs the program's definitions, then more."""
    return subprocess.run([sys.executable, "-c", PROGRAM + program], capture_output=True, text=True)


def expect(program: str) -> None:
    result = run(program)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


immortality = pytest.mark.skipif(
    not can_be_done(), reason="only CPython 3.12 and 3.13 have the counts that are known"
)


@immortality
@pytest.mark.parametrize(
    "definition",
    [
        "Model",
        "Thing",
        "Unhashable",
        "outer",
        "inner",
        "inner.__code__",
        "inner.__code__.co_consts[1]",
        "enclose.__code__",
        "Model.__dict__['double']",
        "Model.__dict__['static']",
        "Model.__dict__['build']",
        "gc.get_referents(Model)[0]",
        "Model.__mro__",
        "types",
        "vars(types)",
        "gc.get_objects",
    ],
)
def test_nobody_counts_references_to_a_definition(definition):
    expect(f"""
assert immortal.make_definitions_immortal() > 1000
before = count({definition})
several = [{definition}] * 100
assert count({definition}) == before == count(None), (count({definition}), before)
""")


KINDS = """
import django, email.message, http.client, json, logging, unittest.mock, xml.dom.minidom
import functools

class Described:
    text = property(lambda self: 1, doc="a text that is told of")
    later = property(functools.partial(Model.build))
    any_kind = staticmethod(thing)

odd = outer.__code__.replace(co_consts=(*outer.__code__.co_consts, thing, [1000]))
outer.__code__ = odd

def reachable():
    tracked = gc.get_objects()
    found = {id(each): each for each in (*tracked, *gc.get_referents(*tracked))}
    for code in [each for each in found.values() if type(each) is types.CodeType]:
        for part in (*gc.get_referents(code), *code.co_consts):
            found[id(part)] = part
    return found

def immortals(found):
    memory = immortal._memory()
    return {key for key in found if memory[key // 8] == immortal._IMMORTAL}

found = reachable()
before = immortals(found)
number = immortal.make_definitions_immortal()
made = immortals(found) - before
kinds = {type(found[key]) for key in made}
"""


@immortality
def test_only_definitions_and_their_parts_become_immortal_told_by_their_kinds():
    expect(f"""{KINDS}
allowed = {{*immortal.DEFINITIONS, *immortal.TABLES, *immortal.CONSTANTS}}
others = [kind for kind in kinds - allowed if not issubclass(kind, type)]
assert not others, others
assert len(made) > 5000 and 0.9 * number < len(made) <= number, (len(made), number)
""")


@immortality
def test_no_text_becomes_immortal_and_nothing_that_a_wrapper_or_odd_code_holds():
    expect(f"""{KINDS}
texts = [found[key] for key in made if type(found[key]) is str]
assert texts == []
assert Described.__dict__["text"].__doc__ == "a text that is told of"
for held in (thing, Described.__dict__["later"].fget):
    assert count(held) != count(None)
assert type(thing) is Thing and count(Thing) == count(None)
""")


@immortality
def test_data_goes_when_nobody_needs_it():
    expect("""
immortal.make_definitions_immortal()
gone = weakref.ref(thing)
for data in (numbers, table, (thing, numbers)):
    before = count(data)
    several = [data] * 100
    assert count(data) == before + 100
del several, data
del thing
assert gone() is None
""")


@immortality
@pytest.mark.parametrize(
    "holder", ["enclose(thing)", "thing.method", "{0: thing}.values", "[thing]"]
)
def test_what_holds_data_lets_go_of_it(holder):
    expect(f"""
holder = {holder}
immortal.make_definitions_immortal()
gone = weakref.ref(thing)
del thing, holder
assert gone() is None
""")


@immortality
def test_a_class_that_cannot_be_hashed_is_no_error():
    expect("""
class Meta(Unhashable, metaclass=Unhashable):
    pass

class Odd(metaclass=Meta):
    pass

assert immortal.make_definitions_immortal()
assert count(Odd) == count(Meta) == count(None)
""")


@immortality
def test_a_proxy_is_not_asked_what_it_is():
    expect("""
class Proxy(list):
    __class__ = property(lambda self: 1 / 0)

append = Proxy().append
assert immortal.make_definitions_immortal()
""")


@immortality
def test_audit_hooks_hear_little_of_it():
    expect("""
heard = []
sys.addaudithook(lambda event, arguments: heard.append(event))
immortal.make_definitions_immortal()
assert len([event for event in heard if event.startswith("ctypes")]) < 100, len(heard)
""")


@immortality
def test_a_program_does_what_it_did():
    expect("""
import importlib, json
immortal.make_definitions_immortal()
gc.freeze()
model = Model.build()
assert (model.double, model.static(), inner()) == (
    25.0, "a constant that is no identifier", (1234.5, b"bytes")
)
Model.limit = 1
assert model.double == 2
Derived = type("Derived", (Thing,), {})
derived = weakref.ref(Derived)
del Derived
gc.collect()
assert derived() is None, "what is defined later is as it always was"
del outer, Thing
assert importlib.reload(json).loads("[1]") == [1]
gc.unfreeze()
gc.collect()
for _ in range(10000):
    inner()
""")


@immortality
def test_to_do_it_twice_changes_nothing():
    expect("""
immortal.make_definitions_immortal()
immortal.make_definitions_immortal()
assert count(inner) == count(None)
""")


def test_another_interpreter_is_left_alone():
    expect("""
immortal.KNOWN_VERSIONS = ()
before = count(inner)
assert immortal.make_definitions_immortal() == 0
assert count(inner) == before
""")


def test_counts_that_stand_elsewhere_are_left_alone():
    """As in a build whose objects begin with something else."""
    expect("""
immortal.KNOWN_VERSIONS = (sys.version_info[:2],)
immortal._IMMORTAL = 12345
before = count(inner)
assert immortal.make_definitions_immortal() == 0
assert count(inner) == before
""")
