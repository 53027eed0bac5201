"""Print constraints that hold what the package needs at its lowest stated version: python .ci/lowest.py > FILE.

With --extras, print the names of the extras that are among it, for `pip install -e '.[NAMES]'`.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
required = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}
extras = {
    name: wants
    for name, wants in project["optional-dependencies"].items()
    # an extra that wants a newer release of what the package itself needs (onnx: torch) cannot be tried at the lowest
    if name not in {"dev", "docs"} and not required & {re.match(r"[\w-]+", each)[0] for each in wants}
}
if sys.argv[1:] == ["--extras"]:
    print(",".join(extras))
else:
    for requirement in [*project["dependencies"], *(each for wants in extras.values() for each in wants)]:
        name, bounds = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(>=.+)", requirement).groups()
        print(name + bounds.replace(">=", "=="))
