"""Puts the examples of docstrings in fences: Markdown takes `>>>` as quotes.

An extension of griffe, which reads the docstrings for mkdocs.
"""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:\1\S.*\n?)*", re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    """Changes the docstrings of all modules, classes and functions."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(match):
    indent, code = match[1], match[0].rstrip("\n")
    return f"{indent}```python\n{code}\n{indent}```\n"
