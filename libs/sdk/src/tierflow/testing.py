"""Test kit for flows: run a flow in a unit test, on a virtual clock, with fakes for its handlers. Needs `pip install tierflow-sdk[testing]`, and no server.

    from tierflow.testing import FlowTest

    def test_a_refund_is_paid() -> None:
        test = FlowTest("flows/refund.yaml").fake("bank.transfer", {"id": "t1"}, takes="2s")
        test.run({"amount": 12}).expect(state="COMPLETED", output={"paid": True}, duration="2s")

It is the core of tier 2 that decides, the same code as in production. The kit stands above the services; nothing of the SDK imports this module.
"""

from __future__ import annotations

try:
    from tierflow_kit.fakes import Attempt as Attempt
    from tierflow_kit.fakes import FakeError as FakeError
    from tierflow_kit.flow_test import FlowRun as FlowRun
    from tierflow_kit.flow_test import FlowTest as FlowTest
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "tierflow_kit":
        raise
    raise ModuleNotFoundError(
        "tierflow.testing needs the test kit: pip install tierflow-sdk[testing]", name=error.name
    ) from None

__all__ = ["Attempt", "FakeError", "FlowRun", "FlowTest"]
