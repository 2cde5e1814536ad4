"""Counts the recorded events that came through whole: judge.py amibus|peer SENT CAME

SENT has the events as Asterisk sent them, CAME one JSON a line. Prints how many were sent, and how many came intact.

Of amibus, an event is intact where the function `restore` of docs/events.md makes the very bytes of it again. A peer is
asked for less: every header of the event, with each of its values as text, must be somewhere in its JSON. Names may have
another case and lack blanks, `-` and `_`; values may be numbers; repeated headers may be a list, and name=value pairs (ChanVariable) an
object; objects within objects count; whatever else is there does not matter. Each JSON can prove one event.
"""
import collections
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent


def messages(path):
    return [part for part in pathlib.Path(path).read_bytes().split(b"\r\n\r\n") if part]


def bodies(path):
    for line in pathlib.Path(path).read_bytes().split(b"\n"):
        if line:
            yield json.loads(line)


def of_amibus(sent, came):
    text = (HERE / "../../docs/events.md").read_text()
    scope = {}
    exec(text.split("```python\n", 1)[1].split("```", 1)[0], scope)
    left = collections.Counter(scope["restore"](body["data"]) for body in came)
    return sum((collections.Counter(sent) & left).values())


def plain(name):
    return re.sub(r"[\s_-]", "", name).lower()


def text_of(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def pairs(value, name=""):
    """Every (name, text) that a JSON value shows, an object's members also as name=value of the object's own name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from pairs(inner, plain(key))
            if name and not isinstance(inner, (dict, list)):
                yield name, f"{key}={text_of(inner)}"
    elif isinstance(value, list):
        for inner in value:
            yield from pairs(inner, name)
    else:
        yield name, text_of(value)


def headers(message):
    for line in message.decode("utf-8", "surrogateescape").split("\r\n"):
        name, _, value = line.partition(":")
        yield plain(name), value.removeprefix(" ")


def of_peer(sent, came):
    shown = [collections.Counter(pairs(body)) for body in came]
    # By one header that is the same in few: Timestamp, else the event's name.
    places = collections.defaultdict(list)
    for at, one in enumerate(shown):
        for name, text in one:
            if name in ("timestamp", "event"):
                places[name, text].append(at)
    used, intact = set(), 0
    for message in sent:
        wanted = collections.Counter(headers(message))
        keys = [key for key in wanted if key[0] == "timestamp"] or [key for key in wanted if key[0] == "event"]
        for at in places.get(keys[0], []):
            if at not in used and not wanted - shown[at]:
                used.add(at)
                intact += 1
                break
    return intact


if __name__ == "__main__":
    sent, came = messages(sys.argv[2]), bodies(sys.argv[3])
    print(len(sent), (of_amibus if sys.argv[1] == "amibus" else of_peer)(sent, came))
