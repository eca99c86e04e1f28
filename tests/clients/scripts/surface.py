"""Prints the public methods of a client, so that docs/clients.md can be held to have them all.

    python surface.py tritonclient.http.InferenceServerClient

One at a time: KServe and tritonclient bring messages of the same names, which one process cannot have twice.
"""

import importlib
import inspect
import json
import sys

if __name__ == "__main__":
    module, _, name = sys.argv[1].rpartition(".")
    client = getattr(importlib.import_module(module), name)
    methods = (method for method, _ in inspect.getmembers(client, inspect.isfunction))
    print(json.dumps([method for method in methods if not method.startswith("_")]))
