"""`mystocks-scan warm`: compile kernels before they are needed."""

import time
from pathlib import Path

import click

from data.errors import EngineError, ExpressionError
from data.settings import load_settings
from jobs.options import config_option, json_option, print_json, verbosity_options
from jobs.wiring import use_kernel_cache
from scanner.engines.warm import Warming
from scanner.indicators import kernels
from scanner.indicators.spec import suggestion


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@config_option
@json_option
@verbosity_options
def command(names: tuple[str, ...], config: Path | None, as_json: bool) -> int:
    """Compile the kernels of all indicators for this machine, once, or those of the indicators named.

    The live service does so itself beside its first scans; this is for images, and before a `scan` by a clock. What is
    compiled already is left alone; each kernel is compared with its golden bits. Exit 1 if one is refused.
    """
    use_kernel_cache(load_settings(config))
    from scanner.engines import verdict

    started = time.perf_counter()
    known = {indicator.name: indicator for indicator in kernels()}
    for name in names:
        if name not in known:
            raise ExpressionError(
                f"no kernel is called {name!r}; {suggestion(name, known) or 'see `mystocks-scan indicators`'}"
            )
    wanted = [known[name] for name in names or known]
    todo = [indicator for indicator in wanted if not verdict.settled(indicator) or verdict.why_not(indicator)]
    warming = Warming(todo, priority=0)
    try:
        if not warming.wait():
            raise EngineError("the kernels could not be compiled")
    finally:
        warming.close()
    refused = {indicator.name: why for indicator in wanted if (why := verdict.why_not(indicator))}
    elapsed = time.perf_counter() - started
    if as_json:
        print_json({"kernels": len(wanted), "compiled": len(todo), "refused": refused, "elapsed_s": round(elapsed, 3)})
    else:
        click.echo(f"{len(todo)} of {len(wanted)} kernels compiled in {elapsed:.1f} s")
        for name, why in refused.items():
            click.echo(f"  {name} is refused: {why}")
    return 1 if refused else 0
