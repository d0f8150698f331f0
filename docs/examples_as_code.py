"""What griffe, which reads the docstrings for mkdocs, has to be told."""

import re

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:\1\S.*\n?)*", re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    """Puts examples in fences: Markdown takes `>>>` as quotes."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


class FunctionsBeforeModules(griffe.Extension):
    """Shows the function `datasets.ucr`, not the module that it is from."""

    def on_package(self, *, pkg, **kwargs):
        for room in pkg.modules.values():
            shown = [room.members[name] for name in room.exports or ()]
            for member in shown:
                if member.is_alias:
                    # Found now, while the modules still have their names.
                    member.resolve_target()
            for member in shown:
                # The modules of `linalg` are shown as such.
                if member.is_module and member.name in member.members:
                    room.set_member(member.name, member.members[member.name])


def fenced(match):
    indent, code = match[1], match[0].rstrip("\n")
    return f"{indent}```python\n{code}\n{indent}```\n"
