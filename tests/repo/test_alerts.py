"""The rules for Prometheus: what they read is what services show, and the promises of availability are in them."""

import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "k8s" / "components" / "alerts" / "tierflow.rules.yaml"


def _rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_rules_read_metrics_that_exist() -> None:
    """M13, P10, P12, H3, F25: a metric that a rule reads is one that a service shows, or one that a rule before it records."""
    shown = {
        f"tierflow_{name}"
        for path in [*ROOT.glob("services/*/src/*/*.py"), *ROOT.glob("libs/*/src/*/*.py")]
        for name in re.findall(r'(?:gauge|gauge_of|counter|histogram)\(\s*"([a-z_]+)"', path.read_text())
    }
    recorded: set[str] = set()
    for rule in _rules():
        for name in re.findall(r"tierflow_[a-z_]+", rule["expr"]):
            assert name in shown, rule["expr"]
        for name in re.findall(r"tierflow:[a-z0-9_:]+", rule["expr"]):
            assert name in recorded, rule["expr"]
        recorded.add(rule.get("record", ""))
    assert "tierflow_events_lag" in shown


def test_alerts_are_comparisons() -> None:
    """H3, M13: an alert is a metric, a comparison and a number; each says what it means."""
    alerts = {rule["alert"]: rule for rule in _rules() if "alert" in rule}
    for rule in alerts.values():
        assert re.fullmatch(r"[a-z0-9_:]+(\{[^}]*\})? [<>] [0-9.]+", rule["expr"]), rule["expr"]
        assert rule["annotations"]["summary"].endswith(".")
    assert alerts["TierflowUnavailable"]["expr"].endswith("< 0.999")
    assert alerts["TierflowEventsLag"]["expr"].startswith("tierflow_events_lag >")


def test_the_page_for_operators_tells_of_them() -> None:
    """P10, P12, P14: docs/operations.md names every alert, and says what stands in for numbers that nobody has."""
    page = (ROOT / "docs" / "operations.md").read_text()
    missing = [rule["alert"] for rule in _rules() if "alert" in rule and rule["alert"] not in page]
    assert missing == []
    assert "no measured starting point" in page
