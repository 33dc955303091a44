"""Many lines in one go: a table of sound files to a folder of takes, on one machine or on a Ray cluster.

    table.py     CSV and Parquet
    rows.py      a line and its settings; when an existing take is the one that is wanted
    manifest.py  the table of lines, checked; characters
    plan.py      which lines go through the network together
    journal.py   what makes a run survive kill -9 at any moment
    maker.py     sound -> network -> take, reading ahead and writing behind; finish.py and helpers.py serve it
    run.py       the whole of it, and the table of results
    cluster.py   the same on Ray

One line's trouble stops no other; docs/many.md tells what is promised.
"""

from .rows import Settings
from .run import animate_many

__all__ = ["Settings", "animate_many"]
