"""The records of a workspace are read in order; in a bucket, by few requests, many at a time."""

from collections import Counter

import pytest
from buckets import make_bucket
from s3fs import S3FileSystem

from hico_core.base.addresses import BucketPath, Location, locate
from hico_core.corpus.intake import Candidate, Rules, new_record, plan_intake
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.workspace.records import SplitOptions, read_records, record_path, record_text

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("buckets")]


class Requests:
    """The requests that s3fs makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        self.most_at_once = self._at_once = 0
        call = S3FileSystem._call_s3

        async def counted(system: S3FileSystem, method: str, *arguments: object, **named: object) -> object:
            self.count[method] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                return await call(system, method, *arguments, **named)
            finally:
                self._at_once -= 1

        monkeypatch.setattr(S3FileSystem, "_call_s3", counted)


def put(place: Location, content: bytes) -> None:
    assert isinstance(place, BucketPath)
    place.filesystem.pipe_file(place.key, content)


def test_records_in_a_bucket_are_listed_once_and_read_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request asks for a record that is not there."""
    make_bucket("records")
    root = locate("s3://records/root")
    ids = [f"{number:02d}" for number in range(40)]
    for name in ids:
        put(locate(f"s3://records/in/{name}.mp4"), b"video")
    candidates = [Candidate(source, SplitOptions()) for source in find_sources(["s3://records/in"])]
    known = candidates[::2]
    for candidate in known:
        record = new_record(candidate, None)
        put(record_path(root, record.video_id), record_text(record, root).encode())
    requests = Requests(monkeypatch)
    planned = plan_intake(candidates, root=root, rules=Rules())
    assert planned.plan.todo == candidates[1::2]
    assert [done.video_id for done in planned.plan.dealt_with] == ids[::2]
    assert requests.count["get_object"] == 20 and requests.count["list_objects_v2"] <= 2
    assert requests.most_at_once > 4
    requests.count.clear()
    assert [record.video_id for record in read_records(root)] == ids[::2]
    assert requests.count == {"get_object": 20, "list_objects_v2": 1}
