"""Explain what is wrong with a value, in our words instead of the validator's."""

import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hico_core.base.errors import HicoError

Record = TypeVar("Record", bound=BaseModel)

_WHOLE, _NUMBER, _SWITCH, _TEXT = "must be a whole number", "must be a number", "must be true or false", "must be text"
_SECTION, _LIST = "must be a section with keys", "must be a list of values"

# By the validator's name for the problem; some need the limit that the value exceeds.
_WORDS: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "is too large",
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "string_type": _TEXT,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "dict_type": _SECTION,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "missing": "is missing",
    "json_invalid": "is not JSON",
    "extra_forbidden": "is unknown",
    "greater_than": lambda limits: f"must be more than {limits['gt']:g}",
    "greater_than_equal": lambda limits: f"must be at least {limits['ge']:g}",
    "less_than": lambda limits: f"must be less than {limits['lt']:g}",
    "less_than_equal": lambda limits: f"must be at most {limits['le']:g}",
    "literal_error": lambda limits: f"must be {limits['expected']}",
    "too_short": lambda limits: f"must be at least {limits['min_length']} values",
    "too_long": lambda limits: f"must be at most {limits['max_length']} values",
    "string_pattern_mismatch": lambda limits: f"must be of the form {limits['pattern']}",
}

_SHORT = reprlib.Repr()
_SHORT.maxstring = 80


def what_is_wrong(problem: Mapping[str, Any]) -> str:
    """The reason for one of a ValidationError's `errors()`, as the end of a sentence about the value."""
    words = _WORDS.get(problem["type"])
    if words is None:  # from one of our own checks, with a message of ours
        return str(problem["msg"]).removeprefix("Value error, ")
    return words if isinstance(words, str) else words(problem["ctx"])


def first_wrong(error: ValidationError) -> str:
    """The first problem in a file that hico writes, with the field: "clips.0.fps must be a number"."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    return f"{field or 'it'} {what_is_wrong(problem)}"


def read_own_json(path: Path, kind: type[Record]) -> Record | None:
    """Read a JSON file that hico wrote; None if there is no such file.

    Raises:
        HicoError: the file is damaged.

    """
    if not path.is_file():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise HicoError(f"is damaged ({first_wrong(error)}); remove it", subject=path) from error


def shown(value: object) -> str:
    """A value as it was written, shortened, because it may be a page long or contain itself."""
    return _SHORT.repr(value)
