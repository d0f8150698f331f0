"""The code of the README and of the pages runs, their links lead somewhere."""

import html.parser
import importlib.util
import pathlib
import re
import subprocess
import sys
import urllib.parse

import keras
import numpy as np
import pytest

from tests.test_docstrings import public_names

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (ROOT, DOCS)
    for path in folder.glob("*.md")
)
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page):
    text = (ROOT / page).read_text()
    found = FENCE.findall(text)
    assert len(found) == len(re.findall("```+ *py", text)), "indented?"
    return found


def run(page):
    """Runs the blocks of a page in one namespace; their names are returned."""
    names = {}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return names


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != "README.md" and blocks(page)]
)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page)


def test_the_code_of_the_readme_does_what_it_says(tmp_path, monkeypatch):
    """Digits are classified, sigma stays in 1 +- 0.1, a model loads."""
    monkeypatch.chdir(tmp_path)
    names = run("README.md")
    logs = names["history"].history
    assert min(logs["spectral_rnn/sigma_min"]) >= 0.9
    assert max(logs["spectral_rnn/sigma_max"]) <= 1.1
    model, (x, y) = names["model"], names["test"]
    scores = keras.ops.convert_to_numpy(model(x))
    assert np.mean(scores.argmax(-1) == y) > 0.6


def test_nobody_is_sent_to_the_other_project_of_this_name():
    for folder in ("tf_spectral", "keras_examples", "benchmarks", "docs"):
        for path in [*(ROOT / folder).rglob("*.[pm]*"), ROOT / "README.md"]:
            if path.suffix in (".py", ".md"):
                assert "install tf_spectral" not in path.read_text(), path


def check_links(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    check_links(ROOT / page)


class Links(html.parser.HTMLParser):
    """What a page of the site refers to, and the names of its own places."""

    def __init__(self):
        super().__init__()
        self.targets, self.places = set(), set()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name in ("id", "name"):
                self.places.add(value)


def read_links(path):
    links = Links()
    links.feed(path.read_text())
    return links


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mkdocs", "mkdocstrings"))),
    reason="the site needs the extra docs",
)
def test_links_of_the_built_site_lead_somewhere(tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    subprocess.run([*command, "--site-dir", site], cwd=ROOT, check=True)
    pages = {path: read_links(path) for path in site.rglob("*.html")}
    dead = []
    for path, links in pages.items():
        for target in links.targets:
            url = urllib.parse.urlsplit(target)
            if url.scheme or url.netloc or path.name == "404.html":
                continue
            other = path
            if url.path:
                other = path.parent / urllib.parse.unquote(url.path)
                other = pathlib.Path(*other.resolve().parts)
            if other.is_dir():
                other = other / "index.html"
            if not other.is_file():
                dead.append(f"{path.relative_to(site)}: {target}")
            elif url.fragment and other in pages:
                place = urllib.parse.unquote(url.fragment)
                if place not in pages[other].places:
                    dead.append(f"{path.relative_to(site)}: {target}")
    assert len(pages) > 10
    shown = pages[site / "api" / "index.html"].places
    dead += [
        f"{name} is not shown"
        for name, _ in public_names()
        if name not in shown
    ]
    assert not dead, "\n".join(sorted(dead))
