"""`clicv2 report`: a set of pictures as one page."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from service.commands.options import read_settings
from service.commands.scores import (
    STOPPED,
    Concurrency,
    PathsOrNone,
    Repository,
    Scores,
    Zero,
    ending_in_words,
    known_rows,
    local_scorer,
    note,
    of_model,
    paths_or_scores,
    scored_rows,
)
from service.files.names import as_text
from service.files.replacing import Replacement
from service.files.report.summary import Summary
from service.files.stopping import Stop


def report(
    paths: PathsOrNone = None,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="The page.")] = Path("report.html"),
    scores: Scores = None,
    examples: Annotated[
        int, typer.Option(min=0, max=100, help="Pictures shown, of the most and the least complex.")
    ] = 12,
    title: Annotated[str | None, typer.Option(help="Of the page; by default its paths.", show_default=False)] = None,
    concurrency: Concurrency = None,
    zero: Zero = False,
    model_repository: Repository = None,
) -> None:
    """Write a page about a set of pictures that needs nothing else: how complex they are beside the model's reference,
    the most and the least complex with their heatmaps, score against file size, and the files that are broken, nearly
    one colour, or copies of others. With --scores only the pictures that are shown are looked at.

    \b
    clicv2 report photos/ -o report.html
    clicv2 score photos/ --output scores.csv && clicv2 report --scores scores.csv
    clicv2 report photos/2024/ --scores scores.csv --examples 24
    """
    named = paths_or_scores(paths, scores)
    settings = read_settings(model_repository=model_repository)
    summary = Summary(examples)
    with ending_in_words(), ExitStack() as after:
        stop = after.enter_context(Stop())
        page = after.enter_context(Replacement(output))
        threads = concurrency or settings.threads
        scorer = local_scorer(settings, threads)
        from service.files.report.page import environment, render  # ONNX Runtime is installed only where it is used

        environment()
        if scores:
            summary.take(of_model(known_rows(named, scores, stop), scores, scorer.making))
        else:
            summary.take(scored_rows(named, scorer, threads, stop, zero=zero))
        if stop.asked:
            note(STOPPED)
            raise typer.Exit(stop.exit_code)
        if not summary.scored:
            note(
                f"there is nothing to tell of: no picture could be scored, and {summary.broken.count:,} files could not"
            )
            raise typer.Exit(1)
        page.write(render(summary, title or as_text(", ".join(named) or str(scores)), scorer).encode())
    note(f"{output} tells of {summary.scored:,} pictures; {summary.broken.count:,} could not be scored")
