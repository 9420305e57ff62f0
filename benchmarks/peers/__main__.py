"""`python benchmarks/peers`: the course beside JAX, scikit-learn, Keras, skorch, Lightning and fastai, on this CPU."""

import argparse
import functools
from pathlib import Path

from peers import run
from tqdm import tqdm

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python benchmarks/peers", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--record", type=Path, metavar="FILE", help="add the raw times to what is recorded there")
    try:
        run(parser.parse_args().record, functools.partial(tqdm, leave=False, disable=None))
    except (ValueError, OSError) as error:
        parser.error(str(error))
