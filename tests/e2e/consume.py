"""Prints every message of a bus as one JSON line: consume.py zeromq|nats|kafka ADDRESS [STREAM]

Says {"ready": true} once it is subscribed. Uses the bus's own client for Python and nothing of amibus.
"""
import asyncio
import json
import sys


def show(topic, body, key=None, headers=None):
    line = {"topic": topic, "key": key, "headers": headers or {}, "body": json.loads(body)}
    print(json.dumps(line), flush=True)


def ready():
    print(json.dumps({"ready": True}), flush=True)


def zeromq(address):
    import zmq

    socket = zmq.Context().socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 500)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(address)
    socket.subscribe(b"ami.")
    monitor.recv_multipart()
    ready()
    while True:
        topic, body = socket.recv_multipart()
        show(topic.decode(), body)


async def nats(address, stream):
    import nats as client

    connection = await client.connect(address, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
    stream_context = connection.jetstream()
    while True:
        try:
            await stream_context.stream_info(stream)
            break
        except Exception:
            await asyncio.sleep(0.1)
    subscription = await stream_context.pull_subscribe("ami.>", durable="python", stream=stream)
    ready()
    while True:
        try:
            messages = await subscription.fetch(500, timeout=0.5)
        except Exception:
            # Nothing came, or the server is away: ask again.
            await asyncio.sleep(0.05)
            continue
        for message in messages:
            show(message.subject, message.data, headers=message.headers)
            await message.ack()


def kafka(address):
    from confluent_kafka import Consumer, TopicPartition

    topics = ["ami.event", "ami.link", "ami.response"]
    consumer = Consumer({
        "bootstrap.servers": address, "group.id": "python", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "reconnect.backoff.max.ms": 500,
    })
    while True:
        known = consumer.list_topics(timeout=20).topics
        if all(topic in known and known[topic].partitions for topic in topics):
            break
    partitions = [TopicPartition(t, p, 0) for t in topics for p in known[t].partitions]
    consumer.assign(partitions)
    ready()
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        headers = {k: v.decode() for k, v in message.headers() or []}
        show(message.topic(), message.value(), message.key().decode(), headers)


bus, *arguments = sys.argv[1:]
if bus == "nats":
    asyncio.run(nats(*arguments))
else:
    {"zeromq": zeromq, "kafka": kafka}[bus](*arguments)
