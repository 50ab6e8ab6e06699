"""`shoestring retry`: discarded tasks run again, with their attempts counted from the beginning."""

from __future__ import annotations

import click

from shoestring.api.parameters import Replay
from shoestring.cli.figures import counted
from shoestring.cli.group import Command
from shoestring.cli.listing import ID, check_names
from shoestring.cli.session import Session, with_session
from shoestring.core.errors import NotFound

#: Replaying a hundred thousand rows takes many transactions on a small disk.
_ANSWER_S = 600.0


@click.command(cls=Command, example="shoestring retry 12 13\nshoestring retry --handler jobs.send_mail")
@click.argument("task_ids", metavar="[ID]...", type=ID, nargs=-1)
@click.option("--handler", metavar="HANDLER", help="All discarded tasks of this handler.")
@click.option("--queue", metavar="QUEUE", help="All discarded tasks of this queue.")
@click.option("--all", "everything", is_flag=True, help="All discarded tasks.")
@with_session
def retry(
    session: Session, *, task_ids: tuple[int, ...], handler: str | None, queue: str | None, everything: bool
) -> None:
    """Run discarded tasks again, their attempts counted from the beginning.

    Say which: IDs, or --handler, --queue or both, or --all. They become new tasks, with new IDs. Exits 5 if one of
    the IDs is not among the discarded, after running the others.
    """
    ways = [bool(task_ids), handler is not None or queue is not None, everything]
    if sum(ways) != 1:
        what = "Give only one of" if sum(ways) else "Say what to run again:"
        raise click.UsageError(
            f"{what} IDs, --handler and --queue, or --all. `shoestring discarded` lists what there is."
        )
    ids = list(dict.fromkeys(task_ids))
    wanted = Replay(task_ids=ids, handler=handler, queue=queue, all=everything)
    answer = session.ask("discarded.replay", wanted, dict[str, int], answer_s=_ANSWER_S)
    replayed = answer["replayed"]
    if not replayed:
        check_names(session, handler=handler, queue=queue)
    if session.json:
        session.print_json(answer)
    elif replayed:
        click.echo(f"{counted(replayed, 'task')} will run again.")
    else:
        session.say("Nothing is discarded there: nothing to run again.")
    if missing := max(0, len(ids) - replayed):
        session.say(f"{missing} of the {len(ids)} {'is' if missing == 1 else 'are'} not among the discarded.")
        raise click.exceptions.Exit(NotFound.exit_code)
