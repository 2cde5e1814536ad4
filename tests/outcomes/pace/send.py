"""Publishes commands to the JetStream stream of commands.

send.py originate URL GROUP CALLS   so many Originates; prints "done" when the stream has them
send.py ping URL                    a Ping every half second for ever; prints how many seconds each took
"""
import asyncio
import json
import sys
import time
import uuid

import nats

WAIT_SECONDS = 60
IN_FLIGHT = 256


async def originate(url, group, calls):
    connection = await nats.connect(url)
    stream = connection.jetstream(timeout=WAIT_SECONDS)
    batch = uuid.uuid4().hex[:8]
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one(number):
        fields = {"Channel": f"Local/{group}{number}@pace/n", "Context": "pace", "Exten": "held", "Priority": 1}
        body = {"id": f"{group}-{batch}-{number}", "fields": fields}
        async with room:
            await stream.publish("ami.command.pbx1.Originate", json.dumps(body).encode())

    await asyncio.gather(*(one(number) for number in range(int(calls))))
    print("done", flush=True)
    await connection.close()


async def ping(url):
    connection = await nats.connect(url)
    stream = connection.jetstream(timeout=WAIT_SECONDS)
    responses = await connection.subscribe("ami.response.pbx1.Ping")
    await connection.flush()
    while True:
        name, begun = uuid.uuid4().hex, time.monotonic()
        await stream.publish("ami.command.pbx1.Ping", json.dumps({"id": name}).encode())
        while True:
            message = await responses.next_msg(timeout=WAIT_SECONDS)
            if json.loads(message.data)["data"]["id"] == name:
                break
        print(f"{time.monotonic() - begun:.4f}", flush=True)
        await asyncio.sleep(0.5)


what, *arguments = sys.argv[1:]
asyncio.run({"originate": originate, "ping": ping}[what](*arguments))
