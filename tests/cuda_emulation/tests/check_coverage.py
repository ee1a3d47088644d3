"""check_coverage.py FILE...: fails if a row of the instruction table is in none of the lists of the translator."""

import sys
from pathlib import Path

from translator.instructions import TABLE

used = {line for file in sys.argv[1:] for line in Path(file).read_text().splitlines()}
missing = [row.pattern.pattern for row in TABLE if row.pattern.pattern not in used]
print(f"{len(TABLE) - len(missing)} of {len(TABLE)} rows of the instruction table are tested")
for pattern in missing:
    print(f"not tested: {pattern}")
sys.exit(1 if missing else 0)
