"""`mystocks-scan token`: who may subscribe from elsewhere."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from data.settings import load_settings
from jobs.options import config_option, json_option, print_json, verbosity_options
from streaming import tokens


@click.group("token")
def command() -> None:
    """Make, list and revoke the tokens that subscribers from elsewhere need.

    Their names and hashes lie in the file of the setting serve.tokens, by default in the user's configuration folder. A
    running service notices at once what is made and revoked.
    """


@command.command("new")
@click.option("--name", metavar="NAME", help="What it is called, to revoke it by; by default token-1 and so on.")
@json_option
@config_option
@verbosity_options
def new(name: str | None, as_json: bool, config: Path | None) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    path = load_settings(config).serve.tokens
    name, token = tokens.add(path, name)
    if as_json:
        print_json({"name": name, "token": token})
        return
    click.echo(token)
    click.echo(
        f"This is token {name!r}; it is shown this once, and its hash kept in {path}.\n"
        "It is sent as 'Authorization: Bearer TOKEN', or from a page as the subprotocol 'bearer.TOKEN'.",
        err=True,
    )


@command.command("list")
@json_option
@config_option
@verbosity_options
def list_(as_json: bool, config: Path | None) -> None:
    """List the tokens: name, when it was made, and how its hash begins."""
    path = load_settings(config).serve.tokens
    known = tokens.read(path)
    if as_json:
        for one in known:
            print_json({"name": one.name, "created": one.created, "sha256": one.sha256[:8]})
    elif known:
        table = Table("name", "made", "hash", box=None)
        for one in known:
            table.add_row(one.name, one.created, one.sha256[:8])
        Console().print(table)
    else:
        click.echo(f"There is no token in {path}; 'mystocks-scan token new' makes one.", err=True)


@command.command("revoke")
@click.argument("name")
@config_option
@verbosity_options
def revoke(name: str, config: Path | None) -> None:
    """Revoke a token: whoever came in with it is out within a second, and stays out."""
    path = load_settings(config).serve.tokens
    tokens.remove(path, name)
    click.echo(f"Token {name!r} is revoked.", err=True)
