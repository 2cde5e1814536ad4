"""Stores what a bus tells of commands and of their calls: outcomes.py nats|kafka ADDRESS PREFIX STREAM FILE

Says "ready" once it reads. Reads as `consume.py` of the faults does, with the bus's own client and nothing of amibus. A line a message
of interest, its words separated by tabs; all begin with the kind and the place where the bus keeps the message:

    R  PLACE  ID  CRC  COMMAND  OUTCOME  CODE  TIME    a response: its own id, CRC-32 of its body, the command's id, outcome, error code
                                                       (`-` for none), and when it was read, in microseconds since 1970
    E  PLACE  UNIQUEID                                 the first event of a channel whose Uniqueid amibus chose
"""
import json
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import consume  # noqa: E402

shown = set()


def words(place, raw):
    body = json.loads(raw)
    data = body["data"]
    if body["type"].startswith("ami.response."):
        code = (data["error"] or {}).get("code", "-")
        now = int(time.time() * 1e6)
        return ["R", place, body["id"], zlib.crc32(raw), data["id"], data["outcome"], code, now]
    unique = data.get("Uniqueid")
    if isinstance(unique, str) and unique.startswith("amibus-") and unique not in shown:
        shown.add(unique)
        return ["E", place, unique]
    return None


consume.main(words, ["event", "link", "response"])
