"""Whoever types what hico does not have any more is told in one line what to type instead."""

import pytest
from commands import assert_one_line, hico

from hico_cli.removed import what_to_type


@pytest.mark.parametrize(
    ("typed", "option", "found"),
    [
        ("split videos --status", "--status", "--status: is no longer an option; `hico inspect ROOT`"),
        ("--debug split --engine ray videos", "--engine", "`--ray-address local`"),
        ("extract-features --engine=ray", "--engine", "`--ray-address local`"),
        ("pretrain --decoder decord", "--decoder", "`-o data.decoder=NAME`"),
        ("benchmark folder", None, "benchmark: is no longer a command; see scripts/evidence in the repository"),
        ("pretrain --status", "--status", None),  # an option of another command
        ("split benchmark", None, None),  # a folder of that name
        ("", None, None),
    ],
)
def test_only_what_was_there_is_answered(typed: str, option: str | None, found: str | None) -> None:
    answer = what_to_type(typed.split(), option)
    assert answer == found if found is None else found in str(answer)


def test_an_old_call_ends_with_that_line() -> None:
    assert_one_line(hico("pretrain", "--decoder", "decord"), 2, "hico: --decoder: is no longer", "-o data.decoder=NAME")
