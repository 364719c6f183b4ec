"""A real S3 server on this machine, for tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server; yield its address. All that reads s3:// in this process finds it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield address
    server.stop()


def make_bucket(name: str) -> None:
    boto3.client("s3").create_bucket(Bucket=name)


def put_denied(bucket: str, key: str, content: bytes) -> None:
    """An object that is listed, but that nobody may read."""
    client, resource = boto3.client("s3"), f"arn:aws:s3:::{bucket}/{key}"
    client.put_object(Bucket=bucket, Key=key, Body=content)
    denial = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [denial]}))


def keys_in(bucket: str) -> dict[str, bytes]:
    """All objects of a bucket, read without the code under test."""
    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"]: client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in found}
