"""The options of the service: of ``clip-serve``, and of `clip_serve.create_app`."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from clip_toolkit.commands.running_options import MOST, DeviceOptions, IsolationOptions, MaxMemory, Verify
from clip_toolkit.images import MAX_PIXELS
from clip_toolkit.numbers import number, whole
from clip_toolkit.options import Group, Option, UsageError

MIB = 2**20

_seconds = number("of seconds from 0.1 to 3,600", lambda value: 0.1 <= value <= 3600)
_milliseconds = number("of milliseconds from 0 to 1,000", lambda value: 0 <= value <= 1000)


@dataclass(frozen=True)
class AddressOptions:
    """Who can reach the service.

    Raises:
        UsageError: others than this machine could, and no token is asked of them.
    """

    host: Annotated[str, Option("address to listen on", metavar="HOST")] = "127.0.0.1"
    port: Annotated[int, Option("port to listen on; 0 picks a free one", parse=whole(0, 65535), metavar="N")] = 8000
    token_file: Annotated[
        Path | None,
        Option("file with the bearer token that every request has to carry", parse=Path, metavar="FILE"),
    ] = None
    insecure: Annotated[bool, Option("listen beyond this machine without a token")] = False

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __post_init__(self) -> None:
        """Refuse an open door that nobody asked for."""
        if not (self.is_local or self.token_file or self.insecure):
            raise UsageError(f"--host {self.host} lets other machines in: ask for a token with --token-file FILE")


@dataclass(frozen=True)
class BatchingOptions:
    """How requests share runs of the network."""

    max_batch: Annotated[
        int, Option("most images in one run; fewer where more would change digits", parse=whole(most=64), metavar="N")
    ] = 8
    max_delay_ms: Annotated[
        float, Option("how long a run waits for images being decoded elsewhere", parse=_milliseconds, metavar="MS")
    ] = 2.0
    throughput: Annotated[
        bool, Option("one thread a run, which decodes, too: more images a second, a longer wait for a lone request")
    ] = False


@dataclass(frozen=True)
class LimitOptions:
    """What is taken in."""

    max_queue: Annotated[
        int, Option("requests at a time; beyond them the answer is 429", parse=whole(most=65536), metavar="N")
    ] = 128
    max_body: Annotated[int, Option("size of a request", parse=whole(most=1024), metavar="MIB")] = 16
    max_pixels: Annotated[int, Option("refuse images with more pixels", parse=whole(most=MAX_PIXELS), metavar="N")] = (
        50_000_000
    )
    allow_truncated: Annotated[bool, Option("use what there is of truncated images")] = False
    max_memory: MaxMemory = None
    timeout: Annotated[float, Option("time from a request's head to its answer", parse=_seconds, metavar="SECONDS")] = (
        30.0
    )
    drain: Annotated[
        float, Option("time that SIGTERM leaves to the requests taken in", parse=_seconds, metavar="SECONDS")
    ] = 30.0

    @property
    def body_bytes(self) -> int:
        """Size of a request, in bytes."""
        return self.max_body * MIB


@dataclass(frozen=True)
class ServeOptions:
    """All options of the service; the defaults are those of ``clip-serve``.

    Attributes:
        models: files of ``clip-export``: classifiers, and text towers for texts. None stands for the file that
            ``clip-infer`` would take.
        index: folder of ``clip-search``, for ``/v1/search``.
    """

    models: Annotated[
        tuple[str, ...],
        Option("model files; texts for /v1/embeddings and /v1/search need a text tower's", "MODEL", nargs="*"),
    ] = ()
    index: Annotated[Path | None, Option("index of clip-search, for /v1/search", parse=Path, metavar="DIR")] = None
    quiet: Annotated[bool, Option("no line for each request; errors and remarks stay")] = False
    watch: Annotated[
        float | None,
        Option("look so often whether a model file has changed, and read all anew", parse=_seconds, metavar="SECONDS"),
    ] = None
    admin: Annotated[bool, Option("let clients load and unload the models (the protocol's repository extension)")] = (
        False
    )
    verify: Verify = None
    device: Annotated[DeviceOptions, Group("running")] = DeviceOptions()
    batching: Annotated[BatchingOptions, Group("batching")] = BatchingOptions()
    limits: Annotated[LimitOptions, Group("limits")] = LimitOptions()
    address: Annotated[AddressOptions, Group("address")] = AddressOptions()
    isolation: Annotated[IsolationOptions | None, Group("isolation, for images from strangers (Linux)")] = None


MOST_IMAGES = MOST // 8
"""Images or texts of one request."""
