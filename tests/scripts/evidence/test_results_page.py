"""The pages of results say what was measured, and nothing else."""

import re

import pandas as pd
import pytest
from results_page import DOCS, pages

RESULTS = pd.read_parquet(DOCS / "measurements" / "benchmark.parquet")


@pytest.mark.slow
def test_the_pages_are_what_the_script_writes() -> None:
    written = pages(RESULTS)
    assert {page: page.read_text() for page in written} == written


@pytest.mark.slow
def test_a_setting_that_was_not_measured_leaves_its_cells_empty() -> None:
    texts = pages(RESULTS[(RESULTS["steps"] != 1800) & ~RESULTS["trimmed"]])
    (row,) = re.findall(r"^\| HiCo \|.*$", texts[DOCS / "results.md"], re.MULTILINE)
    assert [bool(cell.strip()) for cell in row.split("|")[2:-1]] == [True, True, False, False]
    assert "Not run yet" in texts[DOCS / "results-appendix.md"]
