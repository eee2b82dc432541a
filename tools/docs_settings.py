"""What each service can be told, by environment variable."""

import importlib
import importlib.util

from tierflow_runtime.settings import PREFIX, ServiceSettings

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
            _table(settings_of(service), without=frozenset(ServiceSettings.model_fields)),
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
    lines = ["\n| variable | default | |\n|---|---|---|"]
    for name, field in cls.model_fields.items():
        base = ServiceSettings.model_fields.get(name)
        if name in without and base is not None and base.default == field.default:
            continue
        variable = field.validation_alias if isinstance(field.validation_alias, str) else PREFIX + name.upper()
        default = "must be set" if field.is_required() else _shown(field.default)
        lines.append(f"| `{variable}` | {default} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def _shown(default: object) -> str:
    if default is None or default in ("", (), {}):
        return "(none)"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
