"""What each service can be told, by environment variable."""

import importlib
import importlib.util

from tierflow_runtime.settings import Described, ServiceSettings, described

SERVICES = ("coordinator", "orchestrator", "executor")


def page() -> str:
    """The page."""
    parts = [
        "# Settings\n\nServices read environment variables when they start. A wrong or missing one stops the start with exit code 78 and a line that names it and what\n",
        "is expected. Times are seconds.\n",
        "\n## Every service\n",
        _table(ServiceSettings, without=frozenset()),
    ]
    for service in SERVICES:
        parts += [
            f"\n## {service.capitalize()}\n",
            _table(settings_of(service), without=frozenset(one.name for one in described(ServiceSettings))),
        ]
    return "".join(parts)


def settings_of(service: str) -> type[ServiceSettings]:
    """The class of a service's settings."""
    module = importlib.import_module(f"tierflow_{service}.settings")
    [found] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ServiceSettings) and value.__module__ == module.__name__
    ]
    return found


def _table(cls: type[ServiceSettings], without: frozenset[str]) -> str:
    shared = {one.name: one for one in described(ServiceSettings)}
    lines = ["\n| variable | default | |\n|---|---|---|"]
    for one in described(cls):
        if one.name in without and shared[one.name].default == one.default:
            continue
        lines.append(f"| `{one.variable}` | {_default(one)} | {one.description} |")
    return "\n".join(lines) + "\n"


def _default(one: Described) -> str:
    return "must be set" if one.required else _shown(one.default)


def _shown(default: object) -> str:
    if default is None or default in ("", (), {}):
        return "(none)"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
