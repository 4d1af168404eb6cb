"""`schema` and `completion`: what other programs want to know."""

import click

from spoold.cli import output
from spoold.errors import Exit


@click.command()
@click.argument("document", type=click.Choice(["request", "status", "manifest", "daemon"]))
def schema(document: str) -> int:
    """Print a JSON Schema (2020-12): of a request, a drop's or the daemon's status, a manifest.

    \b
    Example: spoold schema request > request.schema.json
    Exit status: 0 done · 2 usage
    """
    from spoold import schemas

    output.document(schemas.SCHEMAS[document]())
    return Exit.DONE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the completion script of a shell.

    \b
    Example: spoold completion bash > ~/.local/share/bash-completion/completions/spoold
    Exit status: 0 done · 2 usage
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    script = found(context.find_root().command, {}, "spoold", "_SPOOLD_COMPLETE").source()
    output.raw(script.encode())
    return Exit.DONE
