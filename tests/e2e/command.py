"""Sends commands over a bus and prints each reply's body as one line.

command.py zeromq|nats|jetstream|kafka ADDRESS COMMAND...

Each COMMAND is "SERVER ACTION BODY" (BODY may hold blanks; it is sent as it is).
"""
import asyncio
import sys

import ask


def show(body):
    print(body.decode().replace("\n", " "), flush=True)


async def jetstream(address, commands, show):
    import json

    import nats as client

    connection = await client.connect(address)
    stream = connection.jetstream()
    for server, action, body in commands:
        responses = await connection.subscribe(f"ami.response.{server}.{action}")
        ack = await stream.publish(f"ami.command.{server}.{action}", body)
        try:
            wanted = json.loads(body).get("id", "")
        except ValueError:
            wanted = ""
        # A command that could not be read is answered under its place in the stream.
        wanted = {wanted, f"{ack.stream}:{ack.seq}"}
        while True:
            message = await responses.next_msg(timeout=ask.WAIT_SECONDS)
            if json.loads(message.data).get("correlationid") in wanted:
                break
        show(message.data)


bus, address, *rest = sys.argv[1:]
commands = [(server, action, body.encode("utf-8", "surrogateescape"))
            for server, action, body in (text.split(" ", 2) for text in rest)]
function = {"zeromq": ask.zeromq, "nats": ask.nats, "jetstream": jetstream, "kafka": ask.kafka}[bus]
result = function(address, commands, show)
if asyncio.iscoroutine(result):
    asyncio.run(result)
print("done", flush=True)
