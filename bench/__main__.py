"""`make bench`: the bare decode + infer loop and the service in its several shapes, side by side."""

import argparse
import json
from dataclasses import asdict

from bench import bare, picture, scrape, served
from bench.scrape import Scraped
from clicv2 import contract
from service.settings import Settings, usable_cores

CONCURRENCIES = (1, 8, 64)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--only", choices=served.STACKS, action="append", help="of the shapes; repeat for several")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()

    settings = Settings()
    version = contract.open_version(settings.model_repository / settings.model, settings.model_version)
    body = picture.jpeg()
    loops = [bare.measure(version, body, threads, options.seconds) for threads in (1, usable_cores())]
    runs: dict[str, list[served.Served]] = {}
    scrapes: dict[str, Scraped] = {}
    for name in options.only or served.STACKS:
        with served.STACKS[name]() as stack:
            runs[name] = [served.measure(stack, body, concurrency, options.seconds) for concurrency in CONCURRENCIES]
            scrapes[name] = scrape.measure(stack)

    if options.json:
        shapes = {name: [asdict(run) for run in rows] for name, rows in runs.items()}
        watched = {name: asdict(scraped) for name, scraped in scrapes.items()}
        print(json.dumps({"bare": [asdict(loop) for loop in loops], "served": shapes, "scraped": watched}))
    else:
        print(_table(len(body), loops, runs, scrapes))


def _table(size: int, loops: list[bare.Bare], runs: dict[str, list[served.Served]], scrapes: dict[str, Scraped]) -> str:
    """CPU beyond is what a request costs on top of decode + infer; the ratio is to the bare loop on all cores.

    A scrape's percentage is of one core, as often as Prometheus comes.
    """
    one, full = loops
    lines = [
        f"640 x 480 JPEG of {size / 1000:.0f} kB, {full.threads} cores; milliseconds unless stated",
        "",
        f"{'':22}{'images/s':>9}{'ratio':>7}{'p50':>8}{'p99':>8}{'CPU':>8}{'beyond':>8}{'errors':>8}",
    ]
    for loop in loops:
        name = f"bare loop, {loop.threads} thread{'s' if loop.threads > 1 else ''}"
        ratio = loop.rate / full.rate
        lines.append(f"{name:22}{loop.rate:9.1f}{ratio:7.2f}{loop.wall_ms:8.2f}{'':8}{loop.cpu_ms:8.2f}")
    for shape, rows in runs.items():
        lines += ["", shape]
        for run in rows:
            name = f"  concurrency {run.concurrency}"
            ratio, beyond = run.rate / full.rate, run.cpu_ms - one.cpu_ms
            lines.append(
                f"{name:22}{run.rate:9.1f}{ratio:7.2f}{run.p50_ms:8.2f}{run.p99_ms:8.2f}{run.cpu_ms:8.2f}{beyond:8.2f}"
                f"{run.errors:8}"
            )
        scraped = scrapes[shape]
        often = f"{100 * scraped.share:.2f} % of a core, each {scrape.EVERY_S:.0f} s"
        lines.append(f"{'  a scrape':22}{'':16}{scraped.wall_ms:8.2f}{'':8}{scraped.cpu_ms:8.2f}  {often}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
