"""The reference pages say what the code says."""

import pytest
from reference import FOLDER, reference_pages

from hico_core.config import Config, FinetuneConfig


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "api.md"])
def test_pages_are_current(name: str) -> None:
    assert (FOLDER / name).read_text() == reference_pages()[name], "run: python scripts/reference.py"


@pytest.mark.parametrize("config", [Config, FinetuneConfig])
def test_every_setting_has_a_meaning(config: type[Config | FinetuneConfig]) -> None:
    sections = (field.annotation for field in config.model_fields.values())
    fields = [item for section in sections for item in getattr(section, "model_fields", {}).items()]
    assert len(fields) > 30
    assert [name for name, field in fields if not field.description] == []


def test_every_command_and_option_has_a_meaning() -> None:
    rows = [line for line in reference_pages()["commands.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []
