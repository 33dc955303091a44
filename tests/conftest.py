"""For all tests: rigs are made, not read from the user's cache folder, and nothing is left there."""

import os

os.environ["LSF_CACHE"] = ""
