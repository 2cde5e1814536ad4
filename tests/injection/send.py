"""Sends commands over a bus, one after another, and prints what each was answered as one line of JSON.

send.py zeromq|nats|jetstream|kafka ADDRESS FILE

FILE holds a list of {"server", "action", "body"}, the body in base64: it is sent as it is, whatever it is.
"""
import asyncio
import base64
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
import ask  # noqa: E402


def show(body):
    print(json.dumps({"reply": body.decode("utf-8", "backslashreplace")}), flush=True)


async def jetstream(address, commands, show):
    import nats as client

    connection = await client.connect(address)
    stream = connection.jetstream()
    inbox = connection.new_inbox()
    replies = await connection.subscribe(inbox + ".*")
    for number, (server, action, body) in enumerate(commands):
        subject = f"{inbox}.{number}"
        await stream.publish(f"ami.command.{server}.{action}", body, headers={"reply-to": subject})
        message = await replies.next_msg(timeout=ask.WAIT_SECONDS)
        assert message.subject == subject, (message.subject, subject)
        show(message.data)


bus, address, file = sys.argv[1:]
with open(file) as opened:
    commands = [(one["server"], one["action"], base64.b64decode(one["body"])) for one in json.load(opened)]
function = {"zeromq": ask.zeromq, "nats": ask.nats, "jetstream": jetstream, "kafka": ask.kafka}[bus]
result = function(address, commands, show)
if asyncio.iscoroutine(result):
    asyncio.run(result)
print("done", flush=True)
