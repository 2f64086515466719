"""The `paddock` command. Each command's file is imported when it is called, and not before."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

import paddock
from paddock.registry.errors import PaddockError

# Name → (where, the line in `paddock --help`). A test keeps the lines equal to the commands' own.
COMMANDS = {
    "serve": ("paddock.cli.serve:serve", "Run the gateway in this terminal."),
    "launch": ("paddock.cli.launch:launch", "Launch a model."),
    "attach": ("paddock.cli.attach:attach", "Serve a model that runs elsewhere, by its URL."),
    "pull": ("paddock.cli.pull:pull", "Download a model's weights, and launch nothing."),
    "cache": ("paddock.cli.cache:cache", "List, check and remove downloaded weights."),
    "lock": ("paddock.cli.lock:lock", "Write down which bytes and engine models are."),
    "verify": ("paddock.cli.lock:verify", "Read weights anew, and say which are whole or locked."),
    "outdated": ("paddock.cli.lock:outdated", "Say what hubs and engines have that is newer."),
    "run": ("paddock.cli.talk:run", "Launch a model if need be, and talk to it."),
    "generate": ("paddock.cli.talk:generate", "Continue a prompt with a launched model."),
    "chat": ("paddock.cli.talk:chat", "Chat with a launched model."),
    "list": ("paddock.cli.models:list_models", "List launched models."),
    "describe": (
        "paddock.cli.describe:describe",
        "Show a launched model: plan, replicas, restarts and why.",
    ),
    "logs": ("paddock.cli.models:logs", "Show the last lines of a model's engine."),
    "events": ("paddock.cli.events:events", "Watch what happens to models, until Ctrl-C."),
    "terminate": ("paddock.cli.models:terminate", "End a launched model."),
    "search": ("paddock.cli.search:search", "Find models by words and by what they can do."),
    "registrations": ("paddock.cli.catalogue:registrations", "List the models of the catalogue."),
    "register": ("paddock.cli.register:register", "Register a model of your own."),
    "unregister": ("paddock.cli.register:unregister", "Remove a registered model."),
    "show": (
        "paddock.cli.catalogue:show",
        "Print a model's spec, or the one derived from a repository.",
    ),
    "estimate": ("paddock.cli.catalogue:estimate", "Reckon the memory that a model takes."),
    "truth": ("paddock.cli.truth:truth", "List, export, import and forget what models took."),
    "engine": ("paddock.cli.engine:engine", "Install, list, look over and remove engines."),
    "keys": ("paddock.cli.keys:keys", "Make, list and revoke API keys."),
    "dashboard": ("paddock.cli.dashboard:dashboard", "Open the dashboard in a browser."),
    "stop": ("paddock.cli.stop:stop", "End the gateway, all models and the local Ray."),
}


class _Lazy(click.Group):
    """Lists commands from the table and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from paddock.registry.errors import UnknownName

            raise UnknownName.among("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(paddock.__version__, "-v", "--version", prog_name="paddock")
def cli() -> None:
    """Launch open models and talk to them.

    \b
    Example:
      paddock run tiny-mixtral "The old elephant"
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its code; our errors end here, as one line."""
    arguments = sys.argv[1:] if args is None else args
    _settle_home()
    try:
        code = cli.main(arguments, prog_name="paddock", standalone_mode=False)
    except click.exceptions.Abort:
        print("paddock: called off", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PaddockError as error:
        _fail(error, arguments)
    except BrokenPipeError:
        # The reader of our stdout left, as `head` does: no error, and nothing more to say.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        from paddock.registry.files import is_refused_write, not_written

        if not is_refused_write(error):
            raise
        _fail(not_written(error), arguments)
    sys.exit(code if isinstance(code, int) else 0)


def _settle_home() -> None:
    """Lets a user without a home folder, as containers have, keep all in PADDOCK_HOME.

    The hubs' clients take `~` as it stands where it leads nowhere.
    """
    home = os.environ.get("PADDOCK_HOME", "")
    if home and not home.startswith("~") and os.path.expanduser("~") == "~":
        os.environ["HOME"] = os.path.abspath(home)


def _fail(error: PaddockError, arguments: list[str]) -> NoReturn:
    from paddock.cli.errors import exit_code, show

    show(error, "--json" in arguments)
    sys.exit(exit_code(error))
