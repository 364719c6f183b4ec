"""Replace a video's clips and record with new ones: a commit is first announced, then carried out.

In a local workspace, a commit is a folder with the clips, the record and a list of obsolete files. Renaming the folder
makes the new state certain: if the process is killed afterwards, the next one carries out the rest; if it is killed
before, nothing has changed. In a bucket, where nothing can be renamed, the old record is removed first, so that it
never names clips for which it was not written.
"""

import hashlib
import json
import shutil
from pathlib import Path

from pydantic import ValidationError

from hico_core.base.addresses import Location, is_local
from hico_core.base.errors import HicoError
from hico_core.base.files import pass_point, sync
from hico_core.base.storage import publish
from hico_core.corpus.workspace.records import VideoRecord, record_path, record_text

# Folder of a local workspace in which clips are made and commits wait to be carried out.
SCRATCH = ".tmp"

_PENDING = "commit-"
_RECORD, _OBSOLETE = "record.json", "obsolete.json"


def commit(root: Location, record: VideoRecord, folder: Path, before: VideoRecord | None) -> None:
    """Replace a video's current record and clips with a new record and the clips in a folder.

    Args:
        root: the workspace.
        record: the new record.
        folder: holds the new clips, under the last part of their paths; on the workspace's disk if that is local.
        before: the current record, if there is one.

    """
    new = {clip.path for clip in record.clips}
    were_made_here = before is not None and before.options.kind == "split"
    old = [clip.path for clip in before.clips] if before is not None and were_made_here else []
    (folder / _RECORD).write_text(record_text(record, root), encoding="utf-8")
    (folder / _OBSOLETE).write_text(json.dumps([path for path in old if path not in new]), encoding="utf-8")
    sync(folder / _RECORD)
    if is_local(root):
        pending = _pending(root, record.video_id)
        pending.parent.mkdir(parents=True, exist_ok=True)
        pass_point("commit.announce")
        folder.rename(pending)
        pass_point("commit.announced")
        _finish(root, pending)
        return
    if old:
        record_path(root, record.video_id).unlink(missing_ok=True)
    _carry_out(root, record, folder)


def finish_commit(root: Location, video_id: str) -> None:
    """Carry out a video's announced but interrupted commit, if there is one."""
    if is_local(root):
        _finish(root, _pending(root, video_id))


def finish_commits(root: Path) -> None:
    """Carry out all announced but interrupted commits of a workspace, to which nothing else may be writing."""
    for pending in (root / SCRATCH).glob(f"{_PENDING}*"):
        _finish(root, pending)


def _pending(root: Path, video_id: str) -> Path:
    """The folder in which a video's commit waits; its name is short, however long the id is."""
    return root / SCRATCH / f"{_PENDING}{hashlib.sha256(video_id.encode()).hexdigest()[:32]}"


def _finish(root: Path, pending: Path) -> None:
    try:
        text = (pending / _RECORD).read_text(encoding="utf-8")
    except FileNotFoundError:
        if pending.is_dir():  # its record is in place, so only obsolete files may be left to remove
            _remove_obsolete(root, pending)
        return
    try:
        record = VideoRecord.model_validate_json(text)
    except ValidationError as error:
        raise HicoError(f"{pending}: not a commit of this version of hico; remove the folder") from error
    _carry_out(root, record, pending)


def _carry_out(root: Location, record: VideoRecord, folder: Path) -> None:
    """Move the clips, then the record, then remove obsolete files; any step may already have been done."""
    if record.options.kind == "split":
        for clip in record.clips:
            made = folder / clip.path.rsplit("/", 1)[-1]
            if made.exists():
                pass_point("commit.clip")
                publish(made, root / clip.path)
    pass_point("commit.record")
    publish(folder / _RECORD, record_path(root, record.video_id))
    pass_point("commit.recorded")
    _remove_obsolete(root, folder)


def _remove_obsolete(root: Location, folder: Path) -> None:
    """Remove a video's previous clips that its new record no longer lists; a record of this workspace listed them."""
    listed = folder / _OBSOLETE
    if listed.exists():
        for path in json.loads(listed.read_text(encoding="utf-8")):
            pass_point("commit.obsolete")
            (root / path).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
