"""Everything of the authors' formats: their YAML files, the names of their weights, their checkpoints.

What a user needs of it can be imported from here; each name loads its own module only, since some are slow to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hico_core.checkpoints.authors_names import export_state_dict, import_state_dict
    from hico_core.checkpoints.reading import load_backbone
    from hico_core.config.authors.finetuning_keys import read_authors_finetuning
    from hico_core.config.authors.pretraining_keys import read_authors_config

__all__ = [
    "export_state_dict",
    "import_state_dict",
    "load_backbone",
    "read_authors_config",
    "read_authors_finetuning",
]

_HOME = {
    "export_state_dict": "weights",
    "import_state_dict": "weights",
    "load_backbone": "checkpoints",
    "read_authors_config": "pretraining_keys",
    "read_authors_finetuning": "finetuning_keys",
}


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # for a type checker, a name that is not imported above is a mistake

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
