"""AMI to ZeroMQ with pyst2 and pyzmq: pyst2_zmq.py PORT ADDRESS PREFIX"""
import json
import sys
import threading

import zmq
from asterisk.manager import Manager

port, address, prefix = sys.argv[1:]
bus = zmq.Context.instance().socket(zmq.PUB)
bus.set_hwm(0)  # A subscriber that is slow misses nothing.
bus.bind(address)


def forward(event, manager):
    bus.send_multipart([f"{prefix}.event.pbx1.{event.name}".encode(), json.dumps(event.headers).encode()])


manager = Manager()
manager.register_event("*", forward)
manager.connect("127.0.0.1", int(port))
manager.login("amibus", "amibus")
print("ready", flush=True)
threading.Event().wait()
