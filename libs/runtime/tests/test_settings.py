"""Settings."""

import os
from typing import Annotated

import pytest
from msgspec import Meta, structs
from tierflow_runtime.settings import Addresses, Modules, ServiceSettings, StatefulSettings, load_settings


class Service(ServiceSettings, frozen=True, kw_only=True):
    """Settings of a service of its own."""

    port: int = 7702
    executors: Annotated[Addresses, Meta(description="host:port or dns:///name:port, separated by commas")] = ()
    handlers: Annotated[Modules, Meta(description="names of Python modules, separated by commas")] = ()


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(("TIERFLOW_", "OTEL_"))]:
        monkeypatch.delenv(name)


def test_defaults() -> None:
    """B7: a service with nothing set listens on loopback, in development mode, and looks for no collector."""
    settings = load_settings(Service)
    assert (settings.host, settings.port, settings.is_development) == ("127.0.0.1", 7702, True)
    assert (settings.admin_port, settings.metrics_port, settings.otel_endpoint) == (None, None, "")
    assert settings.instance_name.endswith(":7702")
    assert structs.replace(settings, port=0).instance_name.endswith(f":process-{os.getpid()}")


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """L5: every setting comes from its TIERFLOW_ variable, lists by commas."""
    values = {
        "TIERFLOW_NAME": "t2-a",
        "TIERFLOW_EXECUTORS": "a:1, dns:///executors:7703,[::1]:9",
        "TIERFLOW_HANDLERS": "my_package.handlers, other",
        "TIERFLOW_LOG_LEVEL": "WARNING",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "TIERFLOW_ADMIN_PORT": "",
        "TIERFLOW_UNKNOWN": "ignored",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(Service)
    assert settings.executors == ("a:1", "dns:///executors:7703", "[::1]:9")
    assert settings.handlers == ("my_package.handlers", "other")
    assert (settings.instance_name, settings.log_level, settings.admin_port) == ("t2-a", "warning", None)
    assert settings.otel_endpoint == "http://collector:4317"


@pytest.mark.parametrize("value", ["a", "a:0", "a:70000", "a:1,b", "http://a:1"])
def test_bad_addresses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str) -> None:
    """L5: an address without a port, or with one that is none, is refused by name."""
    monkeypatch.setenv("TIERFLOW_EXECUTORS", value)
    with pytest.raises(SystemExit) as ended:
        load_settings(Service)
    assert ended.value.code == 78
    assert (
        capsys.readouterr().err
        == "configuration: TIERFLOW_EXECUTORS is not valid; expected host:port or dns:///name:port\n"
    )


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """L16: a password is neither in the settings' text nor in what is said of a bad one."""
    secret = "postgresql://u:tops3cret@h:1/d"
    assert "tops3cret" not in repr(StatefulSettings(database_url=secret))
    monkeypatch.setenv("TIERFLOW_DATABASE_URL", secret.replace(":1/", ":99999/"))
    with pytest.raises(SystemExit):
        load_settings(StatefulSettings)
    said = capsys.readouterr().err
    assert "TIERFLOW_DATABASE_URL" in said
    assert "tops3cret" not in said


@pytest.mark.parametrize(
    ("settings", "open_"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "insecure": True}, True),
        ({"development": False}, False),
        ({"host": "10.0.0.1", "insecure": True, "development": False}, False),
    ],
)
def test_development_mode(settings: dict[str, object], open_: bool) -> None:
    """L14: everybody is let in on loopback only, unless somebody says in so many words that it be otherwise."""
    assert Service(**settings).is_development is open_


def test_settings_do_not_change() -> None:
    """L1: settings are decided at the start."""
    with pytest.raises(AttributeError, match="immutable"):
        Service().port = 1


@pytest.mark.parametrize(
    "url", ["postgresql://u@/d?host=/var/run/postgresql", "postgres://h/d", "postgresql://u:p%40@[::1]:5432/d"]
)
def test_database_urls(url: str) -> None:
    """Q30: addresses by socket, by IPv6 and with escaped passwords are taken."""
    assert load_settings(StatefulSettings, {"TIERFLOW_DATABASE_URL": url}).database_url == url
