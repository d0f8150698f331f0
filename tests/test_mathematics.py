"""What the code cites of the mathematics is there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "mathematics.md"
CITED = re.compile(r"\b[Mm]ath\s+(\d+(?:\.\d+)*)")


def test_every_section_that_is_cited_exists():
    sections = set(re.findall(r"^#+ (\d+(?:\.\d+)?)", PAGE.read_text(), re.M))
    cited = {
        (str(path.relative_to(ROOT)), number)
        for folder in ("tf_spectral", "tests", "keras_examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for number in CITED.findall(path.read_text())
    }
    assert len(cited) > 30
    missing = {(p, n) for p, n in cited if n.rstrip(".") not in sections}
    assert not missing
