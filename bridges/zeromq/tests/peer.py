"""A ZeroMQ peer that is not ours: pyzmq, that is, libzmq. Usage: peer.py WHAT OPTIONS-AS-JSON

Prints a line when it is ready and one for each thing that it saw. Ends when its standard input does.
"""

import base64
import json
import os
import sys
import threading
import time

import zmq
from zmq.utils.monitor import recv_monitor_message

CONFIRM = b"~amibus.confirm."
context = zmq.Context()
context.set(zmq.MAX_SOCKETS, 5000)


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def text(data):
    return base64.b64encode(data).decode()


def end_with_parent():
    sys.stdin.read()
    os._exit(0)


def socket(kind, options):
    made = context.socket(kind)
    made.setsockopt(zmq.RECONNECT_IVL, 20)
    made.setsockopt(zmq.LINGER, 0)
    if options.get("heartbeat_millis"):
        made.setsockopt(zmq.HEARTBEAT_IVL, options["heartbeat_millis"])
        made.setsockopt(zmq.HEARTBEAT_TIMEOUT, options["heartbeat_millis"] * 20)
        made.setsockopt(zmq.HEARTBEAT_TTL, options["heartbeat_millis"] * 100)
    if "identity" in options:
        made.setsockopt(zmq.IDENTITY, options["identity"].encode())
    if "receive_queue" in options:
        made.setsockopt(zmq.RCVHWM, options["receive_queue"])
    return made


def subscriber(options, name="x"):
    made = socket(zmq.SUB, options)
    made.connect(options["address"])
    for topic in options["topics"]:
        made.setsockopt(zmq.SUBSCRIBE, topic.encode())
    made.setsockopt(zmq.SUBSCRIBE, CONFIRM + name.encode())
    return made


def observe(options):
    made = subscriber(options)
    while True:
        frames = made.recv_multipart()
        if frames[0].startswith(CONFIRM):
            say(ready=True, body=text(frames[1]))
        else:
            say(topic=frames[0].decode(), body=text(frames[1]), frames=len(frames))


def count(options):
    """Counts messages whose bodies begin with a number, and the numbers that are missing or out of order."""
    made = subscriber(options)
    events = made.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    seen, next_number, jumps, started = 0, 0, 0, None
    while seen < options["messages"]:
        frames = made.recv_multipart()
        if frames[0].startswith(CONFIRM):
            say(ready=True)
            continue
        started = started or time.monotonic()
        number = int(frames[1][:10])
        jumps += number != next_number
        next_number = number + 1
        seen += 1
        if seen == options.get("say_at"):
            say(reached=seen)
    disconnects = 0
    while events.poll(0):
        recv_monitor_message(events)
        disconnects += 1
    say(seen=seen, jumps=jumps, disconnects=disconnects, seconds=time.monotonic() - started)


def many(options):
    """As many subscribers as `peers`, each of which must see `messages`."""
    poller, left, ready = zmq.Poller(), {}, 0
    for n in range(options["peers"]):
        made = subscriber(options, str(n))
        poller.register(made, zmq.POLLIN)
        left[made] = options["messages"]
    while any(left.values()):
        for made, _ in poller.poll():
            frames = made.recv_multipart()
            if frames[0].startswith(CONFIRM):
                ready += 1
                if ready == options["peers"]:
                    say(ready=True)
            else:
                left[made] -= 1
    say(seen=options["peers"] * options["messages"], least=min(left.values()))


def ask(options):
    """Sends each of `messages`, a list of frames (in base64, or a length), and prints each reply's frames."""
    made = socket(getattr(zmq, options["kind"]), options)
    events = made.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    made.connect(options["address"])
    for frames in options["messages"]:
        made.send_multipart([b"x" * frame if isinstance(frame, int) else base64.b64decode(frame) for frame in frames])
        if options["kind"] == "REQ" and frames is not options["messages"][-1]:
            say(reply=[text(frame) for frame in made.recv_multipart()])
    say(sent=True)
    while True:
        ready, _, _ = zmq.select([made, events], [], [])
        if made in ready:
            say(reply=[text(frame) for frame in made.recv_multipart()])
        if events in ready:
            recv_monitor_message(events)
            say(disconnected=True)


threading.Thread(target=end_with_parent, daemon=True).start()
{"observe": observe, "count": count, "many": many, "ask": ask}[sys.argv[1]](json.loads(sys.argv[2]))
threading.Event().wait()
