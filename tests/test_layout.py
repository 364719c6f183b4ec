"""The tree states the order of the work, and imports only point back along it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A file stands for itself, a folder for all that is in it.
LAYERS = [
    "errors",
    "texts",
    "choices",
    "config",
    "corpus",
    "data",
    "model",
    "interop",  # reads checkpoints for all that train or use
    "training",
    "transfer",
    "evidence",
    "report",
    "road",
    "convert",
    "describe",
    "doctor",
    "loader_speed",
]

# The road that videos take, whose folders stand in this order also where they are listed by name.
ROAD = ["corpus", "data", "model", "training", "transfer"]


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT / "hico_core").parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.append(node.module)
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return modules


CORE_FILES = sorted(
    p for p in (ROOT / "hico_core").rglob("*.py") if p.parent != ROOT / "hico_core" or p.name != "__init__.py"
)


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_back(path: Path) -> None:
    here = layer_of(path)
    for module in imported_modules(path):
        assert not module.startswith("hico_cli"), f"{here} must not know the command line"
        if module.startswith("hico_core."):
            there = module.split(".")[1]
            assert LAYERS.index(there) <= LAYERS.index(here), f"{here} must not import {there}"


MODEL_FILES = [path for path in CORE_FILES if layer_of(path) == "model"]


def knows_process_groups(source: str) -> bool:
    """Whether code imports torch.distributed, or reaches it through torch."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        reached = [f"{module}.{name}" for name in names] + names
        if isinstance(node, ast.Attribute):
            reached.append(ast.unparse(node))
        if any(name == "torch.distributed" or name.startswith("torch.distributed.") for name in reached):
            return True
    return False


def test_the_model_knows_no_process_group() -> None:
    assert [path.name for path in MODEL_FILES if knows_process_groups(path.read_text())] == []


@pytest.mark.parametrize(
    ("source", "knows"),
    [
        ("import torch.distributed as dist", True),
        ("from torch import distributed", True),
        ("from torch.distributed.nn.functional import all_reduce", True),
        ("import torch\ntorch.distributed.all_reduce(x)", True),
        ("import torch\nfrom torch.distributions import Normal", False),
    ],
)
def test_ways_to_a_process_group(source: str, knows: bool) -> None:
    assert knows_process_groups(source) == knows


def test_the_road_is_in_alphabetical_order() -> None:
    assert [layer for layer in LAYERS if layer in ROAD] == ROAD == sorted(ROAD)
    assert all((ROOT / "hico_core" / folder).is_dir() for folder in ROAD)


def test_the_layers_are_all_there_is_and_stand_in_contributing() -> None:
    there = {layer_of(path) for path in CORE_FILES}
    assert there == set(LAYERS)
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    assert ", ".join(LAYERS) in text


def test_interop_needs_no_torch_for_configurations() -> None:
    assert "torch" not in _modules_after("from hico_core.interop import read_authors_config")


@pytest.mark.parametrize("module", ["torch", "pandas"])
def test_corpus_needs_no_torch_and_splitting_no_pandas(module: str) -> None:
    loaded = _modules_after("import hico_core.corpus.split, hico_core.corpus.ids")
    assert module not in loaded
    assert "hico_core.corpus.split" in loaded


def test_index_needs_no_torch() -> None:
    assert "torch" not in _modules_after("import hico_core.corpus.index")


@pytest.mark.parametrize("arguments", [["--help"], ["split", "--help"], ["pretrain", "--help"], ["--version"]])
def test_help_loads_nothing_slow(arguments: list[str]) -> None:
    loaded = _modules_after(
        f"from hico_cli.main import main\ntry: main({arguments!r})\nexcept SystemExit as e: assert e.code == 0"
    )
    assert "hico_cli.main" in loaded
    assert loaded.isdisjoint({"torch", "torchvision", "pandas", "pyarrow", "av", "decord", "numpy"})


def reads_of_the_command_line(path: Path) -> list[int]:
    """Lines that read sys.argv, but for those of a file that is run as a program: below its `if __name__ == ...`."""
    tree = ast.parse(path.read_text())
    program = [node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    allowed = {id(inner) for node in program for inner in ast.walk(node)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("argv", "orig_argv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "sys")
        if id(node) not in allowed
    ]


def test_only_main_reads_what_was_typed() -> None:
    """Whoever calls `main` with arguments is obeyed by all that it does, processes that it starts included."""
    main = ROOT / "hico_cli/main.py"
    files = [*CORE_FILES, *(ROOT / "hico_cli").rglob("*.py")]
    assert {path: lines for path in files if path != main and (lines := reads_of_the_command_line(path))} == {}
    (function,) = (
        node for node in ast.parse(main.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    assert [function.lineno < line <= (function.end_lineno or 0) for line in reads_of_the_command_line(main)] == [True]


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\nMODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.rsplit("MODULES", 1)[1].split())
