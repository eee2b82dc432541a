"""`tierflow demo`."""

import click


@click.command()
def demo() -> None:
    """Start everything, run a real job on real files, show what happens."""
    raise click.ClickException("the services are not there yet")
