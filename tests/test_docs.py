"""The examples of the documentation run, page by page."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = [
    "orthogonal",
    "spectral_conv",
    "spectral_dense",
    "spectral_descent",
    "spectral_gated",
    "spectralize",
]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page):
    text = (DOCS / f"{page}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(block, names)


def test_the_example_of_the_readme_runs(monkeypatch, tmp_path):
    """As it stands, in a folder where nothing else is."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS.parent / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(block, names)
    history = names["model"].history.history
    assert history["val_accuracy"][-1] > 0.4


def test_nobody_is_sent_to_the_other_project_of_this_name():
    root = DOCS.parent
    for folder in ("tf_spectral", "keras_examples", "benchmarks", "docs"):
        for path in [*(root / folder).rglob("*.py"), root / "README.md"]:
            assert "install tf_spectral" not in path.read_text(), path


def check_links(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.md")))
def test_links_of_a_page_lead_somewhere(page):
    check_links(DOCS / page)


def test_links_of_the_readme_lead_somewhere():
    check_links(DOCS.parent / "README.md")
