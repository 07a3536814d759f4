"""The YAML file: what it holds, what its template may say, and what is said about a bad one."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
from pathlib import Path

import pytest
import yaml
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_rq_pool.config.groups import parse_counts
from django_rq_pool.config.problems import CountsError, Kind, Problem
from django_rq_pool.config.yaml_file import read_yaml
from django_rq_pool.system.cgroups import usable_resources

pytestmark = pytest.mark.usefixtures("folder")


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def read(path: str, environment: str | None = None) -> object:
    return read_yaml(path, environment)


def only_problem(path: str, environment: str | None = None) -> Problem:
    with pytest.raises(CountsError) as caught:
        read_yaml(path, environment)
    (problem,) = caught.value.problems
    assert problem.kind is Kind.SOURCE
    assert problem.hint
    return problem


def test_a_file_holds_what_yaml_says():
    write(
        "pool.yml", 'high: 1\n"low, default": {workers: 2, max_jobs: 5}\nproduction:\n  high: 4\n'
    )
    assert read("pool.yml") == {
        "high": 1,
        "low, default": {"workers": 2, "max_jobs": 5},
        "production": {"high": 4},
    }


def test_a_file_may_hold_letters_of_any_alphabet():
    write("pool.yml", "größe: 1\n大: 2\n")
    assert read("pool.yml") == {"größe": 1, "大": 2}


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing here yet\n", "---\n", "null", "\ufeff"])
def test_an_empty_file_holds_no_counts(text):
    assert read(write("pool.yml", text)) == {}


def test_a_file_that_is_missing_is_refused_by_name():
    problem = only_problem("no/such.yml")
    assert "no/such.yml" in problem.text
    assert "no such file" in problem.text


def test_a_directory_is_refused_as_unreadable(folder):
    (folder / "pool.yml").mkdir()
    problem = only_problem("pool.yml")
    assert "pool.yml" in problem.text
    assert "cannot be read" in problem.text


@pytest.mark.parametrize("content", ["größe: 1".encode("latin-1"), b"\x80\x04\x95", b"\xff\xfeh\0"])
def test_a_file_that_is_not_utf_8_is_refused_as_unreadable(folder, content):
    (folder / "pool.yml").write_bytes(content)
    problem = only_problem("pool.yml")
    assert "cannot be read" in problem.text
    assert "text file" in problem.hint


@pytest.mark.parametrize(
    "text",
    [
        "high: [1",
        "high: 1\n\tlow: 2",
        "high: 1: 2",
        "*nobody",
        "high: 1\n---\nlow: 2",
        "? [high]\n: 1",
        "high: 2024-13-45",
        "high: \0",
        "[" * 2000,
    ],
)
def test_what_is_not_yaml_is_refused_in_one_line(text):
    problem = only_problem(write("pool.yml", text))
    assert "pool.yml" in problem.text
    assert "not YAML" in problem.text
    assert "\n" not in problem.text


def test_a_syntax_error_is_told_with_its_line():
    text = only_problem(write("pool.yml", "high: 1\nlow: 2\nbad: [")).text
    assert re.search(r"line [34]", text)


@pytest.mark.parametrize(
    "text",
    [
        "high: !!python/object/apply:pathlib.Path.touch [made]",
        "!!python/object:shop.tasks.Order {}",
        "high: !!python/name:os.system",
    ],
)
def test_a_file_cannot_make_python_objects(folder, text):
    problem = only_problem(write("pool.yml", text))
    assert "python" in problem.text
    assert [path.name for path in folder.iterdir()] == ["pool.yml"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("high: 1\nlow: 2\nhigh: 3", "'high'"),
        ("high: 1\n'high': 1", "'high'"),
        ("production:\n  high: 1\n  high: 2", "'high'"),
        ("high:\n  workers: 1\n  workers: 2", "'workers'"),
        ("high: {workers: 1}\nproduction: {}\nproduction: {}", "'production'"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(text, key):
    problem = only_problem(write("pool.yml", text))
    assert problem.kind is Kind.SOURCE
    assert f"the key {key} is given twice" in problem.text
    assert "line" in problem.text


def test_the_same_key_in_two_mappings_is_no_repetition():
    text = "high: 1\nproduction: {high: 2}\nstaging: {high: 3}"
    assert read(write("pool.yml", text))["staging"] == {"high": 3}


def test_a_merged_mapping_may_be_overridden():
    text = "high: &shared {workers: 1, max_jobs: 5}\nlow: {<<: *shared, workers: 2}"
    assert read(write("pool.yml", text))["low"] == {"workers": 2, "max_jobs": 5}


def test_a_merge_of_a_merged_mapping_that_is_deeper_in_the_file_is_no_repetition():
    text = (
        "default: &shared {workers: 1, max_jobs: 5}\n"
        "production:\n"
        "  high: &high {<<: *shared, workers: 3}\n"
        "low: {<<: *high}\n"
    )
    assert read(write("pool.yml", text))["low"] == {"workers": 3, "max_jobs": 5}


@pytest.mark.parametrize(
    "text",
    [
        "high: !!int ''",
        "high: !!float ''",
        "high: !!bool perhaps",
        "high: !!timestamp soon",
        "high: !!map [1]",
        "high: !!set [1]",
    ],
)
def test_a_value_that_belies_its_tag_is_refused_like_any_other_bad_yaml(text):
    assert "not YAML" in only_problem(write("pool.yml", text)).text


@given(
    text=st.text(alphabet=st.sampled_from("ab:,-[]{}&*?|>!%@\"'# \n\t012.~<=é"), max_size=40)
    | st.text(max_size=20).filter(lambda text: text.isascii() or max(text) < "\ud800")
)
@example(text="a: &x [*x]")
@example(text="&x {a: *x}")
def test_no_text_whatever_raises_anything_but_a_counts_error(text):
    Path("any.yml").write_text(text, encoding="utf-8")
    try:
        read_yaml("any.yml", None)
    except CountsError as error:
        (problem,) = error.problems
        assert problem.text.startswith("any.yml: ")


# The template


def test_the_template_knows_the_process_and_its_machine(monkeypatch):
    monkeypatch.setenv("SLOW_WORKERS", "7")
    write(
        "pool.yml",
        "high: {{ cpu_count }}\n"
        "memory: {{ memory_limit }}\n"
        "slow: {{ env.SLOW_WORKERS }}\n"
        "host: '{{ hostname }}'\n"
        "environment: '{{ environment }}'\n",
    )
    assert read("pool.yml", "production") == {
        "high": usable_resources().cpus,
        "memory": usable_resources().memory,
        "slow": 7,
        "host": socket.gethostname(),
        "environment": "production",
    }


def test_a_variable_that_is_not_set_has_a_default(monkeypatch):
    monkeypatch.delenv("SLOW_WORKERS", raising=False)
    assert read(write("pool.yml", "slow: {{ env.SLOW_WORKERS|default:2 }}")) == {"slow": 2}
    assert read(write("pool.yml", "slow: {{ env.SLOW_WORKERS }}")) == {"slow": None}


def test_a_count_can_be_a_multiple_of_the_cpus():
    expected = 3 * usable_resources().cpus
    assert read(write("pool.yml", "high: {% widthratio cpu_count 1 3 %}")) == {"high": expected}


def test_values_are_put_in_as_they_are(monkeypatch):
    monkeypatch.setenv("NAMES", "'a<b', c & d")
    assert read(write("pool.yml", "names: [{{ env.NAMES }}]")) == {"names": ["a<b", "c & d"]}


def test_numbers_are_written_for_yaml_whatever_the_language():
    with override_settings(USE_THOUSAND_SEPARATOR=True, LANGUAGE_CODE="de"):
        text = "many: {{ 12345 }}\nhalf: {{ 0.5 }}"
        assert read(write("pool.yml", text)) == {"many": 12345, "half": 0.5}


def test_a_template_cannot_change_the_environment_variables(monkeypatch):
    monkeypatch.setenv("SLOW_WORKERS", "7")
    text = "{% firstof env.clear env.pop %}slow: 1"
    with contextlib.suppress(CountsError):
        read(write("pool.yml", text))
    assert os.environ["SLOW_WORKERS"] == "7"


def test_the_projects_templates_have_no_say():
    with override_settings(TEMPLATES=[]):
        assert read(write("pool.yml", "high: {{ 1 }}")) == {"high": 1}


@pytest.mark.parametrize(
    "text",
    [
        "'{% verbatim %}{{ high }}{% endverbatim %}': 1",
        "'{% templatetag openvariable %} high {% templatetag closevariable %}': 1",
    ],
)
def test_braces_in_a_value_can_be_escaped(text):
    assert read(write("pool.yml", text)) == {"{{ high }}": 1}


def test_braces_that_make_no_tag_mean_nothing_to_the_template():
    text = (
        "# {single braces}, 100 % and {# a remark that nothing ends\n"
        '"{hash tag}": {workers: 1}\n'
        "a {{ brace that nothing closes: 1\n"
        '"{% neither": 1\n'
    )
    assert read(write("pool.yml", text)) == {
        "{hash tag}": {"workers": 1},
        "a {{ brace that nothing closes": 1,
        "{% neither": 1,
    }


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("high: 1\nlow: {% if %}1", 2, "TemplateSyntaxError"),
        ("high: 1\n\n{% for x in y %}\nlow: 1\n", 3, "Unclosed tag"),
        ("{% nothing %}", 1, "'nothing'"),
        ("high: 1\nlow: {{ a b }}", 2, "'a b'"),
        ("high: 1\nlow: 2\nslow: {{ 5|divisibleby:0 }}", 3, "ZeroDivisionError"),
        ("high: 1\n{% include 'other.yml' %}", 2, "TemplateDoesNotExist: other.yml"),
        ("{% load tz %}", 1, "tag library"),
    ],
)
def test_an_error_of_the_template_is_told_with_its_line(text, line, words):
    problem = only_problem(write("pool.yml", text))
    assert problem.text.startswith(f"pool.yml: line {line} cannot be rendered: ")
    assert words in problem.text
    assert "\n" not in problem.text
    assert "{% verbatim %}" in problem.hint


def test_an_error_of_the_yaml_says_whether_its_line_is_that_of_the_file():
    plain = only_problem(write("pool.yml", "high: ["))
    rendered = only_problem(write("pool.yml", "{% if 0 %}\n\n{% endif %}high: ["))
    assert plain.text.startswith("pool.yml: it is not YAML: ")
    assert rendered.text.startswith("pool.yml: the rendered template is not YAML: ")


TAG = re.compile("{{.*?}}|{%.*?%}|{#.*?#}")


@given(
    text=st.text(alphabet=st.sampled_from("ab: \n#'\"{}%"), max_size=25).filter(
        lambda text: not TAG.search(text)
    )
)
@example(text="'{{a': 1\n'b}}': 1")
def test_a_text_without_template_tags_reads_as_yaml_alone_would(text):
    Path("any.yml").write_text(text, encoding="utf-8")
    try:
        ours = read("any.yml")
    except CountsError as error:
        assert "cannot be rendered" not in str(error)  # noqa: PT017  # and it may be no YAML
        return
    assert (ours or None) == (yaml.safe_load(text) or None)


TAGS = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "if",
    "endif",
    "for",
    "in",
    "env",
    "|",
    " ",
    "\n",
    "a: 1",
]


@given(pieces=st.lists(st.sampled_from(TAGS), max_size=15))
def test_no_template_whatever_raises_anything_but_a_counts_error(pieces):
    Path("any.yml").write_text("".join(pieces), encoding="utf-8")
    try:
        read("any.yml")
    except CountsError as error:
        (problem,) = error.problems
        assert problem.text.startswith("any.yml: ")


def test_what_is_said_of_a_value_is_short_however_large_it_is():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in itertools.pairwise("abcdefghi"):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    lines.append("high: *i")
    Path("bomb.yml").write_text("\n".join(lines))
    with pytest.raises(CountsError) as caught:
        parse_counts(read("bomb.yml"), source="bomb.yml", environment=None, queues={"high": 1})
    assert len(str(caught.value)) < 10_000


def test_a_mapping_that_merges_ever_more_is_refused():
    lines = [f"a: &a {{{', '.join(f'k{number}: 1' for number in range(20_000))}}}", "b: {<<: *a}"]
    Path("merges.yml").write_text("\n".join(lines))
    with pytest.raises(CountsError, match="a mapping has more than 10000 keys"):
        read("merges.yml")
