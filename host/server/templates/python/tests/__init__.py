"""Lets the tests import the SDK from its copy; `leasehold build` does the same for the build."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "leasehold" / "guest-sdk" / "python"))
