"""Commands and options that no longer exist in hico, and what to type instead."""

from collections.abc import Sequence

# (command, option or None for the command itself) -> what to type
_INSTEAD: dict[tuple[str, str | None], str] = {
    ("split", "--status"): "`hico inspect ROOT` counts finished and failed videos",
    ("split", "--engine"): "`--ray-address local`, `auto` or HOST:PORT splits on a Ray cluster; threads need no option",
    ("extract-features", "--engine"): "`--ray-address local`, `auto` or HOST:PORT extracts on a Ray cluster",
    ("extract-features", "--suffix"): "files are named PREFIX and id; rename them if a toolkit needs another name",
    ("pretrain", "--decoder"): "use `-o data.decoder=NAME`",
    ("benchmark", None): "see scripts/evidence in the repository, or `hico demo` for a short form",
}


def what_to_type(arguments: Sequence[str], option: str | None = None) -> str | None:
    """The replacement for a removed command or option; None if hico never had it.

    Args:
        arguments: as typed.
        option: an option that the command does not know; None: the command itself is unknown.

    """
    command = next((word for word in arguments if not word.startswith("-")), "")
    instead = _INSTEAD.get((command, option))
    return instead and f"{option or command}: is no longer {'an option' if option else 'a command'}; {instead}"
