"""All that the requests of one service share: models, index, threads, figures; and how the models are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from clip_serve.errors import NOT_FOUND, RequestError
from clip_serve.metrics import Metrics
from clip_serve.models.index import Index
from clip_serve.models.kinds import Images, Texts
from clip_serve.models.served import ONE_BY_ONE, Opened, Pools, Served, open_model
from clip_serve.options import ServeOptions
from clip_toolkit.errors import ClipToolkitError, ModelError
from clip_toolkit.files.locate import find_model


class Service:
    """Models in service.

    Attributes:
        options: of the service.
        models: by name.
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
        self._paths = [find_model(model).path for model in options.models or (None,)]
        self._pools = Pools(options.device.threads)
        self.models: dict[str, Served] = {}
        self.index: Index | None = None
        self._take(*self._opened())

    def _opened(self) -> tuple[list[Opened], Index | None]:
        names = [path.stem for path in self._paths]
        for name in names:
            if names.count(name) > 1:
                raise ModelError(f"{name}: two models have this name. Requests name models by their files: rename one.")
        found = [open_model(path, self.options) for path in self._paths]
        return found, Index(self.options.index, found) if self.options.index else None

    def _take(self, opened: Sequence[Opened], index: Index | None) -> None:
        for served in self.models.values():
            served.retire()
        if self.index is not None:
            self.index.close()
        self.models = {item.name: Served(item, self.options, self._pools, self.metrics) for item in opened}
        self.index = index

    async def reload(self, say: Callable[[str], None]) -> None:
        """Read all files again and replace all models, or none; requests in flight end with the model they began with.

        Args:
            say: told the outcome.
        """
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, self._opened)
        except (ClipToolkitError, OSError) as error:
            self.metrics.reloads.labels("failed").inc()
            say(f"reload failed, the models stay as they are: {error}")
        else:
            self._take(*found)
            self.metrics.reloads.labels("succeeded").inc()
            say("reloaded: " + ", ".join(f"{served.name} {served.version}" for served in self.models.values()))

    def notes(self) -> list[str]:
        """Return a line on each model: where it runs, and in which batches."""
        return [self._note(served) for served in self.models.values()]

    def _note(self, served: Served) -> str:
        model = served.kind.model
        many = f"batches up to {served.sizes[-1]}" if len(served.sizes) > 1 else self._why_alone(served)
        remarks = f" ({'; '.join(model.notes)})" if model.notes else ""
        return f"{served.name} {served.version}: {model.provider}, threads: {model.threads}, {many}{remarks}"

    def _why_alone(self, served: Served) -> str:
        is_wanted = "text" in served.kind.inputs or self.options.batching.max_batch == 1
        return "runs one by one" if is_wanted else ONE_BY_ONE

    def find(self, name: str | None = None, version: str | None = None) -> Served:
        """Return the model of a request; without a name the first.

        Raises:
            RequestError: there is none of this name or version.
        """
        served = self.models.get(name) if name else next(iter(self.models.values()))
        if served is None:
            raise RequestError(f"model: {name!r} is not served. There is: {', '.join(self.models)}", NOT_FOUND)
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
