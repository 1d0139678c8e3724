"""The head of a request to `child`: kind, bytes of code, bytes of the rest, CPU seconds, most bytes of output."""

import struct

HEADER = struct.Struct("=5I")
FUNCTION, PROGRAM, COMPILES = range(3)
