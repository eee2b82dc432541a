"""Which secrets may go where."""

import pytest
from tierflow import HandlerFailed
from tierflow_executor import released
from tierflow_executor.settings import ExecutorSettings
from tierflow_runtime.settings import load_settings


def test_a_secret_goes_to_its_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """L14, L15, L16: only what the operator released, only there, and only encrypted or on this machine; else refused for good."""
    monkeypatch.setenv("TIERFLOW_SECRETS", "KEY@api.example.com, LOCAL@127.0.0.1:8000, EMPTY@api.example.com")
    monkeypatch.setenv("KEY", "k-1")
    monkeypatch.setenv("LOCAL", "l-1")
    monkeypatch.setenv("OTHER", "o-1")
    monkeypatch.delenv("EMPTY", raising=False)
    assert released.token("KEY", "https://api.example.com/v1/chat") == "k-1"
    assert released.token("KEY", "https://API.example.com:8443/v1") == "k-1"
    assert released.token("LOCAL", "http://127.0.0.1:8000/v1") == "l-1"
    for name, url in (
        ("KEY", "https://evil.example.com/"),
        ("KEY", "https://api.example.com.evil.example.com/"),
        ("KEY", "https://api.example.com@evil.example.com/"),
        ("KEY", "http://api.example.com/"),
        ("LOCAL", "http://127.0.0.1:9000/"),
        ("OTHER", "https://api.example.com/"),
        ("EMPTY", "https://api.example.com/"),
    ):
        with pytest.raises(HandlerFailed) as refused:
            released.token(name, url)
        assert (refused.value.code, refused.value.retryable) == ("PERMISSION_DENIED", False)
        assert "-1" not in str(refused.value)


def test_wrong_settings_stop_the_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """L5: a secret without its host is refused at the start, naming the variable."""
    monkeypatch.setenv("TIERFLOW_SECRETS", "KEY@a.example.com")
    assert load_settings(ExecutorSettings).secrets == ("KEY@a.example.com",)
    monkeypatch.setenv("TIERFLOW_SECRETS", "KEY")
    with pytest.raises(SystemExit):
        load_settings(ExecutorSettings)
    assert "TIERFLOW_SECRETS" in capsys.readouterr().err
