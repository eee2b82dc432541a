"""Large values by their content (rule R33), over gRPC."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc
from tierflow_durable.batch import CHUNK, blob_name
from tierflow_durable.durable import Durable
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

from tierflow_orchestrator.checks import violated

SERVICE = "tierflow.orchestrator.v1.BlobService"
LARGEST = 64 * 1024 * 1024
_NAME = re.compile(r"[0-9a-f]{64}")


class BlobService(rpc.BlobServiceServicer):
    """See proto/tierflow/orchestrator/v1/orchestrator_service.proto."""

    def __init__(self, durable: Durable) -> None:
        self._durable = durable

    async def PutBlob(self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Any) -> pb.PutBlobResponse:  # noqa: N802
        """See the proto."""
        name = ""
        content = bytearray()
        async for message in request_iterator:
            if message.WhichOneof("part") == "sha256":
                name = message.sha256
                continue
            content += message.chunk
            if len(content) > LARGEST:
                raise FailureError(
                    failure(
                        "PAYLOAD_TOO_LARGE",
                        f"a stored value has at most {LARGEST} bytes",
                        component="blobs",
                        operation="put_blob",
                    )
                )
        if not _NAME.fullmatch(name):
            raise violated("sha256", "the first message names the content: 64 lower-case hex digits", "put_blob")
        if blob_name(bytes(content)) != name:
            raise violated(
                "chunk", f"the content is not what sha256 names: it is {blob_name(bytes(content))}", "put_blob"
            )
        created = await self._durable.host.writer.put_blob(name, bytes(content))
        return pb.PutBlobResponse(size=len(content), created=created)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> AsyncIterator[pb.GetBlobResponse]:  # noqa: N802
        """See the proto."""
        if not _NAME.fullmatch(request.sha256):
            raise violated("sha256", "64 lower-case hex digits", "get_blob")
        content = await self._durable.reader.blob(request.sha256)
        for start in range(0, max(1, len(content)), CHUNK):
            yield pb.GetBlobResponse(chunk=content[start : start + CHUNK])
