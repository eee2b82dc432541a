"""Which handlers there are, by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator

from tierflow.handler import Handler, declared


class DuplicateHandler(ValueError):
    """Two handlers have the same name."""


class Registry:
    """Handlers by name. A name can be given once."""

    def __init__(self, handlers: Iterable[Handler] = ()) -> None:
        self._handlers: dict[str, Handler] = {}
        for each in handlers:
            self.add(each)

    def add(self, entry: Handler) -> None:
        """Adds a handler.

        Raises:
            DuplicateHandler: Another handler has its name.
        """
        present = self._handlers.get(entry.name)
        if present is not None and present is not entry:
            raise DuplicateHandler(f"two handlers are named {entry.name!r}: {present.origin} and {entry.origin}")
        self._handlers[entry.name] = entry

    def load(self, module: str) -> int:
        """Imports a module and adds the handlers that it declares or has imported from its own submodules.

        Returns:
            How many handlers it has.

        Raises:
            DuplicateHandler: A name is taken.
            Exception: Whatever importing the module raises.
        """
        importlib.import_module(module)
        found = [entry for entry in declared() if entry.module == module or entry.module.startswith(module + ".")]
        for entry in found:
            self.add(entry)
        return len(found)

    def get(self, name: str) -> Handler | None:
        """The handler of that name, or None."""
        return self._handlers.get(name)

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)
