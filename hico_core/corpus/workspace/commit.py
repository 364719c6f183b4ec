"""Replace a video's clips and record with new ones: a commit is first announced, then carried out.

In a local workspace, a commit is a folder with the clips, the record and a list of obsolete files, if any. Renaming it
makes the new state certain: if the process is killed afterwards, the next one carries out the rest; if it is killed
before, nothing has changed. This also holds if the machine loses power, since all that is renamed is on the disk by
then. In a bucket, where nothing can be renamed, the old record is removed first, so that it
never names clips for which it was not written.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from hico_core.base.addresses import Location, is_local
from hico_core.base.errors import HicoError
from hico_core.base.files import pass_point, sync
from hico_core.base.storage import publish
from hico_core.corpus.workspace.records import ClipRecord, VideoRecord, record_path, record_text

logger = logging.getLogger(__name__)

# Folder of a local workspace in which clips are made and commits wait to be carried out.
SCRATCH = ".tmp"

_PENDING = "commit-"
_RECORD, _OBSOLETE = "record.json", "obsolete.json"

# The content of a list of obsolete files; nothing but a clip is ever removed.
_OBSOLETE_CLIPS = TypeAdapter(list[Annotated[str, Field(pattern=r"^(train|val|test)/v_[^/]+\.mp4$")]])


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
    if obsolete := [path for path in old if path not in new]:
        (folder / _OBSOLETE).write_text(json.dumps(obsolete), encoding="utf-8")
    if is_local(root):
        for written in (*folder.iterdir(), folder):
            sync(written)
        pending = _pending(root, record.video_id)
        pending.parent.mkdir(parents=True, exist_ok=True)
        pass_point("commit.announce")
        folder.rename(pending)
        sync(pending.parent)
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
        text = (pending / _RECORD).read_bytes()
    except FileNotFoundError:
        if pending.is_dir():  # its record is in place, so only obsolete files may be left to remove
            _remove_obsolete(root, pending)
        return
    try:
        record = VideoRecord.model_validate_json(text)
    except ValidationError as error:
        raise HicoError(f"{pending}: not a commit of this version of hico; remove the folder") from error
    if _is_whole(record, pending):
        _carry_out(root, record, pending)
    else:
        logger.warning("%s: clips of %r in an interrupted commit are damaged; dropped it", pending, record.video_id)
        shutil.rmtree(pending)


def _is_whole(record: VideoRecord, pending: Path) -> bool:
    """Whether no clip that still waits in a commit's folder has lost content.

    A disk that confirms writes too early can lose them when the power fails.
    """
    waiting = [(_made(clip, pending), clip.size_bytes) for clip in record.clips]
    return all(made.stat().st_size == size for made, size in waiting if made.exists())


def _made(clip: ClipRecord, folder: Path) -> Path:
    """Where a clip lies in a commit's folder until it is moved."""
    return folder / clip.path.rsplit("/", 1)[-1]


def _carry_out(root: Location, record: VideoRecord, folder: Path) -> None:
    """Move the clips, then the record, then remove obsolete files; any step may already have been done."""
    if record.options.kind == "split":
        for clip in record.clips:
            made = _made(clip, folder)
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
        for path in _obsolete_in(listed):
            pass_point("commit.obsolete")
            (root / path).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _obsolete_in(listed: Path) -> list[str]:
    try:
        return _OBSOLETE_CLIPS.validate_json(listed.read_bytes())
    except ValidationError:
        logger.warning("%s: damaged; `hico index --check` names the replaced clips, which remain", listed)
        return []
