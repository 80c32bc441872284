"""All that the requests of one service share: models, index, threads, figures; and how the models are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from clip_serve.errors import NOT_FOUND, RequestError
from clip_serve.metrics import Metrics
from clip_serve.models.index import Index
from clip_serve.models.kinds import Images, Texts
from clip_serve.models.repository import Repository
from clip_serve.models.served import ONE_BY_ONE, Opened, Pools, Served
from clip_serve.options import ServeOptions
from clip_toolkit.errors import ClipToolkitError
from clip_toolkit.runtime.memory import limit_memory


class Service:
    """Models in service.

    Attributes:
        options: of the service.
        repository: the files that may be served.
        models: those that are, by name, in the order of the files.
        marks: of the files, from before they were last read.
        metrics: what was counted.
        draining: requests are still answered, and no more should come.
    """

    def __init__(self, options: ServeOptions) -> None:
        """Open all files.

        Raises:
            ModelError: one is missing, foreign or damaged, or two have the same name.
            SearchIndexError: the index is, or is of none of the models.
            DeviceError, MissingDependencyError: as in `clip_toolkit.load`.
        """
        self.options, self.metrics, self.draining = options, Metrics(), False
        if options.limits.max_memory is not None:
            limit_memory(options.limits.max_memory)
        self.repository = Repository(options)
        self._pools = Pools(options.device.threads)
        self._turn = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()
        self.models: dict[str, Served] = {}
        self.index: Index | None = None
        self._take(*self._opened(self.repository.paths))

    def _opened(self, names: Iterable[str]) -> tuple[list[Opened], Index | None]:
        """Open files, and the index for them and the models that stay."""
        self.marks = self.repository.marks()
        found = self.repository.open(names)
        return found, self.repository.open_index((self.models | {item.name: item for item in found}).values())

    def _take(self, opened: Sequence[Opened], index: Index | None) -> None:
        new = {item.name: Served(item, self.options, self._pools, self.metrics) for item in opened}
        for name in new.keys() & self.models.keys():
            self.models[name].retire()
        if self.index is not None:
            self.index.close()
        models = self.models | new
        self.models = {name: models[name] for name in self.repository.paths if name in models}
        self.index = index

    async def reload(self, say: Callable[[str], None]) -> None:
        """Read the files of all models in service again and replace them all, or none.

        Requests in flight end with the model that they began with.

        Args:
            say: told the outcome.
        """
        async with self._turn:
            await self._replace(list(self.models), say)

    async def _replace(self, names: Sequence[str], say: Callable[[str], None]) -> bool:
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, self._opened, names)
        except (ClipToolkitError, OSError) as error:
            self.metrics.reloads.labels("failed").inc()
            say(f"reload failed, the models stay as they are: {error}")
            return False
        self._take(*found)
        self.metrics.reloads.labels("succeeded").inc()
        say("reloaded: " + (", ".join(f"{name} {self.models[name].version}" for name in names) or "nothing"))
        return True

    async def load(self, name: str, say: Callable[[str], None]) -> None:
        """Load a model, or read its file anew; a caller that is cancelled does not stop it.

        Args:
            name: of the file.
            say: told the outcome, with what is not for clients.

        Raises:
            RequestError: there is no such file, or it cannot be served; the models stay as they are.
        """
        self.repository.check(name)
        await self._to_its_end(self._load(name, say))

    async def _load(self, name: str, say: Callable[[str], None]) -> None:
        async with self._turn:
            is_loaded = await self._replace([name], say)
        if not is_loaded:
            raise RequestError(f"model: {name} cannot be loaded, and all stays as it was. The log says why.")

    async def unload(self, name: str, say: Callable[[str], None]) -> None:
        """Take a model out of service, if it is in.

        Args:
            name: of the file.
            say: told the outcome.

        Raises:
            RequestError: there is no such file, or the index needs the model.
        """
        self.repository.check(name)
        await self._to_its_end(self._unload(name, say))

    async def _unload(self, name: str, say: Callable[[str], None]) -> None:
        async with self._turn:
            if self.index is not None and name in (self.index.images, self.index.texts):
                raise RequestError(f"model: {name} answers for the search index, and stays")
            if name in self.models:
                self.models.pop(name).retire()
                say(f"unloaded: {name}")

    async def _to_its_end(self, change: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    def notes(self) -> list[str]:
        """Return a line on each model: where it runs, and in which batches."""
        return [self._note(served) for served in self.models.values()]

    def _note(self, served: Served) -> str:
        model = served.kind.model
        many = f"batches up to {served.sizes[-1]}" if len(served.sizes) > 1 else self._why_alone(served)
        signed = () if self.options.verify is None else (f"signed by the owner of {self.options.verify}",)
        notes = (*signed, *model.notes)
        remarks = f" ({'; '.join(notes)})" if notes else ""
        return f"{served.name} {served.version}: {model.provider}, threads: {model.threads}, {many}{remarks}"

    def _why_alone(self, served: Served) -> str:
        is_wanted = "text" in served.kind.inputs or self.options.batching.max_batch == 1
        return "runs one by one" if is_wanted else ONE_BY_ONE

    def find(self, name: str | None = None, version: str | None = None) -> Served:
        """Return the model of a request; without a name the first.

        Raises:
            RequestError: there is none of this name or version.
        """
        served = self.models.get(name) if name else next(iter(self.models.values()), None)
        if served is None:
            raise RequestError(
                f"model: {name!r} is not served. There is: {', '.join(self.models) or 'none'}", NOT_FOUND
            )
        if version is not None and version != served.version:
            raise RequestError(
                f"model version: {version!r} of {served.name} is not served. There is: {served.version}", NOT_FOUND
            )
        return served

    def find_for(self, kind: type[Images | Texts], name: str | None = None) -> Served:
        """Return the model of a request that asks about an image, or a text; without a name the first of the kind.

        Raises:
            RequestError: there is none.
        """
        if name:
            return self.find(name)
        found = next((served for served in self.models.values() if isinstance(served.kind, kind)), None)
        if found is None:
            what = "images" if kind is Images else "texts alone: that takes a file of clip-export --text-tower"
            raise RequestError(f"no model served here reads {what}", NOT_FOUND)
        return found
