"""The tree states the order of the work, and imports only point back along it."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A file stands for itself, a folder for all that is in it.
LAYERS = [
    "base",
    "config",
    "corpus",
    "data",
    "model",
    "encoders",
    "encoding",
    "checkpoints",
    "training",
    "transfer",
    "evidence",
    "report",
    "doctor",
    "road",
    "interop",  # the promised face of what reads the authors' formats
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


PRODUCT_FILES = [*CORE_FILES, *sorted((ROOT / "hico_cli").rglob("*.py"))]


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


def parts_of_code(source: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(source))


def offenders(find: Callable[[str], list[str]], files: Iterable[Path]) -> list[str]:
    return [f"{path.relative_to(ROOT)} {name}" for path in files for name in find(path.read_text())]


def records_by_place(source: str) -> list[str]:
    """Records of five fields and more that can be built by place, or changed."""
    found = []
    for node in parts_of_code(source):
        if not isinstance(node, ast.ClassDef) or sum(isinstance(part, ast.AnnAssign) for part in node.body) < 5:
            continue
        kinds = [ast.unparse(part) for part in (*node.bases, *node.decorator_list)]
        by_name = any(kind.startswith("dataclass(") and {*_BY_NAME} <= {*kind[10:-1].split(", ")} for kind in kinds)
        if not by_name and any("NamedTuple" in kind or kind.startswith("dataclass") for kind in kinds):
            found.append(node.name)
    return found


_BY_NAME = ("frozen=True", "kw_only=True")


def test_records_of_five_fields_are_built_by_name() -> None:
    assert offenders(records_by_place, PRODUCT_FILES) == []


@pytest.mark.parametrize(
    ("head", "num_fields", "allowed"),
    [
        ("class A(NamedTuple):", 4, True),
        ("class A(NamedTuple):", 5, False),
        ("@dataclass\nclass A:", 5, False),
        ("@dataclass(frozen=True, slots=True)\nclass A:", 5, False),
        ("@dataclass(slots=True, kw_only=True)\nclass A:", 5, False),
        ("@dataclass(frozen=True, slots=True, kw_only=True)\nclass A:", 5, True),
        ("class A(BaseModel, frozen=True):", 5, True),  # which takes names only
    ],
)
def test_which_records_are_built_by_name(head: str, num_fields: int, allowed: bool) -> None:
    fields = "".join(f"\n    field{number}: int" for number in range(num_fields))
    assert records_by_place(head + fields) == ([] if allowed else ["A"])


MOST_ARGUMENTS, MOST_LINES = 7, 40

# Promised signatures that need more.
WIDE = {"hico_core/model/losses.py hico_loss", "hico_core/transfer/features.py from_checkpoint"}


def wide_or_long(source: str) -> list[str]:
    """Functions of more than 7 arguments (`self` and `cls` do not count), or of more than 40 lines below the docstring."""
    found = []
    for node in parts_of_code(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            num_arguments = len(given) - bool(given and given[0].arg in {"self", "cls"})
            head = node.body[0] if ast.get_docstring(node) is not None else None
            num_docstring = 0 if head is None else (head.end_lineno or 0) - head.lineno + 1
            num_lines = (node.end_lineno or 0) - node.lineno + 1 - num_docstring
            if num_arguments > MOST_ARGUMENTS or num_lines > MOST_LINES:
                found.append(node.name)
    return found


def is_command(path: Path, function: str) -> bool:
    return path.parent.name == "hico_cli" and function == path.stem


def test_functions_below_the_commands_are_short_and_take_little() -> None:
    found = {
        f"{path.relative_to(ROOT)} {name}"
        for path in PRODUCT_FILES
        for name in wide_or_long(path.read_text())
        if not is_command(path, name)
    }
    assert found == WIDE


@pytest.mark.parametrize(
    ("num_arguments", "num_lines", "docstring", "allowed"),
    [
        (7, 40, "", True),
        (8, 2, "", False),
        (1, 41, "", False),
        (1, 43, '    """Of\n\n    three lines."""\n', True),
        (1, 44, '    """Of\n\n    three lines."""\n', False),
    ],
)
@pytest.mark.parametrize("first", ["", "self, "])
def test_which_functions_are_wide_or_long(
    first: str, num_arguments: int, num_lines: int, docstring: str, allowed: bool
) -> None:
    names = ", ".join(f"argument{number}" for number in range(num_arguments))
    body = "    pass\n" * (num_lines - 1 - docstring.count("\n"))
    assert wide_or_long(f"def f({first}{names}):\n{docstring}{body}") == ([] if allowed else ["f"])


# The rooms in which it matters whether a place is local or in a bucket; all others ask `is_local` or the storage.
STORAGE_FILES = [ROOT / "hico_core/base" / name for name in ("addresses.py", "cache.py", "storage.py")]


def kinds_of_places(source: str) -> list[str]:
    """Where code asks whether something is a `Path` or a `BucketPath`, but for names that callers may give as either."""
    calls = [
        node for node in parts_of_code(source) if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
    ]
    asked = [(call, {part.id for part in ast.walk(call.args[1]) if isinstance(part, ast.Name)}) for call in calls]
    return [ast.unparse(call) for call, names in asked if names & {"Path", "BucketPath"} and "str" not in names]


def test_what_a_place_is_decides_only_its_storage() -> None:
    assert offenders(kinds_of_places, [path for path in PRODUCT_FILES if path not in STORAGE_FILES]) == []
    assert offenders(kinds_of_places, STORAGE_FILES)


@pytest.mark.parametrize(
    ("asked", "decides"),
    [("Path", True), ("BucketPath", True), ("Path | BucketPath", True), ("str | Path", False), ("int", False)],
)
def test_which_questions_are_of_places(asked: str, decides: bool) -> None:
    assert bool(kinds_of_places(f"x = 1 if isinstance(place, {asked}) else 2")) == decides


def test_the_road_is_in_alphabetical_order() -> None:
    assert [layer for layer in LAYERS if layer in ROAD] == ROAD == sorted(ROAD)
    assert all((ROOT / "hico_core" / folder).is_dir() for folder in ROAD)


def test_the_layers_are_all_there_is_and_contributing_names_each() -> None:
    assert {layer_of(path) for path in CORE_FILES} == set(LAYERS)
    words = set(re.findall(r"\w+", (ROOT / "CONTRIBUTING.md").read_text()))
    assert set(LAYERS) <= words


@pytest.mark.processes
def test_interop_needs_no_torch_for_configurations() -> None:
    assert "torch" not in _modules_after("from hico_core.interop import read_authors_config")


@pytest.mark.processes
@pytest.mark.parametrize("module", ["torch", "pandas"])
def test_corpus_needs_no_torch_and_splitting_no_pandas(module: str) -> None:
    loaded = _modules_after("import hico_core.corpus.split, hico_core.corpus.sources.ids")
    assert module not in loaded
    assert "hico_core.corpus.split" in loaded


@pytest.mark.processes
def test_index_needs_no_torch() -> None:
    assert "torch" not in _modules_after("import hico_core.corpus.index")


@pytest.mark.processes
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
    assert {path: lines for path in PRODUCT_FILES if path != main and (lines := reads_of_the_command_line(path))} == {}
    (function,) = (
        node for node in ast.parse(main.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    assert [function.lineno < line <= (function.end_lineno or 0) for line in reads_of_the_command_line(main)] == [True]


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\nMODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.rsplit("MODULES", 1)[1].split())


# Modules without a file of tests of their own, each with the test that would fail first if it were wrong.
COVERED_BY = {
    "hico_cli/console.py": "tests/cli/test_commands.py::test_a_log_has_a_line_now_and_then",
    "hico_cli/convert.py": "tests/cli/test_mistakes.py::test_one_line",
    "hico_cli/demo.py": "tests/evidence/test_demo.py::test_again_it_trains_nothing_and_says_the_same",
    "hico_cli/doctor.py": "tests/cli/test_split_and_index.py::test_the_doctor_tells_what_is_there",
    "hico_cli/evaluate.py": "tests/transfer/evaluation/test_evaluate.py::test_what_comes_out",
    "hico_cli/export_tad.py": "tests/cli/test_downstream.py::test_export_tad",
    "hico_cli/extract_features.py": "tests/cli/test_downstream.py::test_presets",
    "hico_cli/features.py": "tests/cli/test_downstream.py::test_show_and_check",
    "hico_cli/index.py": "tests/cli/test_split_and_index.py::test_lists_may_name_classes",
    "hico_cli/inspect.py": "tests/cli/test_inspect_and_convert.py::test_a_checkpoint_is_described",
    "hico_cli/main.py": "tests/cli/test_commands.py::test_help",
    "hico_cli/options.py": "tests/cli/test_split_and_index.py::test_wrong_values",
    "hico_cli/outcomes.py": "tests/cli/test_run.py::test_the_whole_road_and_again",
    "hico_cli/pretrain.py": "tests/cli/test_commands.py::test_the_four_commands",
    "hico_cli/probe.py": "tests/cli/test_downstream.py::test_probe",
    "hico_cli/processes.py": "tests/training/test_distributed.py::test_a_mistake_that_all_processes_find_is_said_once",
    "hico_cli/remove.py": "tests/transfer/extraction/test_removal.py::test_a_video_leaves_with_all_that_was_made_of_it",
    "hico_cli/report.py": "tests/report/test_report.py::test_what_is_no_run_is_refused",
    "hico_cli/retrieve.py": "tests/cli/test_downstream.py::test_retrieve",
    "hico_cli/split.py": "tests/cli/test_split_and_index.py::test_profiles_and_options",
    "hico_cli/training_data.py": "tests/cli/test_authors_config.py::test_a_bad_line_costs_its_video_not_the_run",
    "hico_core/base/addresses.py": "tests/base/test_storage.py::test_places",
    "hico_core/base/cache.py": "tests/base/test_storage.py::test_the_cache_stays_small_and_keeps_what_is_used",
    "hico_core/base/choices.py": "tests/cli/test_split_and_index.py::test_wrong_values",
    "hico_core/base/failures.py": "tests/corpus/test_intake.py::test_a_damaged_list_of_failures_is_mended",
    "hico_core/base/lazy.py": "tests/test_layout.py::test_corpus_needs_no_torch_and_splitting_no_pandas",
    "hico_core/base/tally.py": "tests/cli/test_commands.py::test_json",
    "hico_core/base/version.py": "tests/cli/test_commands.py::test_help",
    "hico_core/checkpoints/authors_names.py": "tests/test_interop.py::test_import_is_the_inverse_of_export",
    "hico_core/checkpoints/reading.py": "tests/test_interop.py::test_load_backbone_takes_every_kind",
    "hico_core/config/authors/reading.py": "tests/config/authors/test_pretraining_keys.py::test_layers",
    "hico_core/config/authors/yaml_layers.py": "tests/config/authors/test_pretraining_keys.py::test_layers",
    "hico_core/config/explain.py": "tests/config/test_load.py::test_no_words_of_the_validator",
    "hico_core/config/finetuning.py": "tests/config/test_load.py::test_recipes_of_finetuning",
    "hico_core/config/pretraining.py": "tests/config/test_load.py::test_recipes",
    "hico_core/config/sections.py": "tests/config/test_load.py::test_contradictions",
    "hico_core/corpus/clips/making.py": "tests/corpus/test_split.py::test_clips_partition_the_frames",
    "hico_core/corpus/index_check.py": "tests/corpus/test_index.py::test_an_index_with_a_wrong_value_is_refused",
    "hico_core/corpus/workspace/status.py": "tests/corpus/workspace/test_check.py::test_status",
    "hico_core/data/loader.py": "tests/data/test_workers.py::test_what_means_the_death_of_a_worker",
    "hico_core/data/other_decoders.py": "tests/data/test_decode.py::test_decoders_agree",
    "hico_core/data/pictures.py": "tests/encoding/test_lanes.py::test_three_crops_follow_each_other",
    "hico_core/data/preview.py": "tests/cli/test_inspect_and_convert.py::test_a_sheet_of_samples",
    "hico_core/doctor/loader_speed.py": "tests/cli/test_split_and_index.py::test_pretraining_without_splitting",
    "hico_core/encoders/entry.py": "tests/encoders/test_table.py::test_an_encoder_gives_what_its_entry_says",
    "hico_core/encoders/pictures.py": "tests/encoders/test_torchvision_rows.py::test_a_window_is_the_mean_of_its_frames",
    "hico_core/evidence/arms.py": "tests/scripts/evidence/test_benchmark.py::test_a_schedule_is_as_long_as_the_run",
    "hico_core/evidence/trial.py": "tests/evidence/test_demo.py::test_another_seed_wants_another_folder",
    "hico_core/evidence/workers.py": "tests/scripts/evidence/test_benchmark.py::test_what_is_done_is_not_done_again",
    "hico_core/model/hico.py": "tests/model/test_heads.py::test_model_puts_clips_of_a_video_side_by_side",
    "hico_core/model/parameters.py": "tests/training/test_optim.py::test_groups",
    "hico_core/model/pooling.py": "tests/transfer/test_features.py::test_pooling_and_projection",
    "hico_core/model/s3dg_tiny.py": "tests/transfer/finetuning/test_train.py::test_it_learns_what_it_is_shown",
    "hico_core/report/comparisons.py": "tests/cli/test_compare.py::test_a_comparison_and_its_report",
    "hico_core/report/charts.py": "tests/report/test_report.py::test_names_in_charts_are_text",
    "hico_core/report/facts.py": "tests/report/test_report.py::test_long_runs_become_curves_of_means",
    "hico_core/report/page.py": "tests/report/test_report.py::test_names_with_markup_are_text",
    "hico_core/report/tables.py": "tests/report/test_results.py::test_results_of_an_encoder_stand_in_its_report",
    "hico_core/report/sample.py": "tests/report/test_report.py::test_a_run_that_has_not_come_far",
    "hico_core/road/events.py": "tests/cli/test_run.py::test_the_whole_road_and_again",
    "hico_core/road/measuring.py": "tests/cli/test_run.py::test_a_plan_without_a_trace",
    "hico_core/training/dry_run.py": "tests/training/test_loop.py::test_a_dry_run_measures_and_writes_nothing",
    "hico_core/training/flat_parameters.py": "tests/training/test_optim.py::test_lars_of_a_group_is_that_of_each_parameter",
    "hico_core/training/launch.py": "tests/training/test_distributed.py::test_a_killed_process_is_started_again_and_nothing_is_lost",
    "hico_core/training/learner.py": "tests/training/test_distributed.py::test_two_processes_are_one",
    "hico_core/training/run.py": "tests/training/test_loop.py::test_stopped_and_resumed_equals_never_stopped",
    "hico_core/training/run_folder.py": "tests/training/test_loop.py::test_an_old_run_is_not_overwritten",
    "hico_core/training/shared_norm.py": "tests/training/test_distributed.py::test_batch_norms_keep_their_names_and_values",
    "hico_core/training/step.py": "tests/training/test_train_step.py::test_two_steps",
    "hico_core/training/stopping.py": "tests/training/test_loop.py::test_a_signal_ends_with_a_checkpoint",
    "hico_core/training/task.py": "tests/training/test_loop.py::test_what_a_run_leaves",
    "hico_core/transfer/evaluation/clip_features.py": "tests/transfer/evaluation/test_compare.py::test_another_video_or_another_view_is_computed",
    "hico_core/transfer/evaluation/comparison.py": "tests/transfer/evaluation/test_compare.py::test_a_comparison_is_computed_once_and_goes_on",
    "hico_core/transfer/evaluation/match_sheet.py": "tests/transfer/evaluation/test_retrieval.py::test_sheets_show_the_frames_of_both",
    "hico_core/transfer/evaluation/predictions.py": "tests/transfer/finetuning/test_train.py::test_scores_of_views_are_added",
    "hico_core/transfer/evaluation/probing.py": "tests/cli/test_downstream.py::test_probe",
    "hico_core/transfer/extraction/dry_run.py": "tests/cli/test_downstream.py::test_a_dry_run_writes_nothing",
    "hico_core/transfer/extraction/jobs.py": "tests/transfer/extraction/test_extract.py::test_what_is_read_can_be_chosen_and_is_told",
    "hico_core/transfer/extraction/presets.py": "tests/cli/test_downstream.py::test_presets",
    "hico_core/transfer/finetuning/dry_run.py": "tests/transfer/finetuning/test_train.py::test_a_dry_run_is_the_first_step_and_writes_nothing",
    "hico_core/transfer/finetuning/parts.py": "tests/transfer/finetuning/test_train.py::test_groups_are_those_of_the_authors",
    "hico_core/transfer/finetuning/results.py": "tests/transfer/finetuning/test_train.py::test_videos_for_validation_choose_the_checkpoint_that_is_tested",
    "hico_core/transfer/finetuning/step.py": "tests/transfer/finetuning/test_train.py::test_it_learns_what_it_is_shown",
    "hico_core/transfer/finetuning/videos.py": "tests/transfer/finetuning/test_train.py::test_labels_must_be_classes",
    "hico_core/transfer/localisation/actionformer.py": "tests/transfer/localisation/test_export.py::test_actionformer",
    "hico_core/transfer/localisation/opentad.py": "tests/transfer/localisation/test_export.py::test_opentad",
}

MODULES = [
    str(path.relative_to(ROOT))
    for folder in ("hico_cli", "hico_core")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.name.startswith("__")
]


def own_tests_of(module: str) -> Path:
    """hico_core/encoding/lanes.py -> tests/encoding/test_lanes.py, hico_cli/run.py -> tests/cli/test_run.py."""
    path = Path(module)
    folder = "cli" if path.parts[0] == "hico_cli" else Path(*path.parts[1:-1])
    return ROOT / "tests" / folder / f"test_{path.name}"


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_tests_of_its_own_or_a_test_that_covers_it(module: str) -> None:
    assert own_tests_of(module).exists() != (module in COVERED_BY), "either, and not both"


@pytest.mark.parametrize("module", COVERED_BY)
def test_what_covers_a_module_is_there(module: str) -> None:
    file, name = COVERED_BY[module].split("::")
    assert module in MODULES
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
