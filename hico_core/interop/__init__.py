"""The authors' formats: their YAML files, the names of their weights, their checkpoints.

Everything that users need of it can be imported from here; each name loads only its own module, as some are slow.
"""

from typing import TYPE_CHECKING

from hico_core.base.lazy import lazy_names

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


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # for a type checker, a name that is not imported above is a mistake
    __getattr__ = lazy_names(
        __name__,
        {
            "export_state_dict": "hico_core.checkpoints.authors_names",
            "import_state_dict": "hico_core.checkpoints.authors_names",
            "load_backbone": "hico_core.checkpoints.reading",
            "read_authors_config": "hico_core.config.authors.pretraining_keys",
            "read_authors_finetuning": "hico_core.config.authors.finetuning_keys",
        },
    )
