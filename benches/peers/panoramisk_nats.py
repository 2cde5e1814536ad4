"""AMI to NATS with panoramisk and nats-py: panoramisk_nats.py PORT URL PREFIX"""
import asyncio
import json
import sys

import nats
from panoramisk import Manager


async def main(port, url, prefix):
    bus = await nats.connect(url)
    loop = asyncio.get_running_loop()
    manager = Manager(loop=loop, host="127.0.0.1", port=port, username="amibus", secret="amibus")

    @manager.register_event("*")
    async def forward(_, event):
        await bus.publish(f"{prefix}.event.pbx1.{event.event}", json.dumps(dict(event)).encode())

    await manager.connect()
    await manager.authenticated_future
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
