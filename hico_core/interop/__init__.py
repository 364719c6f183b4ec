"""Everything of the authors' formats: their YAML files, the names of their weights, their checkpoints.

What a user needs of it can be imported from here; each name loads its own module only, since some are slow to load.
"""

from importlib import import_module

_WHERE = {
    "read_authors_config": "pretraining_keys",
    "read_authors_finetuning": "finetuning_keys",
    "import_state_dict": "weights",
    "export_state_dict": "weights",
    "load_backbone": "checkpoints",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
