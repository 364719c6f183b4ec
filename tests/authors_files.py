"""YAML files of the authors, from recorded values, in folder trees like theirs."""

from pathlib import Path
from typing import Any

import yaml
from goldens import load_json

GOLDEN = load_json("authors_configs.json")


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_config(folder: Path, name: str, changes: dict[str, Any] | None = None) -> Path:
    """One of their files with all its layers merged, some keys changed."""
    values = yaml.safe_load(yaml.safe_dump(GOLDEN["configs"][name]))
    for key, value in (changes or {}).items():
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner[section]
        inner[last] = value
    path = folder / "configs" / "projects" / Path(name).name
    write_tree(folder, {"configs/pool/base.yaml": "{}", f"configs/projects/{path.name}": yaml.safe_dump(values)})
    return path
