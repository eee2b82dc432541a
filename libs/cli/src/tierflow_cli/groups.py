"""Groups of subcommands."""

from __future__ import annotations

import click


class Listing(click.Group):
    """A group that lists where no subcommand is named: `runs` is `runs list`, and `runs ID` no command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts `list` in front where no subcommand stands."""
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)
