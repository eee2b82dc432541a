"""The `tierflow` command. Each subcommand is loaded when it is used, so that the command starts at once."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {
    "submit": ("submitting", "submit", "Start an execution of a flow."),
    "watch": ("following", "watch", "Follow an execution live."),
    "describe": ("reading", "describe", "Show a swarm or a run with its steps."),
    "runs": ("reading", "runs", "List runs, or describe one."),
    "swarms": ("reading", "swarms", "List swarms."),
    "logs": ("reading", "logs", "Show what the attempts of a run wrote."),
    "queue": ("reading", "queue", "Show how much is under way."),
    "executors": ("reading", "executors", "List the executors that are connected."),
    "cancel": ("steering", "cancel", "Stop all work of a swarm now."),
    "pause": ("steering", "pause", "Start nothing new; let running steps finish."),
    "resume": ("steering", "resume", "Go on after a pause."),
    "stop": ("steering", "stop", "Let running steps finish, then end the swarm."),
    "signal": ("steering", "signal", "Send a message to a run that waits for it."),
    "ask": ("steering_runs", "ask", "Send a message to a run and wait for its answer."),
    "query": ("steering_runs", "query", "Show variables and outputs of a run."),
    "retry": ("steering_runs", "retry", "Run again what failed; keep what completed."),
    "rerun": ("steering_runs", "rerun", "Start anew from a step on."),
    "fork": ("steering_runs", "fork", "Start anew with results of chosen steps."),
    "replay": ("steering_runs", "replay", "Start anew with the same flow and input."),
    "checkpoint": ("checkpoints", "checkpoint", "Name the place to which a swarm has come."),
    "checkpoints": ("checkpoints", "checkpoints", "List the checkpoints of a swarm."),
    "skip": ("steering_runs", "skip", "End a step by hand; go on without it."),
    "step": ("steering_runs", "step", "Run what is ready in a paused run."),
    "breakpoints": ("steering_runs", "breakpoints", "Pause before steps."),
    "update": ("steering_runs", "update", "Change limits and policies of a running swarm."),
    "migrate": ("steering_runs", "migrate", "Go on with another version of the flow."),
    "steer": ("steering_runs", "steer", "Do one thing to many swarms."),
    "blackboard": ("blackboards", "blackboard", "Read and write what a swarm shares, by key."),
    "context": ("blackboards", "context", "Show and change goal and policy of a swarm; go back to checkpoints."),
    "explain": ("explaining", "explain", "Say why a swarm, a run or a step waits."),
    "verify": ("verifying", "verify", "Check that a history is as it was written."),
    "approvals": ("approvals", "approvals", "List what waits for people; approve, reject, delegate."),
    "schedule": ("schedules", "schedule", "Start swarms at given times: make, list, pause, trigger, backfill."),
    "dead-letters": ("dead_letters", "dead_letters", "List what failed for good; retry or discard it."),
    "trail": ("trail", "trail", "List who did what."),
    "flows": ("flows", "flows", "Register, list, check and show flows."),
    "flow": ("flow_files", "flow", "Check, draw, compare and test flows in files; needs no server."),
    "dev": ("local", "dev", "Start everything on this machine and keep it running."),
    "demo": ("demo", "demo", "Start everything, run a real flow on real files, show what happens."),
    "executor": ("local", "executor", "Perform steps with the handlers of a Python package."),
    "audit": ("local", "audit", "Check everything that is stored against the invariants."),
    "version": ("local", "version", "Show the versions in use."),
}
"""Each command: its module, its name there, and what it does."""


class _Lazy(click.Group):
    """A group whose commands are imported when they are called; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"tierflow_cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Durable, budgeted execution of agents: submit flows, follow them, steer them.

    Every command but flow, dev, demo and executor speaks to a running coordinator: --address, else TIERFLOW_ADDRESS, else 127.0.0.1:7701.

    Exit codes: 0 done, 1 the execution failed, 2 wrong usage, 64 invalid request, 65 conflict, 66 not found, 69 nobody reachable, 70 defect,
    75 try again later, 77 not allowed, 130 interrupted.
    """


if __name__ == "__main__":
    main(prog_name="tierflow")
