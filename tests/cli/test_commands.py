"""The commands as a person runs them, good and bad."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from commands import TINY, assert_one_line, hico, hico_process, running
from made_videos import numbered_video
from rich.table import Table

from hico_cli import console
from hico_cli.console import noting_signals, now_and_then, print_table, progress
from hico_cli.main import COMMANDS as EXAMPLES
from hico_cli.main import app
from hico_core.base.errors import Interrupted
from hico_core.checkpoints.authors_names import export_state_dict
from hico_core.corpus.index import read_index
from hico_core.data import decode as decode_module
from hico_core.data.other_decoders import OtherDecoder, decode_elsewhere
from hico_core.model.hico import HicoModel

pytestmark = pytest.mark.videos

# command -> an option or argument of its own
COMMANDS = {
    "run": "--hours",
    "split": "--segment-seconds",
    "index": "--adopt",
    "pretrain": "--init-from",
    "extract-features": "--stride",
    "finetune": "--linear",
    "probe": "--shots",
    "compare": "--folds",
    "evaluate": "--crops",
    "retrieve": "--protocol",
    "export-tad": "--for",
    "demo": "--corpus-only",
    "report": "--output",
    "inspect": "--samples",
    "convert": "--to",
    "doctor": "--loader",
    "config": "validate",
    "features": "check",
    "remove": "--dry-run",
}


def test_help() -> None:
    done = hico("--help")
    assert done.returncode == 0
    lines = [line.strip("│ ").split() for line in done.stdout.partition(" Pipeline ")[2].splitlines()]
    assert {words[0] for words in lines if words} >= COMMANDS.keys()
    assert {command.name for command in app.registered_commands} | {"config", "features"} == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    done = hico(command, "--help")
    assert done.returncode == 0
    assert COMMANDS[command] in done.stdout
    assert hico(command, "-h").stdout == done.stdout
    has_root = command not in {"inspect", "convert", "config", "features", "demo", "report"}
    assert ("--root" in done.stdout and "HICO_ROOT" in done.stdout) == has_root


@pytest.mark.parametrize(("name", "example"), [(name, line) for _, name, _, lines in EXAMPLES for line in lines])
def test_examples_in_the_help_can_be_typed(name: str, example: str) -> None:
    program, command, *arguments = shlex.split(example)
    assert (program, command) == ("hico", name)
    group = typer.main.get_command(app)
    given = group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
    assert given.get("toolkit") != "opentad" or given["checkout"], "OpenTAD is refused without its checkout"
    assert not any(word.startswith("v_") for word in given.get("video_ids", ())), "no id begins with v_"


def leaves(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command that does something."""
    inner: dict[str, object] = getattr(command, "commands", {})
    return [leaf for name, child in inner.items() for leaf in leaves(child, (*path, name))] or [path]


@pytest.mark.parametrize("words", leaves(typer.main.get_command(app)), ids=" ".join)
def test_every_command_has_json(words: tuple[str, ...]) -> None:
    done = hico(*words, "-h")
    assert done.returncode == 0 and "--json" in done.stdout


@pytest.mark.parametrize("words", [(), ("config",), ("features",)], ids=" ".join)
def test_a_group_alone_shows_its_help(words: tuple[str, ...]) -> None:
    done = hico(*words)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.strip() == hico(*words, "-h").stdout.strip()


@pytest.mark.processes
def test_a_shell_completes_commands() -> None:
    shell = {**os.environ, "_HICO_COMPLETE": "complete_bash", "COMP_WORDS": "hico ext", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "hico_cli"], env=shell, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["extract-features"]


@pytest.mark.parametrize("command", ["pretrain", "extract-features", "run videos"])
@pytest.mark.parametrize("name", ["../../elsewhere", "..", "a\\b", ".", ""])
def test_names_do_not_lead_out_of_the_workspace(command: str, name: str, tmp_path: Path) -> None:
    """Nor do they name the folder of all runs, as an unset variable would."""
    done = hico(*command.split(), "--name", name, root=tmp_path)
    assert done.returncode == 2
    assert "--name" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    numbered_video(folder / "-dash.mp4", seconds=6)
    numbered_video(folder / "v_with a space.mp4", seconds=11, fps="30000/1001")
    numbered_video(folder / "v_plain.webm", seconds=7, output=("-c:v", "libvpx", "-crf", "10", "-b:v", "1M"))
    return folder


@pytest.fixture(scope="module")
def root(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four commands, one after the other, with nothing but the workspace's place."""
    root = tmp_path_factory.mktemp("story") / "root"
    for arguments in (
        ["split", str(videos)],
        ["index"],
        ["pretrain", "--dataset", "hacs", *TINY, "--epochs", "4", "--max-steps", "2"],
        ["extract-features"],
    ):
        done = hico(*arguments, root=root)
        assert done.returncode == 0, done.stderr
    return root


def test_the_four_commands(root: Path) -> None:
    index = read_index(root)
    assert sorted(set(index["video_id"])) == ["-dash", "plain", "with a space"]
    lines = (root / "training.txt").read_text().splitlines()
    assert len(lines) == len(index) == len(list((root / "train").iterdir()))
    for line, path in zip(lines, index["path"].tolist(), strict=True):
        video_id, start, end = line.rsplit(",", 2)
        assert path == f"train/v_{video_id}_{start}_{end}.mp4"
        assert (root / path).exists()

    run = root / "runs/hacs-hico-s"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2 and all(np.isfinite(row["loss"]) for row in metrics)

    manifest = root / "features/hacs-hico-s/manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [row["video_id"] for row in rows] == ["-dash", "plain", "with a space"]
    for row in rows:
        assert np.load(manifest.parent / row["file"]).shape == (row["rows"], 128)


def test_running_again_changes_nothing(root: Path, videos: Path) -> None:
    done = hico("split", videos, root=root)
    assert done.returncode == 0 and "0 videos split, 3 unchanged, 0 failed" in done.stdout
    done = hico("extract-features", root=root)
    assert done.returncode == 0 and "0 videos extracted, 3 unchanged" in done.stdout
    done = hico("pretrain", *TINY, "--epochs", "4", "--max-steps", "2", root=root)
    assert_one_line(done, 2, "runs/hacs-hico-s", "--resume")
    done = hico("pretrain", *TINY, "--epochs", "4", "--max-steps", "3", "--resume", root=root)
    assert done.returncode == 0 and done.stdout.startswith("3 steps in ") and "mean loss" in done.stdout
    done = hico("pretrain", *TINY, "--epochs", "4", "--max-steps", "3", "--resume", root=root)
    assert done.stderr.endswith("/hacs-hico-s: already finished after 3 steps; to train for longer: --max-steps N\n")


def test_features_of_files_by_the_authors_checkpoint(root: Path, videos: Path, tmp_path: Path) -> None:
    torch.save({"epoch": 9, "model_state": export_state_dict(HicoModel().state_dict())}, tmp_path / "theirs.pyth")
    done = hico(
        *("extract-features", "--checkpoint", tmp_path / "theirs.pyth", "--prefix", "v_", "--stride", "8"),
        *("--root", tmp_path / "root", videos / "v_plain.webm"),
    )
    assert done.returncode == 0, done.stderr
    array = np.load(tmp_path / "root/features/theirs/v_plain.npy")
    assert array.shape == (1 + -(-(7 * 15 - 16) // 8), 1024)


@pytest.mark.processes
def test_quiet(root: Path, videos: Path) -> None:
    done = hico_process("--quiet", "split", videos, root=root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 unchanged" in done.stdout


def test_json(root: Path, videos: Path) -> None:
    done = hico("split", videos, "--json", root=root)
    assert json.loads(done.stdout)["num_unchanged"] == 3
    assert [json.loads(line)["outcome"] for line in done.stderr.splitlines()] == ["unchanged"] * 3
    assert json.loads(hico("index", "--json", root=root).stdout)["num_videos"] == 3
    done = hico("pretrain", *TINY, "--dry-run", "--json", root=root)
    assert json.loads(done.stdout)["config"]["train"]["batch_size"] == 2
    assert json.loads(done.stdout)["num_videos"] == 3


def test_dry_run_shows_configuration_and_sizes(root: Path) -> None:
    done = hico(
        *("pretrain", *TINY, "-o", "model.encoder=s3dg", "--epochs", "12", "--dry-run", "--name", "dry"), root=root
    )
    assert done.returncode == 0, done.stderr
    assert "warmup_epochs: 0.5" in done.stdout, "the warm-up changes in proportion"
    assert "encoder_parameters: 9098000" in done.stdout
    assert re.search(r"^time: \d+\.\d (seconds|minutes|hours)$", done.stdout, re.MULTILINE)
    assert re.search(r"^peak_memory: \d+\.\d [GM]B$", done.stdout, re.MULTILINE)
    assert not (root / "runs/dry").exists()


def test_decoders_give_the_same_loss(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    losses: dict[str, float] = {}
    used: list[str] = []

    def noting(path: Path, numbers: list[int], *, decoder: OtherDecoder, short_side: int | None) -> list[np.ndarray]:
        used.append(decoder)
        return decode_elsewhere(path, numbers, decoder=decoder, short_side=short_side)

    monkeypatch.setattr(decode_module, "decode_elsewhere", noting)
    for decoder, others in (("pyav", set()), ("decord", {"decord"})):
        done = hico(
            "pretrain", *TINY, "-o", "data.workers=0", "-o", f"data.decoder={decoder}", "--dry-run", "--json", root=root
        )
        losses[decoder] = json.loads(done.stdout)["loss"]
        assert set(used) == others
    assert losses["pyav"] == losses["decord"]


def test_some_failed(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    done = hico("split", videos / "-dash.mp4", tmp_path / "text.mp4", "--root", tmp_path / "root")
    assert done.returncode == 3
    assert "1 video split, 0 unchanged, 1 failed" in done.stdout
    assert "text.mp4: cannot be opened as a video" in done.stderr
    (failure,) = [json.loads(line) for line in (tmp_path / "root/failures.jsonl").read_text().splitlines()]
    assert failure["source"] == str(tmp_path / "text.mp4")


def test_a_name_with_a_dash_is_a_file(videos: Path, tmp_path: Path) -> None:
    done = hico("split", "--root", tmp_path / "root", "--", "-dash.mp4", cwd=videos)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "root/train/v_-dash_0000000_0005000.mp4").exists()


def test_a_recipes_batch_is_lowered_to_the_videos_there_are(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Reported once, with what it means for the learning rate; a batch size that was asked for is kept."""
    small = [part for part in TINY if part not in ("--batch-size", "2")]
    done = hico("pretrain", *small, "--name", "lowered", "--max-steps", "1", "-o", "data.workers=0", root=root)
    assert done.returncode == 0, done.stderr
    said = (
        "only 3 videos: batch size 3 instead of 32, peak learning rate 0.01055 instead of 0.1125; for a smaller one: "
        "--batch-size"
    )
    assert caplog.text.count(said) == 1
    config = yaml.safe_load((root / "runs/lowered/config.yaml").read_text())
    assert config["train"]["batch_size"] == 3
    again = hico(
        "pretrain",
        *small,
        "--name",
        "lowered",
        "--resume",
        "-o",
        "train.max_steps=2",
        "-o",
        "data.workers=0",
        root=root,
    )
    assert again.returncode == 0, again.stderr
    for asked in (("--batch-size", "32"), ("-o", "train.batch_size=32")):
        assert_one_line(hico("pretrain", *small, *asked, "--name", "x", root=root), 1, "a batch of 32 is too large")


def test_one_line_for_each_mistake(root: Path, videos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_line(hico("split", tmp_path / "nowhere"), 2, "nowhere", "no such file or folder")
    assert_one_line(hico("split", empty), 2, "no video files in this folder")
    assert_one_line(hico("index", root=empty), 1, "run `hico split")
    assert_one_line(hico("pretrain", root=empty), 1, "index.parquet", "run `hico index")
    asked = ("pretrain", "--name", "new", "--batch-size", "32")
    assert_one_line(hico(*asked, root=root), 1, "a batch of 32 is too large for 3 videos", "make it 3 or smaller")
    assert_one_line(hico("pretrain", "-o", "optim.base_lrr=1", root=root), 2, "optim.base_lrr", "optim.base_lr")
    assert_one_line(hico("pretrain", "--config", empty / "x.yaml", root=root), 2, "x.yaml: cannot be read")
    conflict = hico("pretrain", "--dataset", "k400", "--recipe", "hacs-hico-s", root=root)
    assert conflict.returncode == 2 and "--recipe: hacs-hico-s is not a recipe for --dataset k400" in conflict.stderr
    assert_one_line(hico("pretrain", "--recipe", "simclr-l", root=root), 2, "hacs-simclr-l: no such recipe")
    assert_one_line(hico("extract-features", root=empty), 1, "run `hico pretrain`, or use --encoder")
    done = hico("extract-features", "--checkpoint", videos / "-dash.mp4", root=root)
    assert_one_line(done, 1, "-dash.mp4: not a checkpoint")
    (tmp_path / "file").write_text("")
    assert_one_line(hico("split", videos, "--root", tmp_path / "file" / "root"), 2, "file is a file; name a folder")
    if not torch.cuda.is_available():
        assert_one_line(hico("pretrain", "--device", "cuda", *TINY, root=root), 2, "--device cuda")


@pytest.mark.parametrize(
    ("total", "seconds", "expected"),
    [
        (3, 0.0, [1, 2, 3]),
        (30, 0.0, [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 30]),
        (30, 6.0, [*range(1, 31, 2), 30]),  # every 10 seconds at least
        (30, 11.0, list(range(1, 31))),
    ],
)
def test_a_log_has_a_line_now_and_then(total: int, seconds: float, expected: list[int]) -> None:
    time_now = 0.0
    is_due = now_and_then(total, lambda: time_now)
    due = []
    for done in range(1, total + 1):
        time_now += seconds
        if is_due(done):
            due.append(done)
    assert due == expected


def test_brackets_and_colons_in_names_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """File names are no markup of the terminal library, in progress and in tables."""
    name = "concert [official video] :smile: [/b]"
    table = Table(name)
    table.add_row(name)
    print_table(table)
    assert capsys.readouterr().out.count(name) == 2
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with progress("split", total=1, as_json=False) as report:
        report(1, name, {})
    assert name in capsys.readouterr().err


@pytest.mark.processes
def test_a_result_is_printed_in_any_encoding(tmp_path: Path) -> None:
    """A terminal of another country, or a folder whose name is not UTF-8, costs no result."""
    (tmp_path / "é\udcff.yaml").write_text("dataset: hacs\n")
    for encoding, said in (("ascii", b"\\xe9\\udcff"), ("utf-8", "é".encode() + b"\\udcff")):
        typed = [sys.executable, "-m", "hico_cli", "config", "validate", str(tmp_path / "é\udcff.yaml")]
        done = subprocess.run(typed, env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert said + b".yaml: valid" in done.stdout


@pytest.mark.processes
def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = hico_process("--debug", "index", root=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "nothing has been split here yet" in done.stderr


def test_two_files_with_one_id(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.mp4").write_bytes(b"")
    done = hico("split", videos, tmp_path / "plain.mp4", "--root", tmp_path / "root")
    assert_one_line(done, 1, "v_plain.webm", "plain.mp4", "'plain'")
    assert not (tmp_path / "root").exists()


def others_in_session(leader: int) -> set[int]:
    """What a command has started that runs still; none where there is no /proc."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            state, _, _, session, *_ = entry.read_text().rsplit(")", 1)[1].split()
            if int(session) == leader and state != "Z":
                found.add(int(entry.parent.name))
    return found - {leader}


@pytest.mark.parametrize(
    ("first", "second", "ends_at_once"),
    [
        (signal.SIGTERM, signal.SIGTERM, False),  # to the launcher, which forwards it, and to all processes
        (signal.SIGINT, signal.SIGINT, True),
        (signal.SIGTERM, signal.SIGINT, True),
        (signal.SIGINT, signal.SIGTERM, True),  # what the launcher makes of a second Ctrl-C
    ],
)
def test_a_second_ctrl_c_ends_a_run_at_once(
    first: signal.Signals, second: signal.Signals, ends_at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_ONE_SIGNAL_SECONDS", 0.0)
    with pytest.raises(Interrupted) if ends_at_once else nullcontext(), noting_signals() as stop:
        signal.raise_signal(first)
        assert stop.signal_number == first
        signal.raise_signal(second)
        assert not ends_at_once and stop.signal_number == first


@pytest.mark.processes
@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_pretraining_leaves_no_process_and_goes_on(root: Path, how: signal.Signals, code: int) -> None:
    """SIGTERM comes to all its processes, as `timeout` sends it, and only the command itself heeds it."""
    name = f"stopped-by-{code}"
    arguments = ["pretrain", *TINY, "--epochs", "500", "-o", "data.workers=1", "--name", name]
    command = [sys.executable, "-c", "from hico_cli.main import main; main()", *arguments, "--root", str(root)]
    with running(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("step 1 ")
        others = others_in_session(process.pid)
        for other in others if how == signal.SIGTERM else ():
            os.kill(other, how)
        time.sleep(0.2)
        assert others_in_session(process.pid) == others
        process.send_signal(how)
        if how == signal.SIGTERM:
            os.killpg(process.pid, how)
        said = process.stderr.read().splitlines()  # to its end: all processes that could write are gone
    assert process.returncode == code
    if how == signal.SIGKILL:
        return  # tests/training/test_loop.py goes on from there
    stopping, stopped = (line for line in said if not line.startswith("step "))
    assert stopping.startswith("hico: stopping after this step") and stopped.startswith("hico: stopped after step")
    log = root / "runs" / name / "metrics.jsonl"
    steps = len(log.read_text().splitlines()) + 2  # a fast machine has done some by now
    done = hico(*arguments, "--resume", "--max-steps", str(steps), root=root)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, steps + 1))
