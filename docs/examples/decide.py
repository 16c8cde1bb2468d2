"""Trains the likeliest candidates of the digits on everything until a shortlist of 90 % is known: `python docs/examples/decide.py PROXY EVERYTHING CANDIDATES.csv`.

EVERYTHING is the proxy drawn again with all samples: `proxyds resample PROXY -o EVERYTHING --ratio 1`.
"""

import csv
import sys
from pathlib import Path

from candidates import SHAPES, make, name, train

import proxyds

proxy, everything, table = sys.argv[1:]
with Path(table).open() as file:
    results = {row["architecture"]: row for row in csv.DictReader(file)}
shapes = {name(shape): shape for shape in SHAPES}
recipe = proxyds.read_recipe(Path(proxy, "recipe.yaml"))
data, test = proxyds.torch_dataset(everything), proxyds.torch_dataset(proxy, "test")
if (ranking := proxyds.rank(proxy, list(results.values()))).order_only:
    print(f"{ranking.candidates[0].name} comes first. {ranking.order_only}")
    sys.exit()
while not (ranking := proxyds.rank(proxy, list(results.values()))).is_settled:
    following = ranking.to_train[0]
    accuracy, _ = train(make(shapes[following]), data, test, recipe, on_everything=True)
    results[following]["full_accuracy"] = accuracy
    print(f"{following}: {results[following]['full_accuracy']:.1%} on everything")
print(f"take {ranking.best_known}: the best of all with a chance of {ranking.chance_of_known:.0%}")
