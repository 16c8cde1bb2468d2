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
data, test = proxyds.torch_dataset(everything), proxyds.torch_dataset(proxy, "test")
if not (ranking := proxyds.rank(proxy, list(results.values()))).shortlist:
    print(f"{ranking.candidates[0].name} comes first. {ranking.order_only}")
    sys.exit()
while not (ranking := proxyds.rank(proxy, list(results.values()))).is_settled:
    following = next(each for each in ranking.shortlist if "full_accuracy" not in results[each])
    results[following]["full_accuracy"] = train(make(shapes[following]), data, test, Path(proxy, "recipe.yaml"))
    print(f"{following}: {results[following]['full_accuracy']:.1%} on everything")
best = max(results.values(), key=lambda row: row.get("full_accuracy", 0))
print(f"take {best['architecture']}: the best of all with a chance of {ranking.chance_of_known:.0%}")
