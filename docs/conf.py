"""Sphinx: how the documentation is built.

sphinx-build -W --keep-going -n docs docs/_build/html
"""

import os
import sys
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "docs" / "_ext"), str(ROOT / "testproject"), str(ROOT / "benchmarks")]
sys.path.append(str(ROOT / "tests" / "trials" / "rq_suite"))
sys.dont_write_bytecode = True
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()

import django_rq_pool  # noqa: E402

project = "django-rq-pool"
author = "the django-rq-pool contributors"
version = release = django_rq_pool.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "reference"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_show_copyright = False
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

highlight_language = "none"
default_role = "code"
smartquotes = False  # they would make one dash of the two of an option
copybutton_prompt_text = "$ "

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
# Names of other projects' documentation, and of type variables.
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc\..*|.*AnyHook|Loader|Callable.*|Iterable|Mapping)")
]
